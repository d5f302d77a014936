"""A run that is killed while it resamples goes on from there, and ends as if nothing had been."""

import signal
import subprocess
import time

import numpy as np
import pytest

from ibma_app.stream.resampling import checkpoints

# saves far more often than in real life, and says so little else that a log line is found
PROGRAM = """
import sys
from ibma_app.stream.resampling import checkpoints as checkpoint
checkpoint.EVERY = 0.2
from ibma_app.cli import main
sys.exit(main(sys.argv[1:]))
"""
SETTINGS = ("--estimator", "reml", "--inference", "max-stat", "tfce", "--permutations", "3000", "--no-report")


@pytest.fixture(scope="module")
def study(tmp_path_factory, describe_dataset, write_statmap):
    """Twelve subjects with variances."""
    root = describe_dataset(tmp_path_factory.mktemp("study") / "data")
    rng = np.random.default_rng(2)
    for number in range(1, 13):
        names = {"sub": f"{number:02d}", "task": "x", "space": "MNI152NLin6Asym", "contrast": "ab"}
        write_statmap(root, "effect", rng.normal(0.3, 1, (16, 20, 16)), **names)
        write_statmap(root, "variance", rng.uniform(0.5, 2, (16, 20, 16)), **names)
    return root


@pytest.fixture(scope="module")
def whole(contents, study, tmp_path_factory, cli):
    """What a run gives that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "out"
    ran = cli(study, out, "group", *SETTINGS, "--nprocs", "2")
    assert ran.code == 0, ran.stderr
    assert not (out / ".ibma-resampling").exists()
    return contents(out)


@pytest.mark.parametrize(
    ("how", "code"), [pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow), (signal.SIGTERM, 130)]
)
def test_a_killed_run_goes_on(contents, study, whole, tmp_path, run_python, start_python, how, code):
    out, work = tmp_path / "out", tmp_path / "work"
    command = (study, out, "group", *SETTINGS, "--nprocs", "2", "-w", work)
    child = start_python("-c", PROGRAM, *command, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(out.glob(".ibma-resampling/*.npy")) and time.monotonic() < end:
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    child.send_signal(how)
    assert child.wait() == code
    assert list(out.glob(".ibma-resampling/*.npy"))
    if how == signal.SIGTERM:  # as a scheduler ends a job whose time is up
        assert not list(out.glob(".ibma-tmp-*"))
        assert not list(work.iterdir())
    ran = run_python("-c", PROGRAM, *command)
    assert ran.code == 0, ran.stderr
    assert "Test intercept goes on from resample" in ran.stderr
    assert contents(out) == whole
    assert not [path for path in out.iterdir() if path.name.startswith(".ibma")], "nothing temporary stays"


def test_a_folder_in_the_way_is_a_warning(contents, study, whole, tmp_path, cli, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY", 0.2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".ibma-resampling").write_text("a file where the folder would be")
    ran = cli(study, tmp_path / "out", "group", *SETTINGS, "--nprocs", "2")
    assert ran.code == 0, ran.stderr
    assert "warning: If this run ends early" in ran.stderr
    found = contents(tmp_path / "out")
    del found[".ibma-resampling"]
    assert found == whole
