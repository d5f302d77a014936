"""Jobs in real processes; one that kills its worker is reported, the others finish."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ibma_app.core.errors import DataError, IbmaError
from ibma_app.stream.workers.process_pool import open_pool

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
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Return a function of a module that worker processes can import, too."""
    (tmp_path / "pool_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import pool_jobs

    yield pool_jobs.work
    del sys.modules["pool_jobs"]


@pytest.mark.parametrize("nprocs", [1, 2])
def test_every_job_comes_back_with_its_outcome(work, nprocs):
    jobs = ["a", "b", "fails", "c", "d"]
    with open_pool(nprocs) as pool:
        outcomes = dict(pool.run(work, jobs))
    assert sorted(outcomes) == sorted(jobs)
    assert isinstance(outcomes["fails"], DataError)
    assert outcomes["fails"].message == "this one fails"
    assert outcomes["a"][2] == "a"
    if nprocs == 1:
        assert outcomes["a"][1] == os.getpid()
    else:
        assert outcomes["a"][0] == "1"
        assert outcomes["a"][1] != os.getpid()


def test_a_worker_that_dies_takes_one_job_with_it(work, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ibma_app"), "propagate", True)
    once = ("once", str(tmp_path / "marker"))
    jobs = ["a", "b", "dies", "c", once, "d", "e"]
    with open_pool(2) as pool:
        outcomes = dict(pool.run(work, jobs))
    assert set(outcomes) == set(jobs)
    assert isinstance(outcomes["dies"], IbmaError)
    assert "died twice" in outcomes["dies"].message
    assert outcomes[once] == "second time"
    assert all(outcomes[job][2] == job for job in "abcde")
    assert "A worker process died" in caplog.text


def test_no_job_no_process():
    with open_pool(2) as pool:
        assert list(pool.run(len, [])) == []


SCRIPT = """
import sys, time
sys.path.insert(0, {folder!r})
from slow_jobs import work
from ibma_app.stream.workers.process_pool import open_pool
if __name__ == "__main__":
    with open_pool(2) as pool:
        list(pool.run(work, [{folder!r} + "/1", {folder!r} + "/2"]))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    (tmp_path / "slow_jobs.py").write_text(
        "import os, time\ndef work(path):\n    open(path, 'w').write(str(os.getpid()))\n    time.sleep(60)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    parent = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        markers = [tmp_path / "1", tmp_path / "2"]
        assert _within(30, lambda: all(marker.exists() and marker.read_text() for marker in markers))
        workers = [int(marker.read_text()) for marker in markers]
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert _within(10, lambda: not any(_runs(pid) for pid in workers))
    finally:
        parent.kill()


HALF_SENT = """
import os, time
from multiprocessing import connection

def work(marker):
    def send(self, data):
        os.write(self._handle, bytes(data)[: len(data) // 2])
        open(marker, "w").close()
        time.sleep(60)

    connection.Connection._send = send
    return "the result"
"""


def test_an_interrupted_run_ends_though_half_a_result_was_sent(tmp_path, start_python):
    (tmp_path / "slow_jobs.py").write_text(HALF_SENT)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    parent = start_python(script)
    assert _within(30, lambda: (tmp_path / "1").exists() or (tmp_path / "2").exists())
    os.killpg(parent.pid, signal.SIGINT)
    _, told = parent.communicate(timeout=30)
    assert parent.returncode == -signal.SIGINT  # as Python ends when nobody takes KeyboardInterrupt
    assert told.rstrip().endswith("KeyboardInterrupt")


def _within(seconds, condition):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _runs(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
