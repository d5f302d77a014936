"""Values below single precision (MEG power in SI units) are computed with, and written, as others are."""

import nibabel as nib
import numpy as np

SHAPE = (6, 7, 5)
UNIT = 1e-22  # of the effects; variances are 1e-44
POWERS = {
    **{"effect": 1, "lower": 1, "upper": 1, "pilower": 1, "piupper": 1},
    **{"variance": 2, "tau2": 2, "tau2lower": 2, "tau2upper": 2},
}


def results(folder, unit):
    """Read maps in units of ``unit``, by what their names end in."""
    found = {}
    for path in sorted(folder.rglob("*_statmap.nii.gz")):
        kind = path.name.split("_stat-")[1].split("_")[0]
        found[path.name] = nib.load(path).get_fdata() / unit ** POWERS.get(kind, 0)
    return found


def test_a_dataset_in_tiny_units_gives_the_same_results(tmp_path, cli, write_statmap, describe_dataset):
    rng = np.random.default_rng(12)
    maps = [(rng.normal(0.5, 1, SHAPE), rng.uniform(0.2, 0.9, SHAPE)) for _ in range(12)]
    written = {}
    for name, unit in (("one", 1.0), ("tiny", UNIT)):
        root, out = describe_dataset(tmp_path / name), tmp_path / f"{name}_out"
        for number, (effect, variance) in enumerate(maps):
            label = {"sub": f"{number // 2:02d}", "run": str(number % 2), "task": "x", "contrast": "ab"}
            write_statmap(root, "effect", effect * unit, dtype=np.float64, **label)
            write_statmap(root, "variance", variance * unit**2, dtype=np.float64, **label)
        cli(root, out, "participant", "--dof", "50", "--no-report")
        words = ("--estimator", "reml", "ols", "--inference", "max-stat", "--permutations", "64", "--no-report")
        assert cli(root, out, "group", *words).code == 0
        written[name] = results(out, unit)
    assert len(written["one"]) > 30
    for name, expected in written["one"].items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(written["tiny"][name], expected, rtol=1e-5, atol=1e-6 * scale, err_msg=name)
    tiny = [name for name, values in written["tiny"].items() if "stat-variance" in name and (values > 0).all()]
    assert len(tiny) == 8  # six subjects, two estimators: no voxel was lost


def test_an_import_keeps_the_digits_of_small_variances(tmp_path, run_python):
    rng = np.random.default_rng(13)
    effect, t = rng.normal(0.5, 1, SHAPE) * UNIT, rng.normal(2, 1, SHAPE)
    for kind, values in (("effect", effect), ("t", t)):
        nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / f"{kind}.nii")
    rows = ["study_id\tpath\tkind\tcontrast\tdof", *(f"a\t{kind}.nii\t{kind}\tpower\t20" for kind in ("effect", "t"))]
    (tmp_path / "maps.tsv").write_text("\n".join(rows) + "\n")
    words = ("table", tmp_path / "maps.tsv", tmp_path / "out", "--space", "MNI152NLin6Asym")
    assert run_python("-c", "import sys; from ibma_app.cli import import_main as m; sys.exit(m())", *words).code == 0
    (path,) = (tmp_path / "out").rglob("*stat-variance_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(path).get_fdata(), (effect / t) ** 2, rtol=1e-6)
