"""What headers say of a map's place, from the files to the report: stated, not stated, or a hair off."""

import html

import nibabel as nib
import numpy as np
import pytest

SHAPE = (12, 14, 10)
RUN = "import sys; from ibma_app.cli import import_main; sys.exit(import_main())"


@pytest.fixture
def volumes(rng):
    return rng.normal(0.6, 1, (6, *SHAPE)).astype(np.float32)


def without_place(path):
    image = nib.load(path, mmap=False)
    data, affine = np.asarray(image.dataobj), image.affine
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=0)
    image.set_qform(affine, code=0)
    image.to_filename(path)
    return path


def test_subjects_that_state_no_place_are_told_and_drawn_without_a_template(
    tmp_path, cli, describe_dataset, write_statmap, volumes
):
    root = describe_dataset(tmp_path / "in")
    for number, values in enumerate(volumes):
        without_place(write_statmap(root, "effect", values, sub=f"{number:02d}", space="MNI152NLin6Asym", contrast="a"))
    ran = cli(root, tmp_path / "out", "group", "--estimator", "ols", "--inference", "uncorrected")
    assert ran.code == 0, ran.stderr
    assert ran.stderr.count("state no place (their headers have neither sform nor qform)") == 1
    text = html.unescape((tmp_path / "out" / "group_space-MNI152NLin6Asym_contrast-a.html").read_text())
    assert "6 map(s) state no place" in text
    assert '"backdrop": null' in text  # of the viewer: no brain behind the maps
    (effect,) = (tmp_path / "out").rglob("*desc-ols_stat-effect_statmap.nii.gz")
    header = nib.load(effect).header
    assert (header["sform_code"], header["qform_code"]) == (0, 0)  # still nobody knows
    np.testing.assert_allclose(nib.load(effect).get_fdata(), volumes.mean(axis=0), atol=1e-6)


def test_studies_that_state_no_place_are_not_cut_by_a_brain_at_a_guess(
    tmp_path, cli, describe_dataset, write_statmap, volumes
):
    root = describe_dataset(tmp_path / "in")
    for number, values in enumerate(volumes):
        without_place(write_statmap(root, "z", values, study=f"s{number}", space="MNI152NLin6Asym", contrast="a"))
    words = ("group", "--estimator", "stouffer", "--no-report")
    ran = cli(root, tmp_path / "out", *words)
    assert ran.code == 65
    assert "state no place" in ran.stderr
    assert "--mask data" in ran.stderr
    ran = cli(root, tmp_path / "out", *words, "--mask", "data")  # the advice
    assert ran.code == 0
    (z,) = (tmp_path / "out").rglob("*desc-stouffer_stat-z_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(z).get_fdata(), volumes.sum(axis=0) / np.sqrt(6), atol=1e-5)


def test_imports_say_that_no_place_is_stated_and_call_it_no_mni(tmp_path, run_python, volumes):
    nib.Nifti1Image(volumes[0], np.diag([4.0, 4, 4, 1])).to_filename(tmp_path / "z.nii")
    without_place(tmp_path / "z.nii")
    (tmp_path / "maps.tsv").write_text("study_id\tpath\tkind\tcontrast\nlee\tz.nii\tz\tpain\n")
    ran = run_python("-c", RUN, "table", tmp_path / "maps.tsv", tmp_path / "out", "-v")
    assert "states no place" in ran.stderr
    names = [path.name for path in (tmp_path / "out").rglob("*_statmap.nii.gz")]
    assert names == ["study-lee_contrast-pain_stat-z_statmap.nii.gz"]


def test_a_run_a_hair_off_is_used_and_one_further_off_left_out_with_the_distance(
    tmp_path, cli, describe_dataset, write_statmap, rng
):
    root, affine = describe_dataset(tmp_path / "in"), np.diag([4.0, 4, 4, 1])
    effects = rng.normal(size=(3, *SHAPE)).astype(np.float32)
    for run, step in enumerate((0.0, 0.02, 0.5)):
        where = affine.copy()
        where[1, 3] += step
        label = {"sub": "01", "run": str(run), "task": "x", "contrast": "a"}
        write_statmap(root, "effect", effects[run], affine=where, **label)
        write_statmap(root, "variance", np.ones(SHAPE, np.float32), affine=where, **label)
    ran = cli(root, tmp_path / "out", "participant", "--dof", "100", "--no-report")
    assert ran.code == 0
    assert "(0.02 mm). Their voxels are used as they are" in ran.stderr
    assert "its voxels lie up to 0.5 mm from there, 0.12 of a voxel" in ran.stderr
    (effect,) = (tmp_path / "out" / "sub-01").rglob("*stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(effect).get_fdata(), effects[:2].mean(axis=0), atol=1e-6)
    (n,) = (tmp_path / "out" / "sub-01").rglob("*stat-n_statmap.nii.gz")
    assert (nib.load(n).get_fdata() == 2).all()


def test_voxel_sizes_that_cannot_be_are_told_where_they_decide(tmp_path, cli, describe_dataset, write_statmap, volumes):
    root = describe_dataset(tmp_path / "in")
    affine = np.diag([4.0, 4, 4, 1])
    for number, values in enumerate(volumes):
        path = write_statmap(root, "effect", values, sub=f"{number:02d}", contrast="a", affine=affine, extension=".nii")
        image = nib.Nifti1Image(values, affine)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=0)
        image.to_filename(path)
        raw = bytearray(path.read_bytes())
        raw[76:80] = bytes(4)  # pixdim[0], as ITK writes it
        raw[80:84] = np.float32(-4.0 if number == 2 else 4.0).tobytes()
        path.write_bytes(raw)
    ran = cli(root, tmp_path / "out", "group", "--estimator", "ols", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "1 map(s) have impossible voxel sizes in their headers: sub-02_contrast-a (-4 x 4 x 4)" in ran.stderr
    (effect,) = (tmp_path / "out").rglob("*desc-ols_stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(effect).get_fdata(), volumes.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(nib.load(effect).affine, affine)
