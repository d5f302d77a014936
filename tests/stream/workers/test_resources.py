"""What a process may use, and its share when there are several."""

from pathlib import Path

from ibma_app.stream.workers import resources
from ibma_app.stream.workers.resources import ONE_THREAD, Resources


def test_processes_share_threads_and_memory():
    each = Resources(threads=4, memory=4001, work_dir=Path("w")).split()
    assert (each.threads, each.memory, each.processes, each.work_dir) == (1, 1000, 4, Path("w"))


def test_memory_that_was_not_given_is_what_is_free(monkeypatch):
    monkeypatch.setattr(resources, "default_memory", lambda: 900)
    assert ONE_THREAD.bytes_to_use == 900
    assert Resources(memory=7).bytes_to_use == 7
    assert Resources(threads=3).split().memory == 300
