"""Jobs by real workers of Dask: the same bytes; workers and schedulers that die are survived, or reported."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError, IbmaError, ReadWriteError, UsageError
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stream import memory_plan
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.resampling import fast_mixed, one_pass
from ibma_app.stream.resampling.resample import score_resamples
from ibma_app.stream.row_store import open_store
from ibma_app.stream.workers import dask_pool as pools
from ibma_app.stream.workers.dask_pool import check_dask, open_dask
from ibma_app.stream.workers.resources import Resources

pytest.importorskip("distributed", reason="needs Dask: pip install 'ibma-app[dask]'")

NAMES = ("max-stat", "cluster-size", "cluster-mass", "tfce")
JOBS = """
import os, signal, time
from pathlib import Path
from ibma_app.core.errors import DataError

def work(job):
    if job == "fails":
        raise DataError("this one fails")
    if job == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(job, tuple):  # dies the first time only
        marker = Path(job[1])
        if not marker.exists():
            marker.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return "second time"
    return os.environ.get("OMP_NUM_THREADS"), os.getpid(), job

def add(shared, job):
    time.sleep(job[1])
    return shared["array"][0] + job[0], os.getpid()
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A module that workers can import, too, once they know where it is."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "dask_jobs.py").write_text(JOBS)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), *sys.path]))
    sys.path.insert(0, str(folder))
    import dask_jobs

    yield dask_jobs
    sys.path.remove(str(folder))
    os.environ["PYTHONPATH"] = before
    del sys.modules["dask_jobs"]


@pytest.fixture(scope="module")
def two(jobs, tmp_path_factory):
    """Two worker processes of our own."""
    folder = tmp_path_factory.mktemp("work")
    with open_dask("local", nprocs=2, memory=2**30, work_dir=folder) as workers:
        yield workers
    assert not list(folder.iterdir()), "nothing stays in the work folder"


@pytest.fixture
def logged(caplog, monkeypatch):
    """What is logged, with a look at the cluster twice a second."""
    monkeypatch.setattr(pools, "CHECK_EVERY", 0.5)
    monkeypatch.setattr(logging.getLogger("ibma_app"), "propagate", True)
    caplog.set_level(logging.INFO, "ibma_app")
    return caplog


def test_every_job_comes_back_with_its_outcome(two, jobs):
    given = ["a", "b", "fails", "c", "d"]
    outcomes = dict(two.run(jobs.work, given))
    assert sorted(outcomes) == sorted(given)
    assert isinstance(outcomes["fails"], DataError)
    assert outcomes["fails"].message == "this one fails"
    assert {outcomes[job][2] for job in "abcd"} == set("abcd")
    assert {outcomes[job][0] for job in "abcd"} == {"1"}, "BLAS runs on one thread"
    assert os.getpid() not in {outcomes[job][1] for job in "abcd"}
    assert list(two.run(jobs.work, [])) == []


def test_data_are_shared_and_read(two, jobs):
    given = [(number, 0.01) for number in range(40)]
    shared = {"array": np.array([100])}
    found = dict(two.run(jobs.add, given, shared=shared))
    assert {job[0]: value for job, (value, _) in found.items()} == {n: n + 100 for n in range(40)}
    assert len({pid for _, pid in found.values()}) == 2, "both worked"
    read = dict(two.run(jobs.add, range(5), shared=shared, read=lambda job: (job * 2, 0), nbytes=2**28))
    assert {job: value for job, (value, _) in read.items()} == {n: 2 * n + 100 for n in range(5)}


def test_a_failing_read_is_raised(two, jobs):
    def read(job):
        raise ReadWriteError("the work file was cut short")

    with pytest.raises(ReadWriteError, match="cut short"):
        list(two.run(jobs.work, ["a"], read=read))


@pytest.mark.slow
def test_a_job_whose_worker_dies_is_done_by_another(two, jobs, tmp_path, logged):
    once = ("once", str(tmp_path / "marker"))
    given = ["a", "b", once, "c", "d", "e"]
    outcomes = dict(two.run(jobs.work, given))
    assert outcomes[once] == "second time"
    assert all(outcomes[job][2] == job for job in "abcde")


@pytest.mark.slow
def test_data_survive_the_death_of_all_workers(two, jobs, logged):
    given = [(number, 0.2) for number in range(12)]
    done, killed = {}, False
    for job, outcome in two.run(jobs.add, given, shared={"array": np.array([7])}):
        done[job[0]] = outcome
        if len(done) >= 4 and not killed:
            killed = True
            for pid in {pid for _, pid in done.values()}:
                os.kill(pid, signal.SIGKILL)
    assert killed
    assert {job: value for job, (value, _) in done.items()} == {number: number + 7 for number in range(12)}
    assert "Lost" in logged.text


@pytest.mark.slow
def test_a_job_that_kills_every_worker_is_told(two, jobs):
    outcomes = dict(two.run(jobs.work, ["dies"]))
    assert isinstance(outcomes["dies"], IbmaError)
    assert "worked on dies died" in outcomes["dies"].message
    assert dict(two.run(jobs.work, ["after"]))["after"][2] == "after", "there are workers again"


def start(module, *words):
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{module}", *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture
def elsewhere(jobs, tmp_path):
    """A scheduler and two workers that are not ours: their processes, and the scheduler's file."""
    from distributed import Client

    file = tmp_path / "scheduler.json"
    here = ("--host", "127.0.0.1")
    processes = [start("dask_scheduler", *here, "--port", 0, "--no-dashboard", "--dashboard-address",
                       "127.0.0.1:0", "--scheduler-file", file)]  # fmt: skip
    for number in range(2):
        folder = ("--local-directory", tmp_path / f"worker-{number}")
        processes.append(
            start("dask_worker", "--scheduler-file", file, "--no-nanny", "--nthreads", 1, *folder, "--no-dashboard")
        )
    try:
        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield processes, file
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_without_workers_it_waits_for_new_ones(elsewhere, jobs, logged, tmp_path):
    (_, *others), file = elsewhere
    done = {}
    with open_dask(str(file)) as workers:
        given = [(number, 0.05) for number in range(12)]
        for job, outcome in workers.run(jobs.add, given, shared={"array": np.array([7])}):
            done[job[0]] = outcome[0]
            if len(done) == 3:
                for process in others:
                    process.kill()
                    process.wait()
                folder = ("--local-directory", tmp_path / "new")
                elsewhere[0].append(start("dask_worker", "--scheduler-file", file, "--nthreads", 1, *folder))
    assert done == {number: number + 7 for number in range(12)}
    assert "Lost 2 Dask worker(s)" in logged.text


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_scheduler_that_vanishes_is_reported(elsewhere, jobs, logged, how):
    (scheduler, *_), file = elsewhere
    outcomes = {}
    with open_dask(str(file)) as workers:
        assert not workers.local
        assert workers.connected
        for job, outcome in workers.run(jobs.add, [(n, 0.1) for n in range(30)], shared={"array": np.array([0])}):
            outcomes[job[0]] = outcome
            if len(outcomes) == 3:
                scheduler.send_signal(how)
        until = time.monotonic() + 10  # the client learns of it by a thread of its own
        while workers.connected and time.monotonic() < until:
            time.sleep(0.05)
        assert not workers.connected
    assert sorted(outcomes) == list(range(30)), "every job has an outcome"
    done = {n: outcome for n, outcome in outcomes.items() if not isinstance(outcome, Exception)}
    assert 3 <= len(done) < 30
    assert all(done[n][0] == n for n in done)
    left = [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]
    assert all(isinstance(error, ReadWriteError) and error.code == 74 for error in left)
    assert "has vanished" in left[0].message


@pytest.mark.slow
@pytest.mark.parametrize("shared", [None, {"array": np.array([7])}])
def test_workers_of_our_own_that_do_not_start_again_end_the_run(jobs, logged, monkeypatch, tmp_path, shared):
    monkeypatch.setattr(pools, "RESTART", 1.0)
    with open_dask("local", nprocs=1, work_dir=tmp_path) as workers:
        workers._client.retire_workers()
        work, given = (jobs.add, [(1, 0.0), (2, 0.0)]) if shared else (jobs.work, ["a", "b"])
        outcomes = dict(workers.run(work, given, shared=shared))
    assert list(outcomes) == given
    for outcome in outcomes.values():
        assert isinstance(outcome, ReadWriteError)
        assert "none starts again" in outcome.message


def test_what_cannot_be_asked_for(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="no address"):
        check_dask("nonsense")
    monkeypatch.setattr(pools, "CONNECT_TIMEOUT", 0.5)
    with (
        pytest.raises(UsageError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        open_dask("tcp://127.0.0.1:1"),
    ):
        pass
    (tmp_path / "scheduler.json").write_text(json.dumps({"address": "tcp://127.0.0.1:1"}))
    with pytest.raises(UsageError, match="answers at"), open_dask(str(tmp_path / "scheduler.json")):
        pass
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install distributed"):
        check_dask("local")


def test_workers_of_another_version_are_refused(two, monkeypatch):
    monkeypatch.setattr(pools, "__version__", "another")
    with pytest.raises(UsageError, match="this is another"):
        two.check_workers()
    assert "has no ibma-app" in pools._find_fault(ModuleNotFoundError("ibma_app"))


def test_workers_of_another_version_that_come_later_do_nothing(two, monkeypatch):
    monkeypatch.setattr(pools, "__version__", "another")
    outcomes = [outcome for _, outcome in two.run(abs, [-1, -2])]
    assert [type(outcome) for outcome in outcomes] == [UsageError, UsageError]
    assert "cannot work for us" in outcomes[0].message


@pytest.fixture(params=["complete", "holes"])
def maps(request, stack_of, tmp_path):
    """Ten maps of 300 voxels, in memory and on disk."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=(10, 300)) + 0.4
    if request.param == "holes":
        values[2, ::7] = np.nan
    variance = rng.uniform(0.5, 2, values.shape)
    stack = stack_of(np.ones((6, 10, 5), dtype=bool), effect=values, variance=variance, z=values)
    with open_store(tmp_path, on_disk=True, size=values.nbytes) as store:
        for kind, index, _, row in stack.contents():
            store.append(kind, index, row, 0)
        store.select({0: np.arange(300)})
        yield stack, replace(stack, _store=store)


INTERCEPT = Design(np.ones((10, 1)), ("intercept",), (Test("m", np.eye(1)),))
SLOPE = Design(
    np.asfortranarray(np.column_stack([np.ones(10), np.arange(10.0)])),
    ("intercept", "x"),
    (Test("x", np.array([[0.0, 1.0]])),),
)


@pytest.mark.parametrize(
    ("name", "design"),
    [
        ("ols", INTERCEPT),
        pytest.param("ols", SLOPE, marks=pytest.mark.slow),
        ("reml", SLOPE),
        pytest.param("reml", INTERCEPT, marks=pytest.mark.slow),
        pytest.param("fisher", INTERCEPT, marks=pytest.mark.slow),
    ],
)
def test_tiles_and_resamples_are_the_same_bytes(two, maps, monkeypatch, name, design):
    monkeypatch.setattr(memory_plan, "BLOCK", 64)
    monkeypatch.setattr(memory_plan, "SMALLEST_BLOCK", 64)
    for size in ("MAPS", "PEAKS"):
        monkeypatch.setattr(fast_mixed, size, 24)
    estimator, test = find_estimator(name), design.tests[0]
    model = Model(estimator, design)
    fits = [estimate_maps(maps[0], model, Resources(workers=workers)) for workers in (None, two)]
    for field in ("z", "effect", "variance"):
        here, there = (getattr(fit.tests[test.name], field) for fit in fits)
        assert (here is None) == (there is None)
        assert here is None or here.tobytes() == there.tobytes()
    for names in (("max-stat",), NAMES):
        scores = {one: find_inference(one).score for one in names}
        settings = InferenceSettings(cluster_p=0.02, permutations=70, seed=2)
        nulls = [
            score_resamples(stack, model, test, scores, settings, Resources(threads=2, workers=workers))
            for stack, workers in ((maps[0], None), (maps[0], two), (maps[1], two))
        ]
        for one in names:
            assert len({null.maxima[one].tobytes() for null in nulls}) == 1, one
            assert len({null.observed[one].tobytes() for null in nulls}) == 1, one


def test_small_workers_are_sent_nothing(two, stack_of, logged, monkeypatch):
    monkeypatch.setattr(one_pass, "SHARE", 1e-9)
    stack = stack_of(np.ones((5, 5, 5), dtype=bool), effect=np.random.default_rng(0).normal(size=(8, 125)))
    design = Design(np.ones((8, 1)), ("intercept",), (Test("m", np.eye(1)),))
    scores = {"max-stat": find_inference("max-stat").score}
    null = score_resamples(
        stack, Model(find_estimator("ols"), design), design.tests[0], scores,
        InferenceSettings(permutations=50), Resources(workers=two),
    )  # fmt: skip
    assert null.resamples == 50
    assert "done here, by threads" in logged.text


def test_maps_that_memory_does_not_hold_are_not_sent(two, logged, monkeypatch):
    monkeypatch.setattr(two, "memory", 1000)
    assert one_pass._holds(two, 400)
    assert not one_pass._holds(two, 600)
    assert "Give more with --mem" in logged.text
