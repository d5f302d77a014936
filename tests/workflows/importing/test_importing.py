"""``ibma-import`` from end to end: other software's folders become a dataset that ibma-app reads."""

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

CONTRASTS = {"A": [1.0, 0.0], "A gt B": [2.0, -2.0]}


@pytest.fixture(scope="module")
def feat(maker: Callable[[str], Any]) -> Any:
    return maker("feat_folder")


def _maps(feat: Any, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    inside = np.zeros(feat.SHAPE)
    inside[1:-1, 1:-1, 1:-1] = 1
    return {
        name: (50 * rng.standard_normal(feat.SHAPE) * inside, (400 + 100 * rng.random(feat.SHAPE)) * inside)
        for name in CONTRASTS
    }


def _mean(feat: Any) -> np.ndarray:
    return 9000 + 2000 * np.random.default_rng(2).random(feat.SHAPE)


def _load(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def _sidecar(path: Path) -> dict[str, Any]:
    return json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())


@pytest.fixture(scope="module")
def runs(feat: Any, ibma_import: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two subjects, imported one by one."""
    root = tmp_path_factory.mktemp("runs")
    for subject in ("01", "02"):
        for run in ("1", "2"):
            folder = root / f"sub{subject}_{run}.feat"
            maps = _maps(feat, int(subject + run))
            feat.make_feat(folder, CONTRASTS, maps, mean=_mean(feat), registered=True)
            words = ("--participant-label", f"sub-{subject}", "--run", run, "-t", "faces")
            ran = ibma_import("fsl", folder, root / "maps", *words)
            assert ran.code == 0, ran.stderr
    return root


def test_files_stand_where_the_contract_says(runs: Path):
    there = sorted(path.name for path in (runs / "maps" / "sub-01" / "func").glob("*.nii.gz"))
    stem = "sub-01_task-faces_run-{}_space-MNI152NLin6Asym_contrast-{}_stat-{}_statmap.nii.gz"
    kinds = ("effect", "t", "variance")
    assert there == sorted(stem.format(r, c, k) for r in "12" for c in ("A", "aGtB") for k in kinds)
    assert (runs / "maps" / "participants.tsv").read_text() == "participant_id\nsub-01\nsub-02\n"
    assert not (runs / "maps" / "studies.tsv").exists()


def test_values_are_percent_and_sidecars_say_why(feat: Any, runs: Path):
    cope, varcope = _maps(feat, 11)["A gt B"]
    inside, factor = varcope > 0, 100 * feat.HEIGHT / (2 * _mean(feat))
    folder = runs / "maps" / "sub-01" / "func"
    name = "sub-01_task-faces_run-1_space-MNI152NLin6Asym_contrast-aGtB_stat-{}_statmap.nii.gz"
    np.testing.assert_allclose(_load(folder / name.format("effect")), cope * factor, rtol=1e-5)
    np.testing.assert_allclose(_load(folder / name.format("variance")), varcope * factor**2, rtol=1e-5)
    t = _load(folder / name.format("t"))
    np.testing.assert_allclose(t[inside], (cope[inside] / np.sqrt(varcope[inside])), rtol=1e-5)
    sidecar = _sidecar(folder / name.format("effect"))
    assert sidecar["Units"] == "percent"
    assert sidecar["ContrastName"] == "A gt B"
    assert sidecar["ContrastWeights"] == {"A": 2.0, "B": -2.0}
    assert sidecar["RegressorHeight"] == feat.HEIGHT
    assert sidecar["ScalingFactor"] == pytest.approx(np.median(factor[inside]), rel=1e-6)
    assert sidecar["DegreesOfFreedom"] == 56
    assert "mean_func" in sidecar["UnitsSource"]
    assert sidecar["Sources"][0] == "../sub01_1.feat/reg_standard/stats/cope2.nii.gz"
    assert "SampleSize" not in sidecar
    assert _sidecar(folder / name.format("variance"))["Units"] == "(percent)^2"


def test_ibma_app_reads_it_as_it_is(cli: Callable[..., Any], runs: Path, tmp_path: Path):
    ran = cli(runs / "maps", tmp_path, "participant", "--no-report", "--nprocs", "1")
    assert ran.code == 0, ran.stderr
    ran = cli(runs / "maps", tmp_path, "group", "--no-report", "--nprocs", "1", "--contrast", "A", "--inference", "fdr")
    assert ran.code == 0, ran.stderr
    effects = list((tmp_path / "group").glob("*contrast-A*desc-reml_stat-effect_statmap.nii.gz"))
    assert len(effects) == 1
    assert (
        json.loads(effects[0].with_name(effects[0].name.replace(".nii.gz", ".json")).read_text())["Units"] == "percent"
    )


def test_the_validator_finds_no_error(runs: Path, tmp_path: Path):
    beside = Path(sysconfig.get_path("scripts")) / "bids-validator-deno"
    validator = str(beside) if beside.exists() else shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run(
        [validator, runs / "maps", "--json"], capture_output=True, text=True, check=False, timeout=300
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def _contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_again_replaces_and_another_stands_beside(feat: Any, ibma_import: Callable[..., Any], tmp_path: Path):
    folder, out = tmp_path / "a.feat", tmp_path / "out"
    feat.make_feat(folder, CONTRASTS, _maps(feat), mean=_mean(feat))
    words = ("--participant-label", "x", "--session-label", "1")
    assert ibma_import("fsl", folder, out, *words).code == 0
    first = _contents(out)
    assert ibma_import("fsl", folder, out, *words).code == 0
    assert _contents(out) == first
    for stem in ("stats/varcope1", "stats/tstat1"):  # the contrast now has its effect alone
        (folder / f"{stem}.nii.gz").unlink()
    assert ibma_import("fsl", folder, out, *words).code == 0
    gone = set(first) - set(_contents(out))
    assert {name.rpartition("contrast-")[2].partition("_statmap")[0] for name in gone} == {
        "A_stat-variance",
        "A_stat-t",
    }
    assert ibma_import("fsl", folder, out, "--participant-label", "x", "--session-label", "2").code == 0
    assert {path.name for path in (out / "sub-x").iterdir()} == {"ses-1", "ses-2"}
    assert (out / "participants.tsv").read_text() == "participant_id\nsub-x\n"


def test_the_users_columns_and_files_stay(feat: Any, ibma_import: Callable[..., Any], tmp_path: Path):
    folder, out = tmp_path / "a.feat", tmp_path / "out"
    feat.make_feat(folder, CONTRASTS, _maps(feat), mean=_mean(feat))
    assert ibma_import("fsl", folder, out, "--participant-label", "x").code == 0
    (out / "participants.tsv").write_text("participant_id\tage\nsub-x\t33\nsub-y\tn/a\n")
    (out / "README.md").write_text("mine")
    assert ibma_import("fsl", folder, out, "--participant-label", "z").code == 0
    assert (out / "participants.tsv").read_text() == "participant_id\tage\nsub-x\t33\nsub-y\tn/a\nsub-z\tn/a\n"
    assert (out / "README.md").read_text() == "mine"
    assert "age" in json.loads((out / "participants.json").read_text())


def test_dry_run_shows_and_writes_nothing(feat: Any, ibma_import: Callable[..., Any], tmp_path: Path):
    folder = feat.make_feat(tmp_path / "a.feat", CONTRASTS, _maps(feat), mean=_mean(feat))
    ran = ibma_import("fsl", folder, tmp_path / "out", "--dry-run")
    assert ran.code == 0
    assert not (tmp_path / "out").exists()
    factor = np.median((100 * feat.HEIGHT / _mean(feat))[1:-1, 1:-1, 1:-1])
    for text in ("A gt B", "effect variance t", "56", "percent", f"{factor:.6g}", "mean_func"):
        assert text in ran.stdout


def test_spm_studies_and_their_table(maker: Callable[[str], Any], ibma_import: Callable[..., Any], tmp_path: Path):
    make = maker("spm_folder")
    truth = make.make_first_level(tmp_path / "spm")
    out = tmp_path / "out"
    words = ("--study-label", "pain", "--sample-size", "20", "--contrast", "A > B=pain", "A alone")
    ran = ibma_import("spm", tmp_path / "spm", out, *words)
    assert ran.code == 0, ran.stderr
    assert "one subject's result" in ran.stderr
    assert "F contrast 4" in ran.stderr
    folder = out / "study-pain"
    names = sorted({path.name.partition("_stat-")[0] for path in folder.iterdir()})
    assert names == ["study-pain_space-MNI152_contrast-aAlone", "study-pain_space-MNI152_contrast-pain"]
    assert (out / "studies.tsv").read_text() == "study_id\tsample_size\nstudy-pain\t20\n"
    maps = {kind: _load(folder / f"{names[1]}_stat-{kind}_statmap.nii.gz") for kind in ("effect", "variance", "t")}
    inside = truth.mask
    recovered = maps["effect"][inside] / np.sqrt(maps["variance"][inside])
    np.testing.assert_allclose(recovered, truth.t["A > B"][inside], rtol=1e-5)
    assert all(np.all(values[~inside] == 0) for values in maps.values())
    sidecar = _sidecar(folder / f"{names[1]}_stat-variance_statmap.nii.gz")
    assert (sidecar["DegreesOfFreedom"], sidecar["SampleSize"]) == (37, 20)
    assert "ResMS" in sidecar["Derived"]


def test_variance_is_derived_without_resms(maker: Callable[[str], Any], ibma_import: Any, tmp_path: Path):
    make = maker("spm_folder")
    truth = make.make_first_level(tmp_path / "spm")
    (tmp_path / "spm" / "ResMS.nii").unlink()
    assert ibma_import("spm", tmp_path / "spm", tmp_path / "out", "--participant-label", "1").code == 0
    stem = tmp_path / "out" / "sub-1" / "func" / "sub-1_contrast-aGtB_stat-{}_statmap.nii.gz"
    effect, variance = (_load(Path(str(stem).format(kind))) for kind in ("effect", "variance"))
    inside = truth.mask
    np.testing.assert_allclose(effect[inside] / np.sqrt(variance[inside]), np.abs(truth.t["A > B"][inside]) *
                               np.sign(effect[inside]), rtol=1e-5)  # fmt: skip
    assert _sidecar(Path(str(stem).format("variance")))["Derived"] == "(effect / t)^2"


def test_variance_zero_inside_the_mask_is_background(feat: Any, ibma_import: Callable[..., Any], tmp_path: Path):
    maps = _maps(feat)
    maps["A"][1][4, 4, 4] = 0
    maps["A"][0][5, 5, 5] = np.nan
    folder = feat.make_feat(tmp_path / "a.feat", CONTRASTS, maps, mean=_mean(feat))
    assert ibma_import("fsl", folder, tmp_path / "out", "--participant-label", "1").code == 0
    for kind in ("effect", "variance", "t"):
        values = _load(tmp_path / "out" / "sub-1" / "func" / f"sub-1_contrast-A_stat-{kind}_statmap.nii.gz")
        assert values[4, 4, 4] == values[5, 5, 5] == 0
        assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("fsl", "FEAT", "OUT"), 64, "--participant-label"),
        (("fls", "FEAT", "OUT"), 64, "choose from: spm, fsl"),
        (("fsl", "FEAT"), 64, "OUTPUT_DIR"),
        (("fsl", "FEAT", "OUT", "--participant-label", "a b"), 64, "letters and digits"),
        (("fsl", "FEAT", "OUT", "--participant-label", "a", "--study-label", "b"), 64, "exclude"),
        (("fsl", "FEAT", "OUT", "--participant-label", "a", "--contrast", "C"), 18, "There are: 1 A; 2 A gt B"),
        (("fsl", "FEAT", "OUT", "--participant-label", "a", "--contrast", "A=b_c"), 64, "Perhaps bC?"),
        (("fsl", "FEAT", "OUT", "--participant-label", "a", "--contrast", "A=x", "A gt B=x"), 16, "Two contrasts"),
        (("fsl", "NOWHERE", "OUT", "--participant-label", "a"), 66, "does not exist"),
        (("spm", "FEAT", "OUT", "--participant-label", "a"), 66, "it looks like fsl"),
        (("fsl", "FEAT", "OUT", "--study-label", "a"), 65, "native"),
        (("fsl", "FEAT", "FOREIGN", "--participant-label", "a"), 73, "another dataset"),
        (("fsl", "FEAT", "NOWHERE", "OUT", "--participant-label", "a"), 1, "does not exist"),
    ],
)
def test_exit_codes(feat: Any, ibma_import: Any, tmp_path: Path, words: tuple[str, ...], code: int, text: str):
    feat.make_feat(tmp_path / "FEAT", CONTRASTS, _maps(feat), mean=_mean(feat))
    (tmp_path / "FOREIGN").mkdir()
    (tmp_path / "FOREIGN" / "dataset_description.json").write_text('{"Name": "other"}')
    paths = {"FEAT", "OUT", "NOWHERE", "FOREIGN"}
    ran = ibma_import(*(tmp_path / word if word in paths else word for word in words))
    assert ran.code == code, ran.stderr
    assert text in ran.stderr
    assert "Traceback" not in ran.stderr


def test_help_is_quick_and_names_every_option(ibma_import: Callable[..., Any]):
    ran = ibma_import("--help")
    assert ran.code == 0
    for flag in ("--participant-label", "--session-label", "--run", "--study-label", "--task-id", "--space",
                 "--sample-size", "--contrast", "--dry-run"):  # fmt: skip
        assert flag in ran.stdout


def test_earlier_maps_under_another_name_are_kept_and_told(feat: Any, ibma_import: Callable[..., Any], tmp_path: Path):
    folder = feat.make_feat(tmp_path / "a.feat", CONTRASTS, _maps(feat))
    words = ("fsl", folder, tmp_path / "out", "--participant-label", "01")
    assert "earlier import" not in ibma_import(*words, "--space", "MNI152NLin6Asym").stderr
    again = ibma_import(*words, "--space", "MNI152NLin2009cAsym")
    assert again.code == 0
    assert "are kept: sub-01_space-MNI152NLin6Asym_contrast-A." in again.stderr
    assert "Remove those that are not wanted" in again.stderr
    names = {path.name for path in (tmp_path / "out" / "sub-01" / "func").glob("*contrast-A_stat-effect*.nii.gz")}
    assert names == {f"sub-01_space-{s}_contrast-A_stat-effect_statmap.nii.gz"
                     for s in ("MNI152NLin6Asym", "MNI152NLin2009cAsym")}  # fmt: skip


def test_messages_name_the_program_and_each_path_once(ibma_import: Callable[..., Any], tmp_path: Path):
    ran = ibma_import("spm", tmp_path / "nowhere", tmp_path / "out", "--participant-label", "01")
    assert ran.stderr.startswith(f"ibma-import: error: {tmp_path / 'nowhere'} does not exist.")
    assert ran.stderr.count("nowhere") == 1


@pytest.mark.parametrize("space", ["MNI152NLin6Asym", "IXI549Space"])
def test_maps_outside_the_box_of_their_mni_space_are_told(
    feat: Any, ibma_import: Callable[..., Any], tmp_path: Path, space: str
):
    away = feat.AFFINE.copy()
    away[0, 3] = 900
    folder = feat.make_feat(tmp_path / "a.feat", CONTRASTS, _maps(feat), affine=away)
    ran = ibma_import("fsl", folder, tmp_path / "out", "--participant-label", "01", "--space", space, "--dry-run")
    assert "does not look like one in MNI space: its box reaches from" in ran.stderr


def test_a_contrast_that_cannot_be_read_stops_no_other(feat: Any, ibma_import: Callable[..., Any], tmp_path: Path):
    folder = feat.make_feat(tmp_path / "a.feat", CONTRASTS, _maps(feat), mean=_mean(feat))
    varcope, maps = folder / "stats" / "varcope1.nii.gz", tmp_path / "maps"
    varcope.write_bytes(varcope.read_bytes()[:-200])
    words = ("fsl", folder, maps, "--participant-label", "01")
    ran = ibma_import(*words)
    assert ran.code == 1
    assert "contrast-A failed" in ran.stderr
    assert "varcope1.nii.gz is truncated" in ran.stderr
    assert {path.name.split("_contrast-")[1].split("_")[0] for path in maps.rglob("*statmap*")} == {"aGtB"}
    ran = ibma_import(*words[:2], tmp_path / "one", *words[3:], "--contrast", "A")
    assert ran.code == 74
    assert not [path for path in (tmp_path / "one").rglob("*") if path.is_file()]


def test_maps_of_different_shapes_are_told(maker: Callable[[str], Any], ibma_import: Any, tmp_path: Path):
    spm = maker("spm_folder")
    spm.make_first_level(tmp_path / "spm")
    spm.save_image(tmp_path / "spm" / "spmT_0001.nii", np.ones((3, 3, 3)))
    ran = ibma_import("spm", tmp_path / "spm", tmp_path / "maps", "--participant-label", "01", "--contrast", "A > B")
    assert ran.code == 65
    assert "its t map has the shape (3, 3, 3)" in ran.stderr


def test_groups_of_one_contrast_among_others_are_told(feat: Any, ibma_import: Callable[..., Any], tmp_path: Path):
    zero = np.zeros(feat.SHAPE)
    contrasts = {"A-B": [1.0, -1.0], "A": [1.0, 0.0]}
    maps = dict.fromkeys(contrasts, (zero + 1, zero + 2))
    folder = feat.make_feat(tmp_path / "g.gfeat" / "cope1.feat", contrasts, maps, level=2, mixed_yn=2)
    rows = np.repeat(np.eye(2), [20, 40], axis=0)
    (folder / "design.mat").write_text(feat.vest({}, [1.0, 1.0], rows, "NumPoints"))
    ran = ibma_import("fsl", folder, tmp_path / "maps", "--study-label", "s", "--space", "MNI152NLin6Asym")
    assert ran.code == 0, ran.stderr
    assert "--units hedges-g takes for granted" in ran.stderr
    sizes = {json.loads(path.read_text()).get("SampleSize") for path in (tmp_path / "maps").rglob("*stat-t*.json")}
    assert sizes == {60, 20}
