"""One process, several, threads, workers elsewhere: the same bytes; ctrl-C leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("distributed", reason="needs Dask: pip install 'ibma-app[dask]'")

GROUP = (
    "--estimator",
    "ols",
    "reml",
    "fixed-effects",
    "fisher",
    "--inference",
    "max-stat",
    "tfce",
    "fdr",
    "--permutations",
    "60",
)
PATHS = os.pathsep.join(filter(None, sys.path))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, describe_dataset, write_statmap):
    """Twelve subjects with two runs, of more voxels than a tile has."""
    root = describe_dataset(tmp_path_factory.mktemp("runs") / "data")
    rng = np.random.default_rng(2)
    for subject in range(1, 13):
        for run in ("1", "2"):
            names = {"sub": f"{subject:02d}", "run": run, "task": "x", "space": "MNI152NLin6Asym", "contrast": "ab"}
            write_statmap(root, "effect", rng.normal(0.3, 1, (21, 21, 21)), metadata={"DegreesOfFreedom": 90}, **names)
            write_statmap(root, "variance", rng.uniform(0.5, 2, (21, 21, 21)), **names)
    return root


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory, cli):
    """OUTPUT_DIR of both levels, by one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    for level, options in (("participant", ()), ("group", GROUP)):
        ran = cli(runs, out, level, *options, "--no-report", "--nprocs", "1")
        assert ran.code == 0, ran.stderr
    return out


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The file of a scheduler with two workers, none of them our own."""
    from distributed import Client

    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    common = ("--scheduler-file", file, "--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--host", "127.0.0.1")
    commands = [("dask_scheduler", "--port", 0, "--idle-timeout", "300")]  # ends if the tests are killed
    commands += [
        ("dask_worker", "--nthreads", 1, "--death-timeout", 60, "--local-directory", folder / name)
        for name in ("one", "two")
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *map(str, (*words, *common))],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": PATHS},
        )
        for module, *words in commands
    ]  # fmt: skip
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)
    with Client(scheduler_file=str(file), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield file
    for process in reversed(processes):
        process.terminate()
        process.wait()


def test_two_processes_give_the_same_bytes(contents, runs, alone, tmp_path, cli):
    for level, options in (("participant", ()), ("group", GROUP)):
        ran = cli(runs, tmp_path / "out", level, *options, "--no-report", "--nprocs", "2")
        assert ran.code == 0, ran.stderr
    assert contents(tmp_path / "out") == contents(alone)


@pytest.mark.slow
def test_two_workers_elsewhere_give_the_same_bytes(contents, runs, alone, tmp_path, cli, cluster):
    for level, options in (("participant", ()), ("group", GROUP)):
        ran = cli(runs, tmp_path / "out", level, *options, "--no-report", "--dask", cluster)
        assert ran.code == 0, ran.stderr
        assert "Dask: 2 worker(s), 2 thread(s)" in ran.stderr
        assert "Traceback" not in ran.stderr
    assert contents(tmp_path / "out") == contents(alone)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".ibma")]


@pytest.mark.slow
def test_interrupted_with_workers_of_our_own(runs, alone, tmp_path, start_python):
    out, work = tmp_path / "out", tmp_path / "work"
    words = (runs, out, "group", "-d", alone, *GROUP[:-1], "200000", "--no-report", "-w", work)
    child = start_python("-m", "ibma_app", *words, "--dask", "local", "--nprocs", "2")
    assert child.stderr is not None
    for line in child.stderr:
        if "Each worker is sent" in line:
            break
    time.sleep(0.5)
    os.killpg(child.pid, signal.SIGINT)  # as the terminal does it: to the workers too
    left = child.stderr.read()
    assert child.wait(60) == 130
    assert left.strip() == "ibma-app: interrupted; what was finished is kept, nothing is half written."
    assert not list(out.glob(".ibma*"))
    assert not list(work.iterdir())


def test_an_address_without_scheduler(runs, tmp_path, cli):
    ran = cli(runs, tmp_path / "out", "group", "--dask", "nonsense")
    assert (ran.code, (tmp_path / "out").exists()) == (64, False)
    assert "no address" in ran.stderr
