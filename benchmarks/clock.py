"""Run a command in a process of its own and tell what it took: CPU, wall time, the most memory at once."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE")
EVERY = 0.01  # s between looks at memory


class Taken(NamedTuple):
    """What a command took, its children included."""

    cpu: float  # s, user and system
    wall: float  # s
    peak: float  # MiB resident, all its processes together, pages they share counted once for each
    output: str


def run(command: Sequence[str], environ: Mapping[str, str] | None = None) -> Taken:
    """Run a command to its end.

    Raises
    ------
    RuntimeError
        It failed.
    """
    before, start = os.times(), time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environ or {})}
    )
    largest = [0]
    watcher = threading.Thread(target=_watch, args=(process, largest), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    wall = time.perf_counter() - start
    after = os.times()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(cpu, wall, largest[0] / 1024**2, output)


def best(command: Sequence[str], repeat: int, environ: Mapping[str, str] | None = None) -> Taken:
    """Run a command several times; the least CPU and wall time, the largest peak."""
    every = [run(command, environ) for _ in range(repeat)]
    least = min(every, key=lambda taken: taken.cpu)
    return least._replace(wall=min(t.wall for t in every), peak=max(t.peak for t in every))


def _watch(process: "subprocess.Popen[str]", largest: list[int]) -> None:
    while process.poll() is None:
        largest[0] = max(largest[0], sum(_resident(pid) for pid in _tree(process.pid)))
        time.sleep(EVERY)


def _tree(pid: int) -> list[int]:
    """List a process and all below it."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  pathlib's way costs the watched one its time
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += _tree(int(child))
    except OSError:  # it ended meanwhile
        return found
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
