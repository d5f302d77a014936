"""A full disk, an input that goes, ctrl-C: told in words, nothing half written, and the same command then completes."""

import os
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SUBJECTS = 32
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # the system's answer is that of a full disk
from ibma_app.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, describe_dataset, write_statmap):
    """Two runs of each subject."""
    root = describe_dataset(tmp_path_factory.mktemp("runs") / "data")
    rng = np.random.default_rng(2)
    for subject in range(1, SUBJECTS + 1):
        for run in ("1", "2"):
            names = {"sub": f"{subject:02d}", "run": run, "task": "x", "space": "MNI152NLin6Asym", "contrast": "ab"}
            write_statmap(root, "effect", rng.normal(0, 1, (24, 24, 24)), metadata={"DegreesOfFreedom": 90}, **names)
            write_statmap(root, "variance", rng.uniform(0.5, 2, (24, 24, 24)), **names)
    return root


@pytest.fixture(scope="module")
def whole(contents, runs, tmp_path_factory, cli):
    """What a participant run gives that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "out"
    ran = cli(runs, out, "participant", "--no-report", "--nprocs", "2")
    assert ran.code == 0, ran.stderr
    return contents(out)


def nothing_is_half_written(out: Path, whole: dict[str, bytes]) -> None:
    assert not list(out.glob(".ibma*"))
    for path in out.rglob("*.nii.gz"):
        nib.load(path).get_fdata()  # whole, or it raises
        assert path.read_bytes() == whole[str(path.relative_to(out))]


def wait_for(out, child, count):
    """Wait until some participants are there."""
    end = time.monotonic() + 120
    while len(list(out.glob("sub-*/func/*_stat-n_statmap.nii.gz"))) < count and time.monotonic() < end:
        assert child.poll() is None, "it ended before it could be disturbed"
        time.sleep(0.005)


def test_ctrl_c(contents, runs, whole, tmp_path, cli, start_python):
    out, work = tmp_path / "out", tmp_path / "work"
    words = (runs, out, "participant", "--no-report", "--nprocs", "2", "-w", work)
    child = start_python("-m", "ibma_app", *words)
    wait_for(out, child, 2)
    os.killpg(child.pid, signal.SIGINT)  # as the terminal does it: to the workers too
    _, told = child.communicate(timeout=60)
    assert child.returncode == 130
    assert told.strip().splitlines()[-1].startswith("ibma-app: interrupted")
    assert "Traceback" not in told
    assert not list(work.iterdir())
    nothing_is_half_written(out, whole)
    assert cli(*words).code == 0
    assert contents(out) == whole


def test_an_input_that_goes(contents, runs, whole, tmp_path, cli, start_python):
    out = tmp_path / "out"
    words = (runs, out, "participant", "--no-report", "--nprocs", "1")
    child = start_python("-m", "ibma_app", *words)
    wait_for(out, child, 1)
    gone = sorted((runs / f"sub-{SUBJECTS:02d}" / "func").glob("*"))
    aside = tmp_path / "aside"
    aside.mkdir()
    for path in gone:
        path.rename(aside / path.name)
    _, told = child.communicate(timeout=120)
    assert child.returncode == 1
    assert f"sub-{SUBJECTS:02d} failed" in told
    assert gone[0].name.split("_stat")[0] in told, "the file is named"
    assert told.strip().splitlines()[-1] == f"error: 1 of {SUBJECTS} participants failed: sub-{SUBJECTS:02d}"
    nothing_is_half_written(out, whole)
    assert len(list(out.glob("sub-*"))) == SUBJECTS - 1
    for path in gone:
        (aside / path.name).rename(path)
    assert cli(*words).code == 0
    assert contents(out) == whole


def test_a_full_disk(contents, runs, whole, tmp_path, cli, run_python):
    out = tmp_path / "out"
    words = (runs, out, "participant", "--no-report", "--nprocs", "1")
    ran = run_python("-c", LIMITED, *words)
    assert ran.code == 74, ran.stderr
    assert "could not be written" in ran.stderr
    assert "Make room and run again" in ran.stderr
    nothing_is_half_written(out, whole)
    assert cli(*words).code == 0
    assert contents(out) == whole
