"""The demonstration from BOLD: its series are as their truth says, its checks can fail, and the levels pass them."""

import json
import shlex
import shutil
import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.workflows.demo import bold_files, from_bold
from ibma_app.workflows.demo import simulate_bold as bold
from ibma_app.workflows.demo.recovery import check_runs
from ibma_app.workflows.demo.run_demo import command_of
from ibma_app.workflows.demo.simulate import make_brain

COARSE = 14.0  # mm
TIMES = bold.START + bold.TR * np.arange(bold.VOLUMES)


@pytest.fixture(scope="module")
def simulation():
    return bold.simulate_bold(make_brain(COARSE), 2, 20)


@pytest.fixture(scope="module")
def runs(simulation):
    return list(simulation.runs())


def test_same_seed_same_series(simulation, runs):
    again = next(bold.simulate_bold(simulation.truth.grid, 5, 20).runs())
    assert np.array_equal(again.series, runs[0].series)
    other = next(bold.simulate_bold(simulation.truth.grid, 2, 21).runs())
    assert not np.array_equal(other.series, runs[0].series)


def test_the_response_is_nilearns(runs):
    from nilearn.glm.first_level import compute_regressor

    onsets = runs[0].events["faces"]
    events = np.array([onsets, np.full(len(onsets), bold.DURATION), np.ones(len(onsets))])
    theirs = compute_regressor(events, "spm", TIMES)[0][:, 0]
    ours = bold.response(onsets, TIMES)
    assert np.corrcoef(theirs, ours)[0, 1] > 0.9995  # theirs is sampled every 0.04 s, and ends at 32 s
    alone = bold.response(np.array([0.0]), np.arange(0, 40, 0.01))
    assert np.ptp(alone) == pytest.approx(1.0)


def test_series_hold_the_effect(simulation, runs):
    """By least squares with the columns that were put in: the subject's effect."""
    truth = simulation.truth
    for run in runs:
        faces, houses = (bold.response(run.events[name], TIMES) for name in bold.CONDITIONS)
        names = [name for name in run.confounds if name in bold.MOTION or name.startswith("cosine")]
        matrix = np.column_stack([faces, houses, *(run.confounds[name] for name in names), np.ones(bold.VOLUMES)])
        percent = 100 * (run.series / run.series.mean(axis=1, keepdims=True, dtype=np.float64) - 1)
        weights, *_ = np.linalg.lstsq(matrix, percent.T, rcond=None)
        error = weights[0] - weights[1] - truth.units[run.subject]
        assert abs(error.mean()) < 0.05
        assert error.std() < 0.4  # noise of 0.6 % and 13 events of each kind


def test_noise_has_its_variance_and_autocorrelation(simulation):
    noise = bold._draw_noise(np.random.default_rng(3), simulation.truth.grid)
    assert noise.var() == pytest.approx(1.0, abs=0.03)
    assert (noise[:, 1:] * noise[:, :-1]).mean() == pytest.approx(bold.RHO, abs=0.02)
    assert (noise[:, 2:] * noise[:, :-2]).mean() == pytest.approx(bold.RHO**2, abs=0.02)


def test_checks_of_runs_can_fail(simulation, rng):
    truth = simulation.truth
    dof = np.full(truth.grid.n_voxels, 100.0)
    maps = {}
    for label, true in truth.units.items():
        noise = rng.standard_normal(len(true))
        maps[label] = {"effect": true + 0.1 * noise, "variance": 0.01 + 0 * true, "dof": dof, "rho": bold.RHO + 0 * dof}
    runs = [(label, one) for label, one in maps.items() for _ in range(30)]

    def verdicts(**changed):
        found = [(label, {**one, **{kind: one[kind] * by for kind, by in changed.items()}}) for label, one in runs]
        return [check.what for check in check_runs(truth, found, 60, bold.RHO) if not check.ok]

    assert verdicts() == []
    assert verdicts(variance=0.8)[-1:] == ["spread of error / standard error"]
    assert "effects in percent, slope on the truth" in verdicts(effect=1.1)
    assert verdicts(rho=0.8) == ["autocorrelation of the noise"]
    assert [c.what for c in check_runs(truth, runs[:-1], 60, bold.RHO) if not c.ok] == ["runs modelled"]


def test_files_are_laid_out_as_fmriprep_does(tmp_path, simulation, cli):
    one = replace(simulation, labels=simulation.labels[:1])
    bold_files.write_bold(tmp_path / "bold", one, lambda: None)
    folder = tmp_path / "bold" / bold_files.PREPROCESSED / "sub-01" / "func"
    image = nib.load(folder / "sub-01_task-faces_run-1_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz")
    assert image.shape == (*simulation.truth.grid.shape, bold.VOLUMES)
    assert image.get_data_dtype() == np.int16
    ran = cli(tmp_path / "bold", tmp_path / "out", "run", "--dry-run")
    assert ran.code == 0, ran.stderr
    assert ran.stdout.count("events.tsv") == 2
    beside = Path(sysconfig.get_path("scripts")) / "bids-validator-deno"
    validator = str(beside) if beside.exists() else shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    for root in (tmp_path / "bold", tmp_path / "bold" / bold_files.PREPROCESSED):
        done = subprocess.run([validator, root, "--json"], capture_output=True, text=True, check=False, timeout=120)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue["severity"] == "error"] == [], root


def test_commands_are_those_of_the_command_line(tmp_path):
    from ibma_app.workflows.options.parse import parse_demo, parse_options

    folders = from_bold.Folders(tmp_path)
    for options in from_bold.plan_levels(folders, nprocs=None):
        words = shlex.split(command_of(options))[1:]
        assert replace(parse_options(words), quiet=True) == options
    assert parse_demo([str(tmp_path), "--from-bold"]).from_bold
    assert not parse_demo([str(tmp_path)]).from_bold


@pytest.mark.slow
def test_whole_demonstration_recovers_the_truth(tmp_path, capsys):
    assert from_bold.run_bold_demo(tmp_path / "out", nprocs=1) == 0
    assert "All 17 checks hold." in capsys.readouterr().out
    results = tmp_path / "out" / "results" / "bold"
    assert (results / "report.html").is_file()
    assert len(list(results.glob("run_*.html"))) == 16
    # a level that errs is seen: standard errors of a subject's runs that are half of what they should be
    simulation = bold.simulate_bold(make_brain(6.0), 8, from_bold.SEED)
    for path in (results / "sub-01" / "func").glob("*_run-*_stat-variance_statmap.nii.gz"):
        image = nib.load(path)
        nib.Nifti1Image((image.get_fdata() / 4).astype(np.float32), image.affine, image.header).to_filename(path)
    checks = from_bold.compare(from_bold.Folders(tmp_path / "out"), simulation)
    wrong = [check.what for check in checks if not check.ok]
    assert wrong == ["run's effect in its 95 % interval", "spread of error / standard error"]
