"""Runs in several processes, elsewhere, and killed: the same bytes, nothing half written, and valid BIDS."""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import nibabel as nib
import pytest

WORDS = ("--contrasts", "d=go-stop", "any=go, stop", "--confounds", "motion6")


@pytest.fixture(scope="module")
def study(maker, tmp_path_factory) -> Path:
    """Two subjects with two runs each."""
    return maker("runs_by_code").make_study(tmp_path_factory.mktemp("study"), ("01", "02"), ("1", "2"), n_volumes=60)


@pytest.fixture(scope="module")
def alone(study, cli) -> Path:
    """What one process writes, its pages and residuals too."""
    (study.parent / "run.toml").write_text("[run]\nresiduals = true\n")
    out = study.parent / "alone"
    ran = cli(study, out, "run", *WORDS, "--config-file", study.parent / "run.toml", "--nprocs", "1")
    assert ran.code == 0, ran.stderr
    return out


def test_what_the_levels_write_is_valid_bids(alone, study, cli, tmp_path):
    beside = Path(sysconfig.get_path("scripts")) / "bids-validator-deno"
    validator = str(beside) if beside.exists() else shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    out = shutil.copytree(alone, tmp_path / "out")
    assert cli(study, out, "participant", "--no-report").code == 0
    done = subprocess.run([validator, out, "--json"], capture_output=True, text=True, check=False, timeout=120)
    found = json.loads(done.stdout)
    assert [issue for issue in found["issues"]["issues"] if issue["severity"] == "error"] == []
    names = {path.name.rpartition("_")[2] for path in out.rglob("sub-01_*run-1*")}
    assert names >= {"statmap.nii.gz", "statmap.json", "design.tsv", "design.json", "bold.nii.gz", "bold.json"}


@pytest.fixture
def assert_same(contents):
    """Return what holds two output folders, side by side, to the same files."""

    def compare(one: Path, other: Path) -> None:
        these, those = contents(one), contents(other)
        assert these.keys() == those.keys()
        assert [name for name in these if these[name] != those[name]] == []

    return compare


@pytest.mark.parametrize("how", [("--nprocs", "2"), ("--nprocs", "1", "--mem", "1M")], ids=" ".join)
def test_the_same_bytes_however_it_runs(alone, study, cli, assert_same, how):
    out = study.parent / "".join(how)
    ran = cli(study, out, "run", *WORDS, "--config-file", study.parent / "run.toml", *how)
    assert ran.code == 0, ran.stderr
    assert_same(alone, out)


def test_reports_only_makes_the_same_pages_from_the_maps(alone, cli, assert_same, tmp_path):
    out = shutil.copytree(alone, tmp_path / "elsewhere" / "out")
    for path in (*out.glob("*.html"), out / "README.md", out / "CITATION.md"):
        path.unlink()
    shutil.rmtree(out / "figures")
    ran = cli("gone", out, "run", "--reports-only", "--nprocs", "1")
    assert ran.code == 0, ran.stderr
    assert_same(alone, out)
    pages = cli("gone", out, "run", "--reports-only", "--dry-run", "--participant-label", "02", "--contrast", "any")
    assert [Path(line).name for line in pages.stdout.split()] == [
        f"run_sub-02_task-x_run-{run}_space-MNI152NLin2009cAsym.html" for run in "12"
    ]
    next(out.rglob("sub-02_*run-1*contrast-d_stat-effect_statmap.nii.gz")).unlink()
    ran = cli("gone", out, "run", "--reports-only", "--nprocs", "1")
    assert ran.code == 1
    assert "contrast-d_stat-effect_statmap.nii.gz" in ran.stderr
    assert "1 of 4 pages failed" in ran.stderr


@pytest.mark.slow
def test_workers_of_a_dask_cluster(alone, study, cli, assert_same):
    distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'ibma-app[dask]'")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address
        words = ("--config-file", study.parent / "run.toml", "--dask", address)
        ran = cli(study, study.parent / "dask", "run", *WORDS, *words)
    assert ran.code == 0, ran.stderr
    assert_same(alone, study.parent / "dask")


@pytest.mark.slow
def test_killed_in_the_middle_and_begun_again(maker, cli, start_python, assert_same, tmp_path):
    subjects = tuple(f"{number:02d}" for number in range(1, 13))
    raw = maker("runs_by_code").make_study(tmp_path, subjects, ("1",), n_volumes=60)
    words = ("run", *WORDS, "--no-report", "--nprocs", "1")
    child = start_python("-m", "ibma_app", raw, tmp_path / "out", *words, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("out/sub-*/func/*_stat-effect_statmap.nii.gz"))) < 3 and time.monotonic() < deadline:
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    written = list(tmp_path.glob("out/sub-*/func/*.nii.gz"))
    assert 3 <= len(written) < 12 * 12
    for path in written:
        nib.load(path).get_fdata()  # whole, or it raises
    for where in ("out", "whole"):
        ran = cli(raw, tmp_path / where, *words)
        assert ran.code == 0, ran.stderr
    assert_same(tmp_path / "whole", tmp_path / "out")
