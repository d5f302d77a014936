"""OUTPUT_DIR's lock: one job at a time, and a dead job's lock holds nobody for long."""

import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ibma_app.core.errors import OutputError
from ibma_app.dataset import output_dir as locking
from ibma_app.dataset.output_dir import is_over, lock_shared, name_process, open_output
from ibma_app.dataset.write import save_text

OURS = name_process(os.getpid())
ELSEWHERE = "other.host.1-17-s5-abc"  # nobody here can tell whether it lives
YEAR = 365 * 86_400.0
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")


@pytest.fixture
def lock(tmp_path) -> Path:
    return tmp_path / ".ibma-lock"


def make_lock(lock: Path, content: str = ELSEWHERE, age: float = 0.0) -> None:
    lock.write_text(content)
    made = time.time() - age
    os.utime(lock, (made, made))


def seconds_to_take(root: Path, timeout: float = 0.2) -> float:
    """Take the lock, and see that it is gone afterwards, with all that was made to look at it."""
    start = time.monotonic()
    with lock_shared(root, timeout=timeout):
        taken = time.monotonic() - start
        assert (root / ".ibma-lock").read_text().startswith(OURS)
    assert list(root.iterdir()) == []
    return taken


def count_up(root, times):
    for _ in range(times):
        with lock_shared(root), open_output(root) as output:
            count = int((root / "count").read_text())
            save_text(output, "count", str(count + 1))


def test_it_lets_one_in_at_a_time(tmp_path):
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")  # a spawned child could not import this file
    jobs = [context.Process(target=count_up, args=(tmp_path, 15)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "45\n"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


@pytest.mark.parametrize(
    "holder",
    [f"{OURS}-x", ELSEWHERE, "", "no process at all", "-" * 9],
    ids=["ours", "elsewhere", "empty", "words", "hyphens"],  # the same in every process that collects
)
def test_a_young_lock_is_respected(tmp_path, lock, holder):
    make_lock(lock, holder)
    with pytest.raises(OutputError, match="delete this file and run again"), lock_shared(tmp_path, timeout=0.2):
        pass
    assert lock.read_text() == holder
    lock.unlink()  # the advice
    assert seconds_to_take(tmp_path) < 3.0


@pytest.mark.parametrize(
    ("holder", "age"),
    [(f"{OURS}-x", 700.0), (ELSEWHERE, 61.0), ("", 40.0), ("\udcff", 700.0)],
    ids=["ours", "elsewhere", "empty", "no text"],
)
def test_an_old_lock_is_a_dead_jobs(tmp_path, lock, holder, age):
    make_lock(lock, "", age)
    lock.write_bytes(holder.encode("utf-8", errors="surrogateescape"))
    os.utime(lock, (time.time() - age,) * 2)
    assert seconds_to_take(tmp_path) < 3.0


def test_a_process_that_has_ended_holds_nothing(tmp_path, lock):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    name = name_process(ended.pid)
    ended.wait()
    make_lock(lock, f"{name}-x")
    assert seconds_to_take(tmp_path) < 3.0


@needs_proc
@pytest.mark.parametrize("difference", [-1, 1, 10**6])
def test_a_process_that_got_the_number_of_an_ended_one_holds_nothing(tmp_path, lock, difference):
    host, pid, start = OURS.split("-")
    other = f"{host}-{pid}-s{int(start[1:]) + difference}"  # began at another time: another process
    assert is_over(other)
    assert is_over(f"{other}-x")
    make_lock(lock, f"{other}-x")
    assert seconds_to_take(tmp_path) < 3.0


@pytest.mark.parametrize(
    "name", [OURS, f"{OURS}-x", OURS.rpartition("-")[0], f"{OURS.rpartition('-')[0]}-s", ELSEWHERE, "", "a", "a-b-c",
             "h-99999999999999999999-s1", "h-²-s1"],
    ids=["ours", "its lock", "no start", "empty start", "elsewhere", "empty", "letter", "letters", "large", "no digit"],
)  # fmt: skip
def test_a_process_is_not_taken_for_over_without_evidence(name):
    assert not is_over(name)


@pytest.mark.parametrize("ahead", [120.0, 5 * 3600.0, YEAR])
def test_a_lock_from_the_future_holds_a_job_for_seconds(tmp_path, lock, monkeypatch, ahead):
    monkeypatch.setattr(locking, "_WATCHED", 0.3)
    make_lock(lock, ELSEWHERE, -ahead)
    assert 0.3 < seconds_to_take(tmp_path, timeout=5.0) < 3.0


def test_a_lock_from_the_future_that_is_renewed_is_respected(tmp_path, lock, monkeypatch):
    monkeypatch.setattr(locking, "_WATCHED", 0.2)
    look = locking._look
    turns = iter(range(1_000_000))

    def renewed(path, seen):
        make_lock(lock, f"{ELSEWHERE}{next(turns)}", -YEAR)  # another job's, each time
        return look(path, seen)

    make_lock(lock, ELSEWHERE, -YEAR)
    monkeypatch.setattr(locking, "_look", renewed)
    with pytest.raises(OutputError, match=re.escape("(process 17 on other.host)")), lock_shared(tmp_path, timeout=1.0):
        pass


@pytest.mark.parametrize("ahead", [3600.0, -3600.0, YEAR])
def test_the_clock_of_the_file_system_counts_not_ours(tmp_path, lock, monkeypatch, ahead):
    now = time.time
    monkeypatch.setattr(locking.time, "time", lambda: now() + ahead)  # this host's clock is wrong
    lock.write_text(ELSEWHERE)  # made just now
    with pytest.raises(OutputError, match="held by another job"), lock_shared(tmp_path, timeout=0.5):
        pass
    os.utime(lock, (now() - 700,) * 2)
    assert seconds_to_take(tmp_path) < 3.0


def test_waiting_says_what_for_after_some_seconds(tmp_path, lock, monkeypatch, caplog):
    monkeypatch.setattr(locking, "_SAY_AFTER", 0.2)
    make_lock(lock, age=20.0)
    with pytest.raises(OutputError), lock_shared(tmp_path, timeout=1.0):
        pass
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("Waiting for the lock of another job (process 17 on other.host, 20 s old): ")
    assert f"{lock}. If that job is not running any more, delete this file, and this one goes on at once" in said
    assert "else when the lock is free or 60 s old" in said
    assert locking._SAY_AFTER < 2


def test_a_dead_job_elsewhere_holds_others_until_its_lock_is_a_minute_old(tmp_path, lock):
    make_lock(lock, ELSEWHERE, 59.6)
    assert 0.2 < seconds_to_take(tmp_path, timeout=5.0) < 3.0
