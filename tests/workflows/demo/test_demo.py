"""The demonstration: its data are as its truth says, its checks can fail, and the levels pass them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ibma_app.core.errors import OutputError
from ibma_app.dataset.output_dir import open_output
from ibma_app.dataset.write import save_statmap
from ibma_app.images.read import read_image
from ibma_app.workflows.demo import files as demo_files
from ibma_app.workflows.demo import run_demo as demo
from ibma_app.workflows.demo import simulate as demo_data
from ibma_app.workflows.demo.recovery import Check, check_participants
from ibma_app.workflows.demo.steps import prepare_folder

SEED = demo.SEED


@pytest.fixture(scope="module")
def brain():
    return demo_data.make_brain(8.0)


@pytest.fixture(scope="module")
def subjects(brain):
    return demo_data.simulate_subjects(brain, 12, SEED)


@pytest.fixture(scope="module")
def studies(brain):
    return demo_data.simulate_studies(brain, SEED)


def _stack(simulation, kind):
    return np.array([one.values for one in simulation.maps if one.kind == kind])


def _tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_brain_has_the_size_of_a_brain_at_any_resolution():
    # the MNI152 brain mask has 1.88 litres
    for voxel_mm in (4.0, 8.0):
        grid = demo_data.make_brain(voxel_mm)
        assert grid.n_voxels * voxel_mm**3 == pytest.approx(1.88e6, rel=0.05)
        assert grid.voxel_volume == pytest.approx(voxel_mm**3)


def test_brain_is_symmetric_and_clear_of_the_box(brain):
    assert np.array_equal(brain.mask, brain.mask[::-1])
    assert not brain.mask[0].any()
    assert not brain.mask[:, 0].any()
    assert not brain.mask[:, :, -1].any()


def test_same_seed_same_maps_and_another_seed_others(brain, studies):
    again, other = demo_data.simulate_studies(brain, SEED), demo_data.simulate_studies(brain, SEED + 1)
    assert all(np.array_equal(a.values, b.values) for a, b in zip(studies.maps, again.maps, strict=True))
    assert not np.array_equal(studies.maps[0].values, other.maps[0].values)


def test_sampling_errors_have_the_variance_that_is_told(subjects):
    errors = []
    for one, told in zip(subjects.maps[::2], subjects.maps[1::2], strict=True):
        covered = one.values != 0
        error = one.values - subjects.truth.units[one.entities["sub"]]
        errors.append((error[covered] ** 2 / told.values[covered]).mean())
    # E[1 / variance as told] = dof / (dof - 2) / variance: 1.014; the mean of 24 runs, each over some
    # hundreds of independent places, is within 0.02 of it (3 standard errors)
    assert np.mean(errors) == pytest.approx(1.014, abs=0.02)


def test_subjects_differ_by_tau2_around_effect_and_age(subjects):
    truth, ages = subjects.truth, np.array(subjects.table["age"], dtype=float)
    expected = truth.effect + np.outer(ages - ages.mean(), truth.slope)
    spread = ((np.array(list(truth.units.values())) - expected) ** 2 / truth.tau2).mean()
    assert spread == pytest.approx(1.0, abs=0.05)  # 12 subjects x some hundreds of places
    # the front varies more than the back
    assert truth.tau2.max() > 2 * truth.tau2.min() > 0


def test_one_run_covers_a_part_only(subjects):
    covered = _stack(subjects, "effect") != 0
    partial = [int(row) for row in np.flatnonzero(~covered.all(axis=1))]
    assert [subjects.maps[2 * row].entities["sub"] for row in partial] == ["03"]
    assert [subjects.maps[2 * row].entities["run"] for row in partial] == ["2"]
    assert 0.5 < covered[partial[0]].mean() < 0.95


def test_studies_cover_what_the_truth_counts(studies):
    covered = _stack(studies, "effect") != 0
    assert np.array_equal(covered.sum(axis=0), studies.truth.n)
    assert len(set(studies.table["sample_size"])) == 8
    assert studies.truth.n.min() < 6 < studies.truth.n.max() == 8
    kinds = [{m.kind for m in studies.maps if m.entities["study"] == label} for label in studies.truth.units]
    assert sorted(map(sorted, kinds)) == [["effect", "t"], *[["effect", "variance"]] * 7]


def test_studies_disagree_in_one_region_only(studies):
    deviations = np.array(list(studies.truth.units.values())) - studies.truth.effect
    apart = studies.truth.tau2 > 0
    assert np.all(deviations[:, ~apart] == 0)
    assert deviations[:, apart].std() == pytest.approx(demo_data.DISAGREEMENT.peak, rel=0.1)
    assert not np.any(apart & (studies.truth.effect != 0))


def test_error_of_a_mean_is_that_of_simulated_noise(brain, subjects):
    core = subjects.truth.core(subjects.truth.slope)
    rng = np.random.default_rng(1)
    means = [demo_data.smooth_noise(rng, brain)[core].mean() for _ in range(400)]
    expected = subjects.truth.error_of_mean(np.ones(brain.n_voxels), core)
    assert np.std(means) == pytest.approx(expected, rel=0.12)  # 3 standard errors: 3 / sqrt(2 * 400)


def _combine(subjects):
    """Combine each subject's runs by the closed form."""
    effect, variance = _stack(subjects, "effect"), _stack(subjects, "variance")
    covered = effect != 0
    weights = np.where(covered, 1.0 / np.where(covered, variance, 1.0), 0.0)
    dof = covered * np.tile(demo_data.RUN_DOF, len(effect) // 2)[:, None]
    found = {}
    for number, label in enumerate(subjects.truth.units):
        rows = slice(2 * number, 2 * number + 2)
        total = weights[rows].sum(axis=0)
        mean = (weights[rows] * effect[rows]).sum(axis=0) / total
        found[label] = {"effect": mean, "variance": 1.0 / total, "dof": dof[rows].sum(axis=0).astype(float)}
    return found


def _verdicts(checks) -> dict[str, bool]:
    return {check.what: check.ok for check in checks}


def test_checks_hold_for_the_closed_form(subjects):
    assert all(_verdicts(check_participants(subjects.truth, _combine(subjects))).values())


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("effect", -1.0), ("effect", 0.9), ("variance", 0.8), ("variance", 1.25), ("dof", 0.01)],
)
def test_checks_fail_for_a_wrong_combination(subjects, kind, factor):
    found = {label: {**maps, kind: factor * maps[kind]} for label, maps in _combine(subjects).items()}
    assert not all(_verdicts(check_participants(subjects.truth, found)).values())


def test_a_missing_subject_is_seen(subjects):
    found = _combine(subjects)
    found.pop("03")
    assert not _verdicts(check_participants(subjects.truth, found))["subjects combined"]


def test_written_dataset_holds_the_maps_and_their_sidecars(tmp_path, subjects):
    seen = []
    demo_files.write_subjects(tmp_path, subjects, lambda: seen.append(1))
    assert len(seen) == len(subjects.maps) == 48
    name = "sub-03_task-faces_run-2_space-MNI152NLin2009cAsym_contrast-facesGtHouses_stat-effect_statmap"
    image = read_image(tmp_path / "sub-03" / "func" / f"{name}.nii.gz")
    one = next(m for m in subjects.maps if m.entities["sub"] == "03" and m.entities["run"] == "2")
    assert np.array_equal(image.data[subjects.truth.grid.mask], one.values.astype(np.float32))
    sidecar = json.loads((tmp_path / "sub-03" / "func" / f"{name}.json").read_text())
    assert sidecar == {"DegreesOfFreedom": demo_data.RUN_DOF[1], "Units": "percent"}
    assert json.loads((tmp_path / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    header, first, *rest = (tmp_path / "participants.tsv").read_text().splitlines()
    assert (header, first.split("\t")[0], len(rest)) == ("participant_id\tage\tgroup", "sub-01", 11)


def test_studies_table_tells_their_size(tmp_path, studies):
    demo_files.write_studies(tmp_path, studies, lambda: None)
    header, first, *rest = (tmp_path / "studies.tsv").read_text().splitlines()
    assert (header, len(rest)) == ("study_id\tsample_size\tmean_age", 7)
    assert first.split("\t")[:2] == ["study-01", "12"]
    sidecars = [json.loads(path.read_text()) for path in sorted(tmp_path.rglob("*stat-effect_statmap.json"))]
    assert [sidecar["SampleSize"] for sidecar in sidecars] == list(demo_data.STUDY_SIZES)
    assert {sidecar["Units"] for sidecar in sidecars} == {"percent"}


def test_refuses_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    before = _tree(tmp_path)
    with pytest.raises(OutputError, match="nothing in it is touched"):
        demo.run_demo(tmp_path)
    assert _tree(tmp_path) == before


def test_refuses_a_file(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        demo.run_demo(tmp_path / "out")


def test_commands_are_those_of_the_command_line(tmp_path):
    from ibma_app.workflows.options.parse import parse_options

    for options in demo._plan_levels(demo.Folders(tmp_path), nprocs=None):
        words = demo.shlex.split(demo.command_of(options))[1:]
        assert replace(parse_options(words), quiet=True) == options


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run the whole demonstration, coarse: (folder, exit code)."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, demo.run_demo(folder, nprocs=2, voxel_mm=8.0, n_subjects=12)


@pytest.mark.slow
def test_whole_demonstration_recovers_the_truth(finished, subjects, studies):
    folder, code = finished
    wrong = [check for check in demo.compare(demo.Folders(folder), subjects, studies) if not check.ok]
    assert (code, wrong) == (0, [])
    for name in ("subjects", "studies"):
        assert (folder / "results" / name / "report.html").is_file()


@pytest.mark.slow
def test_wrong_results_are_seen(finished, subjects, studies):
    folder, _ = finished
    where = "results/studies/group"
    name = "space-MNI152NLin2009cAsym_contrast-painGtWarm_desc-reml_stat-variance_statmap.nii.gz"
    path = Path(where) / name
    original = (folder / path).read_bytes()
    grid = subjects.truth.grid
    variance = read_image(folder / path).data[grid.mask]
    with open_output(folder) as output:
        save_statmap(output, path, variance / 2, grid)
    try:
        checks: list[Check] = demo.compare(demo.Folders(folder), subjects, studies)
    finally:
        (folder / path).write_bytes(original)
    assert [check.what for check in checks if not check.ok] == ["effect in its 95 % interval"]


@pytest.mark.slow
def test_an_earlier_demonstration_is_replaced_and_nothing_else(finished):
    folder, _ = finished
    (folder / "notes.txt").write_text("mine")
    stale = folder / "results" / "stale.txt"
    stale.write_text("from before")
    prepare_folder(folder, SEED)
    assert not stale.exists()
    assert (folder / "notes.txt").read_text() == "mine"
