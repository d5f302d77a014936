"""A second round of situations out of public bug reports, each named by its report, with the right outcome here."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import integrate, stats

MNI, SPACE = "MNI152NLin6Asym", "MNI152NLin2009cAsym"
QUICK = ("--no-report", "--nprocs", "1")
N = 48  # volumes


def volume(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, dtype=np.float64)


def one(out: Path, pattern: str) -> Path:
    (path,) = out.rglob(pattern)
    return path


@pytest.fixture(scope="module")
def made(maker):
    return maker("runs_by_code")


@pytest.fixture(scope="module")
def template(tmp_path_factory, made) -> Path:
    """One subject with two runs; 3 % of the first condition."""
    rows = [line.split("\t") for line in made.events_text(6).splitlines()]
    text = "\n".join("\t".join((row[0], "1" if at else row[1], row[2])) for at, row in enumerate(rows))
    return made.make_study(tmp_path_factory.mktemp("study"), n_volumes=N, text=text, effect=3.0)


@pytest.fixture
def study(template, tmp_path) -> Path:
    shutil.copytree(template, tmp_path / "raw")
    return tmp_path / "raw"


def events_of(study: Path, run: str = "1") -> Path:
    return study / f"sub-01/func/sub-01_task-x_run-{run}_events.tsv"


def run(cli, study: Path, *words: str, code: int = 0):
    ran = cli(study, study.parent / "out", "run", "--confounds", "none", *words, *QUICK)
    assert ran.code == code, ran.stderr
    return ran


def effects(study: Path, contrast: str) -> dict[str, np.ndarray]:
    found = sorted((study.parent / "out/sub-01/func").glob(f"*_run-*_contrast-{contrast}_stat-effect_statmap.nii.gz"))
    return {re.search(r"_run-(\w+?)_", path.name)[1]: volume(path) for path in found}


def design(study: Path, column: str, run: str = "1") -> np.ndarray:
    header, *rows = one(study.parent / "out", f"*run-{run}*_design.tsv").read_text().splitlines()
    place = header.split("\t").index(column)
    return np.array([float(row.split("\t")[place]) for row in rows])


def log_tail(t: float, dof: int) -> float:
    """Integrate the density of t in units of its value at ``t``: scipy's own tail is 0 there."""
    log_density = stats.t.logpdf(t, dof)
    values = integrate.quad(lambda u: np.exp(stats.t.logpdf(t * np.exp(u), dof) - log_density + u) * t, 0, 5,
                            points=[0.001, 0.01, 0.1, 1], limit=500, epsabs=0, epsrel=1e-10)  # fmt: skip
    return float(log_density + np.log(values[0]))


@pytest.mark.parametrize(("t", "n"), [(85.0, 1385), pytest.param(-60.0, 1385, marks=pytest.mark.slow), (300.0, 40)])
def test_a_very_large_t_of_a_large_sample(t, n, tmp_path, cli, describe_dataset, write_statmap, rng):
    """neurostuff/NiMARE#498: t of 85 with n = 1385 became NaN on the way to z, and the meta-analysis had holes."""
    root, all_t = describe_dataset(tmp_path / "in"), rng.normal(2, 1, (3, 4, 4, 3))
    all_t[0, 1, 1, 1] = t
    for row, size in enumerate((n, 30, 25)):
        names = {"study": f"s{row}", "space": MNI, "contrast": "a"}
        write_statmap(root, "t", all_t[row], metadata={"SampleSize": size}, **names)
    ran = cli(root, tmp_path / "out", "group", "--estimator", "stouffer", "--inference", "fdr", *QUICK)
    assert ran.code == 0, ran.stderr
    found = volume(one(tmp_path / "out", "*_desc-stouffer_stat-z_*.gz"))
    others = sum(stats.norm.isf(stats.t.sf(all_t[row], size - 1)) for row, size in ((1, 30), (2, 25)))
    first = found * np.sqrt(3) - others
    assert np.isfinite(found).all()
    assert np.sign(first[1, 1, 1]) == np.sign(t)
    assert stats.norm.logsf(abs(first[1, 1, 1])) == pytest.approx(log_tail(abs(t), n - 1), rel=1e-5)
    near = np.abs(all_t[0]) < 8
    assert near.sum() == near.size - 1
    np.testing.assert_allclose(first[near], stats.norm.isf(stats.t.sf(all_t[0], n - 1))[near], rtol=1e-5, atol=1e-5)


def test_resampling_makes_no_values_that_no_map_has(tmp_path, cli, describe_dataset, write_statmap, rng):
    """neurostuff/NiMARE#438: maps that were resampled by splines overshot, which looked weird, and was unlikely."""
    root = describe_dataset(tmp_path / "in")
    values = np.where(rng.random((5, 12, 12, 12)) < 0.2, 5.0, 0.5)  # steps
    for row in range(5):
        names = {"study": f"s{row}", "space": MNI, "contrast": "a"}
        affine = np.diag([3.0, 3, 3, 1])
        affine[:3, 3] = (-16 + row % 2, -18, -12)  # half of them lie 1 mm aside
        write_statmap(root, "effect", values[row], affine=affine, metadata={"Units": "percent"}, **names)
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-12, -14, -8)
    nib.Nifti1Image(np.ones((10, 10, 10), np.float32), affine).to_filename(tmp_path / "grid.nii")
    words = ("group", "--estimator", "ols", "--inference", "fdr", "--mask", "data", "--grid", tmp_path / "grid.nii")
    ran = cli(root, tmp_path / "out", *words, *QUICK)
    assert ran.code == 0, ran.stderr
    found = volume(one(tmp_path / "out", "*_desc-ols_stat-effect_*.gz"))
    assert found.max() <= 5
    assert found[found != 0].min() >= 0.5
    assert np.ptp(found) > 0.5


@pytest.mark.parametrize("kinds", [("p", "t"), ("p", "effect"), ("p", "z")])
def test_p_beside_a_map_with_a_sign_has_that_sign(kinds, tmp_path, cli, describe_dataset, write_statmap, rng):
    """neurostuff/NiMARE#1108: a p map beside a t map became a z without sign."""
    root, t = describe_dataset(tmp_path / "in"), rng.normal(0, 2, (4, 4, 4, 3))
    z = np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), 19))
    maps = {"t": t, "z": z, "effect": t / 3, "p": 2 * stats.t.sf(np.abs(t), 19)}
    for row in range(4):
        names = {"study": f"s{row}", "space": MNI, "contrast": "a"}
        for kind in kinds:
            told = {"SampleSize": 20, **({"Tail": "two-sided"} if kind == "p" else {})}
            write_statmap(root, kind, maps[kind][row], metadata=told, **names)
    ran = cli(root, tmp_path / "out", "group", "--estimator", "stouffer", "--inference", "fdr", *QUICK)
    assert ran.code == 0, ran.stderr
    found = volume(one(tmp_path / "out", "*_desc-stouffer_stat-z_*.gz"))
    np.testing.assert_allclose(found, z.sum(axis=0) / 2, rtol=1e-4, atol=1e-5)


def test_one_event_twice_is_told_and_counts_twice(study, cli):
    """nilearn/nilearn#2668: of two events alike one was ignored, of two that differed by 1 ms both counted."""
    lines = events_of(study).read_text().splitlines()
    plain = run(cli, study)
    assert "twice" not in plain.stderr
    before = design(study, "go")
    events_of(study).write_text("\n".join([lines[0], lines[1], *lines[1:]]) + "\n")
    shutil.rmtree(study.parent / "out")
    ran = run(cli, study)
    assert re.search(r"1 event\(s\) of go .* twice", ran.stderr), ran.stderr
    after = design(study, "go")
    assert (after - before).max() > 0.2 * before.max()
    moved = lines[1].split("\t")
    moved[0] = f"{float(moved[0]) + 0.001:.3f}"
    events_of(study).write_text("\n".join([lines[0], "\t".join(moved), *lines[1:]]) + "\n")
    shutil.rmtree(study.parent / "out")
    run(cli, study)
    np.testing.assert_allclose(design(study, "go"), after, atol=1e-3 * after.max())


@pytest.mark.parametrize("place", ["task-x_events.tsv", "sub-01/sub-01_task-x_events.tsv"])
def test_events_that_all_runs_share(place, study, cli):
    """nilearn/nilearn#6290: one events file at the root of the dataset, for all subjects and runs, was not found."""
    run(cli, study)
    before = effects(study, "go")
    text = events_of(study).read_text()
    assert text == events_of(study, "2").read_text()
    for path in list(study.rglob("sub-01/func/*_events.tsv")):
        path.unlink()
    (study / place).write_text(text)
    shutil.rmtree(study.parent / "out")
    run(cli, study)
    after = effects(study, "go")
    assert list(after) == ["1", "2"]
    for name, values in after.items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("how", ["no such event", pytest.param("no response at all", marks=pytest.mark.slow)])
def test_a_condition_that_a_run_does_not_have(how, study, cli):
    """nilearn/nilearn#2394, #4073, cpp-lln-lab/bidspm#375: the first run's design stood for all; a contrast failed."""
    run(cli, study, "--contrasts", "d=go-stop", "go=go")
    before = effects(study, "d"), effects(study, "go")
    text = events_of(study, "2").read_text()
    kept = [line for line in text.splitlines() if not line.endswith("stop")]
    if how == "no response at all":
        kept.append("n/a\tn/a\tstop")
    events_of(study, "2").write_text("\n".join(kept) + "\n")
    shutil.rmtree(study.parent / "out")
    ran = run(cli, study, "--contrasts", "d=go-stop", "go=go")
    assert "contrast d is missing: the run has no events of stop" in ran.stderr
    np.testing.assert_array_equal(effects(study, "d")["1"], before[0]["1"])
    assert list(effects(study, "d")) == ["1"]
    assert list(effects(study, "go")) == ["1", "2"]
    inside = effects(study, "go")["2"] != 0
    assert effects(study, "go")["2"][inside].mean() == pytest.approx(3, abs=0.5)
    ran = cli(study, study.parent / "out", "participant", *QUICK)
    assert ran.code == 0, ran.stderr
    combined = one(study.parent / "out", f"sub-01_task-x_space-{SPACE}_contrast-d_stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(volume(combined), before[0]["1"], rtol=1e-5)


def test_events_without_duration(study, cli):
    """nilearn/nilearn#3884: events of duration 0 had no height; they are impulses, of which heights are known too."""
    rows = [line.split("\t") for line in events_of(study).read_text().splitlines()]
    for duration, run_of in (("0", "1"), ("0.01", "2")):
        text = "\n".join("\t".join([row[0], duration, row[2]]) for row in rows[1:])
        events_of(study, run_of).write_text("onset\tduration\ttrial_type\n" + text + "\n")
    run(cli, study)
    none, short = design(study, "go"), design(study, "go", "2")
    np.testing.assert_allclose(none / none.max(), short / short.max(), atol=0.02)
    assert (effects(study, "go")["1"] != 0).any()


def test_two_tasks_in_one_session(study, made, cli):
    """nilearn/nistats#285: eight runs of a task and one of another: '9 events.tsv files for 8 bold files'."""
    alone = run(cli, study, "-t", "x")
    before = effects(study, "go")
    made.write_run(study, study / "derivatives/fmriprep", task="rest", run=None, n_volumes=N, text=made.events_text(5))
    shutil.rmtree(study.parent / "out")
    ran = run(cli, study, "-t", "x")
    assert ran.stderr == alone.stderr
    after = effects(study, "go")
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    run(cli, study)
    assert list(study.parent.glob("out/sub-01/func/*task-rest_run-1*contrast-go_stat-z*"))


@pytest.mark.parametrize("column", ["none", "numbers and words", "numbers"])
def test_trial_types_that_are_missing_or_mixed(column, study, cli):
    """poldracklab/fitlins#330 and #257: KeyError trial_type; #431: '<' not supported between str and float."""
    rows = [line.split("\t") for line in events_of(study).read_text().splitlines()][1:]
    names = {"none": None, "numbers and words": ["1", "go", "n/a"], "numbers": ["1", "2", "10"]}[column]
    header = "onset\tduration" + ("" if names is None else "\ttrial_type")
    for run_of in "12":
        cells = ["\t".join([*row[:2], *([] if names is None else [names[at % 3]])]) for at, row in enumerate(rows)]
        events_of(study, run_of).write_text("\n".join([header, *cells]) + "\n")
    ran = run(cli, study)
    found = {path.name.partition("contrast-")[2].partition("_")[0] for path in study.parent.glob("out/**/*stat-z_*.gz")}
    expected = {"none": {"event"}, "numbers and words": {"1", "go"}, "numbers": {"1", "2", "10"}}[column]
    assert found == expected
    assert ("all events are one condition" in ran.stderr) == (column == "none")
    assert ("(n/a) are no events" in ran.stderr) == (column == "numbers and words")


def test_names_that_end_in_a_number(study, cli):
    """cpp-lln-lab/bidspm#973: contrasts and conditions called name_1 were taken for those of run 1, and left out."""
    for run_of in "12":
        text = events_of(study, run_of).read_text().replace("go", "cond_1").replace("stop", "cond_2")
        events_of(study, run_of).write_text(text)
    run(cli, study, "--contrasts", "cond_1_gt_cond_2=cond_1-cond_2", "cond_1=cond_1", "cond_12=(cond_1+cond_2)/2")
    names = ("cond1GtCond2", "cond1", "cond12")
    ran = cli(study, study.parent / "out", "participant", *QUICK)
    assert ran.code == 0, ran.stderr
    for name in names:
        found = one(study.parent / "out", f"sub-01_task-x_space-{SPACE}_contrast-{name}_stat-effect_statmap.nii.gz")
        values = volume(found)
        expected = {"cond1GtCond2": 3.0, "cond1": 3.0, "cond12": 1.5}[name]
        assert values[values != 0].mean() == pytest.approx(expected, abs=0.5)


def test_the_more_specific_sidecar_of_a_folder_counts(tmp_path, cli, describe_dataset, write_statmap, rng):
    """bids-standard/pybids#1044, #530: of two sidecars of one folder that apply, the general one overrode the other."""
    root = describe_dataset(tmp_path / "in")
    effect, variance = rng.normal(1, 1, (3, 4, 4, 3)), rng.uniform(0.2, 0.9, (3, 4, 4, 3))
    for row, told in enumerate((20, 8, 20)):
        names = {"sub": "01", "task": "x", "run": str(row + 1), "space": "T1w", "contrast": "a"}
        path = write_statmap(root, "effect", effect[row], **names)
        write_statmap(root, "variance", variance[row], **names)
        if told == 8:
            special = path.name.partition("_space")[0] + "_statmap.json"
            (path.parent / special).write_text(json.dumps({"DegreesOfFreedom": told}))
    for name in ("sub-01_statmap.json", "sub-01_task-x_statmap.json"):
        dof = 20 if "task" in name else 99
        (root / "sub-01" / "func" / name).write_text(json.dumps({"DegreesOfFreedom": dof}))
    (root / "statmap.json").write_text(json.dumps({"DegreesOfFreedom": 98}))
    ran = cli(root, tmp_path / "out", "participant", *QUICK)
    assert ran.code == 0, ran.stderr
    # Satterthwaite's dof of Meier's variance shows which dof each run has: of equal numbers it would be another
    inputs = json.loads(one(tmp_path / "out", "sub-01*_stat-t_statmap.json").read_text())
    again = describe_dataset(tmp_path / "again")
    for row, told in enumerate((20, 8, 20)):
        names = {"sub": "01", "task": "x", "run": str(row + 1), "space": "T1w", "contrast": "a"}
        write_statmap(again, "effect", effect[row], metadata={"DegreesOfFreedom": told}, **names)
        write_statmap(again, "variance", variance[row], **names)
    assert cli(again, tmp_path / "out2", "participant", *QUICK).code == 0
    for kind in ("z", "variance", "dof"):
        np.testing.assert_array_equal(
            volume(one(tmp_path / "out", f"sub-01*_stat-{kind}_*.gz")),
            volume(one(tmp_path / "out2", f"sub-01*_stat-{kind}_*.gz")),
        )
    assert inputs["DegreesOfFreedom"] == "voxelwise"


@pytest.mark.parametrize(("slope", "inter"), [(0.0, 0.0), (np.nan, np.nan), (0.0, 7.0)])
def test_slopes_that_say_nothing(slope, inter, tmp_path, cli, describe_dataset, write_statmap, rng):
    """nipreps/fmriprep#2507, nipy/nibabel#45: scl_slope of 0 or NaN means: values as they are stored."""
    root, values = describe_dataset(tmp_path / "in"), rng.normal(1, 1, (5, 4, 4, 3)).astype(np.float32)
    paths = [
        write_statmap(root, "effect", values[row], sub=f"0{row + 1}", space="T1w", contrast="a", extension=".nii")
        for row in range(5)
    ]
    mask = np.zeros((4, 4, 3), np.uint8)
    mask[1:] = 1
    nib.Nifti1Image(mask, nib.load(paths[0]).affine).to_filename(tmp_path / "mask.nii")
    for path in (*paths, tmp_path / "mask.nii"):
        raw = bytearray(path.read_bytes())
        raw[112:120] = np.array([slope, inter], dtype="<f4").tobytes()
        path.write_bytes(raw)
    words = ("group", "--estimator", "ols", "--inference", "fdr", "--mask", tmp_path / "mask.nii")
    ran = cli(root, tmp_path / "out", *words, *QUICK)
    assert ran.code == 0, ran.stderr
    found = volume(one(tmp_path / "out", "*_stat-effect_*.gz"))
    np.testing.assert_allclose(found, np.where(mask, values.mean(axis=0), 0), atol=1e-6)


def test_runs_are_combined_within_their_session(tmp_path, cli, describe_dataset, write_statmap, rng):
    """cpp-lln-lab/bidspm#1007: two visits with two runs each became one; wanted is a map of each visit."""
    root = describe_dataset(tmp_path / "in")
    effect, variance = rng.normal(1, 1, (2, 2, 4, 4, 3)), rng.uniform(0.2, 0.9, (2, 2, 4, 4, 3))
    for visit, label in enumerate(("V0", "V9")):
        for number in range(2):
            names = {"sub": "01", "ses": label, "task": "x", "run": str(number + 1), "space": "T1w", "contrast": "a"}
            write_statmap(root, "effect", effect[visit, number], metadata={"DegreesOfFreedom": 500}, **names)
            write_statmap(root, "variance", variance[visit, number], **names)
    ran = cli(root, tmp_path / "out", "participant", *QUICK)
    assert ran.code == 0, ran.stderr
    for visit, label in enumerate(("V0", "V9")):
        weights = 1 / variance[visit]
        expected = (weights * effect[visit]).sum(axis=0) / weights.sum(axis=0)
        found = volume(one(tmp_path / "out" / "sub-01" / f"ses-{label}", "*_stat-effect_*.gz"))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
