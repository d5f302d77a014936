"""What imported maps are called: one label for one name, in one import and across several."""

import json

import nibabel as nib
import numpy as np
import pytest
import scipy.io

SHAPE = (4, 5, 3)


@pytest.fixture
def write_table(tmp_path, rng):
    """Return a function that writes a table of t maps, and the maps; rows are (study, contrast)."""

    def write(name, rows, key="study_id"):
        lines = [f"{key}\tpath\tkind\tcontrast\tsample_size"]
        for number, (study, contrast) in enumerate(rows):
            image = nib.Nifti1Image(rng.normal(size=SHAPE).astype(np.float32), np.diag([4.0, 4, 4, 1]))
            image.to_filename(tmp_path / f"{name}{number}.nii.gz")
            lines.append(f"{study}\t{name}{number}.nii.gz\tt\t{contrast}\t20")
        path = tmp_path / f"{name}.tsv"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def stems(root):
    return sorted(path.name.partition("_stat-")[0] for path in root.rglob("*stat-t_statmap.nii.gz"))


def sidecars(root):
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*stat-t_statmap.json"))]


def load(root, stem):
    (path,) = root.rglob(f"{stem}_stat-t_statmap.nii.gz")
    return nib.load(path).get_fdata()


SPACE = ("--space", "MNI152NLin6Asym")


@pytest.mark.parametrize(
    ("one", "other"),
    [("Smith 2019", "Smith-2019"), ("O'Neil", "ONeil"), ("de la Cruz", "dela Cruz")],
)
@pytest.mark.parametrize("apart", [False, True])
def test_two_studies_of_one_label_are_refused(ibma_import, write_table, tmp_path, one, other, apart):
    out = tmp_path / "out"
    if apart:  # in two imports into one dataset
        assert ibma_import("table", write_table("a", [(one, "x")]), out, *SPACE).code == 0
        before = load(out, "*")
        table = write_table("b", [(other, "y")])
    else:
        table = write_table("a", [(one, "x"), (other, "y")])
    ran = ibma_import("table", table, out, *SPACE)
    assert ran.code == 16
    assert repr(one) in ran.stderr
    assert repr(other) in ran.stderr
    assert "--study-label" in ran.stderr
    if apart:
        np.testing.assert_array_equal(load(out, "*"), before)
        assert ibma_import("table", table, out, *SPACE, "--study-label", "other2019").code == 0  # the advice
        assert len(stems(out)) == 2
    else:
        assert not out.exists()


def test_a_study_comes_again_under_its_name(ibma_import, write_table, tmp_path):
    out = tmp_path / "out"
    assert ibma_import("table", write_table("a", [("Smith 2019", "x")]), out, *SPACE).code == 0
    assert ibma_import("table", write_table("b", [("Smith 2019", "y")]), out, *SPACE).code == 0
    assert len(stems(out)) == 2
    assert [one["Names"] for one in sidecars(out)] == [{"study": "Smith 2019"}] * 2


def test_the_same_files_come_again_under_a_name_that_was_mended(ibma_import, write_table, tmp_path):
    out, table = tmp_path / "out", write_table("a", [("Smith 2019", "x")])
    assert ibma_import("table", table, out, *SPACE).code == 0
    table.write_text(table.read_text().replace("Smith 2019", "Smith-2019"))
    ran = ibma_import("table", table, out, *SPACE)
    assert ran.code == 0, ran.stderr
    assert [one["Names"] for one in sidecars(out)] == [{"study": "Smith-2019"}]


def test_names_in_chinese_stay_apart_and_are_kept(ibma_import, write_table, tmp_path):
    out = tmp_path / "out"
    names = [("研究一", "面孔 > 房屋"), ("研究一", "房屋 > 面孔"), ("研究二", "面孔 > 房屋")]
    ran = ibma_import("table", write_table("a", names), out, *SPACE)
    assert ran.code == 0, ran.stderr
    assert len(stems(out)) == 3
    assert len({stem.partition("_contrast-")[2] for stem in stems(out)}) == 2
    kept = sorted((one["Names"]["study"], one["ContrastName"]) for one in sidecars(out))
    assert kept == sorted(names)
    for study, contrast in names:
        (stem,) = [
            path.with_suffix("").name.partition("_stat-")[0]
            for path in out.rglob("*stat-t_statmap.json")
            if (content := json.loads(path.read_text()))["ContrastName"] == contrast
            and content["Names"]["study"] == study
        ]
        expected = nib.load(tmp_path / f"a{names.index((study, contrast))}.nii.gz").get_fdata()
        np.testing.assert_allclose(load(out, stem), expected, rtol=1e-6)


def test_another_contrast_does_not_replace_an_earlier_one(ibma_import, write_table, tmp_path):
    out = tmp_path / "out"
    assert ibma_import("table", write_table("a", [("s", "A/B")]), out, *SPACE).code == 0
    before = load(out, "*")
    table = write_table("b", [("s", "A*B")])
    ran = ibma_import("table", table, out, *SPACE)
    assert ran.code == 16
    assert "'A/B'" in ran.stderr
    np.testing.assert_array_equal(load(out, "*"), before)
    assert ibma_import("table", table, out, *SPACE, "--contrast", "A*B=product").code == 0
    assert stems(out) == [f"study-s_space-{SPACE[1]}_contrast-{label}" for label in ("ab", "product")]


def test_a_label_for_several_names_in_several_studies_is_told(ibma_import, write_table, tmp_path):
    ran = ibma_import("table", write_table("a", [("s", "A/B"), ("r", "A*B"), ("q", "a/b")]), tmp_path / "out", *SPACE)
    assert ran.code == 0
    assert "contrast-ab stands for several names: A/B; A*B." in ran.stderr


@pytest.mark.parametrize("length", [200, 280, 1000])
def test_long_names_are_cut_and_kept_whole_in_the_sidecar(ibma_import, cli, write_table, tmp_path, length):
    long = ("Negative faces versus neutral ones, correct trials only " * 20)[:length].strip()
    out = tmp_path / "out"
    rows = [("A" * 200, long), ("B", long), ("B", f"{long} too"), ("C", long)]
    ran = ibma_import("table", write_table("a", rows), out, *SPACE)
    assert ran.code == 0, ran.stderr
    assert len(stems(out)) == 4
    assert len({stem.partition("_contrast-")[2] for stem in stems(out)}) == 2
    assert {one["ContrastName"] for one in sidecars(out)} == {long, f"{long} too"}
    assert [one["Names"]["study"] for one in sidecars(out) if "Names" in one] == ["A" * 200]
    ran = cli(out, tmp_path / "group", "group", "--estimator", "stouffer", "--mask", "data", "--contrast", long)
    assert ran.code == 0, ran.stderr
    (z,) = (tmp_path / "group").rglob("*desc-stouffer_stat-z_statmap.json")
    content = json.loads(z.read_text())
    assert (content["NumberOfMaps"], content["ContrastName"]) == (3, long)


def test_contrasts_of_one_name_in_a_feat_folder(ibma_import, maker, tmp_path):
    feat = maker("feat_folder")
    maps = {
        name: (np.full(feat.SHAPE, effect), np.full(feat.SHAPE, 0.5))
        for name, effect in (("a", 1.0), ("b", 2.0), ("c", 3.0))
    }
    folder = feat.make_feat(tmp_path / "a.feat", {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [1.0, -1.0]}, maps)
    text = (folder / "design.con").read_text()
    for number, name in ((1, "a"), (2, "b")):
        text = text.replace(f"/ContrastName{number}\t{name} ", f"/ContrastName{number}\tface gt shape ")
    (folder / "design.con").write_text(text)
    check_twins(ibma_import, ("fsl", folder), tmp_path, {1: 1.0, 2: 2.0})


def check_twins(ibma_import, source, tmp_path, effects):
    """Import twins by their numbers: all, chosen, and as the message advises."""

    def medians(out):
        found = {}
        for path in out.rglob("*stat-effect_statmap.nii.gz"):
            values = nib.load(path).get_fdata()
            found[path.name.partition("_contrast-")[2].partition("_")[0]] = np.median(values[values != 0])
        return found

    who = ("--participant-label", "01")
    ran = ibma_import(*source, tmp_path / "all", *who)
    assert ran.code == 0, ran.stderr
    assert "2 contrasts are called 'face gt shape'" in ran.stderr
    every = medians(tmp_path / "all")
    one, two = effects
    scale = every[f"faceGtShape{one}"] / effects[one]
    assert every[f"faceGtShape{two}"] == pytest.approx(scale * effects[two], rel=1e-4)
    ran = ibma_import(*source, tmp_path / "chosen", *who, "--contrast", f"{two}=faces")
    assert ran.code == 0, ran.stderr
    assert medians(tmp_path / "chosen") == {"faces": pytest.approx(every[f"faceGtShape{two}"])}
    ran = ibma_import(*source, tmp_path / "none", *who, "--contrast", "face gt shape=first")
    assert ran.code == 64
    advice = ran.stderr.rpartition("--contrast ")[2].strip().rstrip(".").split()
    assert advice == [f"{one}=first{one}", f"{two}=first{two}"]
    assert ibma_import(*source, tmp_path / "advised", *who, "--contrast", *advice).code == 0
    assert set(medians(tmp_path / "advised")) == {f"first{one}", f"first{two}"}


def test_contrasts_of_one_name_in_an_spm_folder(ibma_import, maker, tmp_path):
    spm = maker("spm_folder")
    truth = spm.make_first_level(tmp_path / "spm")
    path = tmp_path / "spm" / "SPM.mat"
    content = scipy.io.loadmat(path)
    entries = content["SPM"][0, 0]["xCon"]
    numbers = [i for i in range(entries.shape[1]) if str(np.ravel(entries[0, i]["STAT"])[0]) == "T"][:2]
    names = [str(np.ravel(entries[0, i]["name"])[0]) for i in numbers]
    for i in numbers:
        entries[0, i]["name"] = np.array(["face gt shape"])
    scipy.io.savemat(path, {"SPM": content["SPM"]})
    mask = truth.mask
    effects = {i + 1: float(np.median(truth.effect[name][mask])) for i, name in zip(numbers, names, strict=True)}
    ran = ibma_import("spm", tmp_path / "spm", tmp_path / "all", "--participant-label", "01")
    assert ran.code == 0, ran.stderr
    found = {p.name.partition("_contrast-")[2].partition("_")[0] for p in (tmp_path / "all").rglob("*stat-effect*.gz")}
    assert {f"faceGtShape{number}" for number in effects} <= found
    one, two = effects
    ran = ibma_import(
        "spm", tmp_path / "spm", tmp_path / "two", "--participant-label", "01", "--contrast", f"{two}=faces"
    )
    assert ran.code == 0, ran.stderr
    (chosen,) = (tmp_path / "two").rglob("*contrast-faces_stat-effect_statmap.nii.gz")
    (same,) = (tmp_path / "all").rglob(f"*contrast-faceGtShape{two}_stat-effect_statmap.nii.gz")
    (other,) = (tmp_path / "all").rglob(f"*contrast-faceGtShape{one}_stat-effect_statmap.nii.gz")
    np.testing.assert_array_equal(nib.load(chosen).get_fdata(), nib.load(same).get_fdata())
    assert not np.array_equal(nib.load(chosen).get_fdata(), nib.load(other).get_fdata())
