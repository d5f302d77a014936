"""The first run in a fresh environment, and the next: ``python benchmarks/bench_cold.py [--repeat 1] [--kernels 40]``.

Jobs of the demo's small data in a process of their own, on one core: with nothing compiled and no bytecode (as after
``uv pip install``), with bytecode (as after ``pip install``), and with compiled kernels. Wall time is that of this
machine as it is; CPU time is steadier on a busy one. Then every kernel with the CPU time that compiling it took, what
only it calls included, and the jobs that need it.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clock import Taken, best, say

HERE = Path(__file__).resolve()
REPORT = "IBMA_BENCH_COMPILED"  # where a watched process writes what it compiled
OF_RUNS = ("difference=faces-houses", "any=faces, houses")
RESAMPLED = ("--permutations", "200")

Compiled = list[tuple[str, float]]  # kernel, CPU seconds


def jobs(folder: Path) -> dict[str, list[str]]:
    """List what is run: a name, and the words of a command line."""
    subjects, studies = str(folder / "demo/data/subjects"), str(folder / "demo/data/studies")
    out, group = str(folder / "out"), str(folder / "group")
    return {
        "one subject's runs": [
            "ibma-app",
            str(folder / "bold"),
            str(folder / "runs"),
            "run",
            "--participant-label",
            "01",
            "--contrasts",
            *OF_RUNS,
        ],
        "demo": ["ibma-demo", str(folder / "demo"), "--nprocs", "1"],
        "all participants": ["ibma-app", subjects, out, "participant"],
        "one participant": ["ibma-app", subjects, str(folder / "one"), "participant", "--participant-label", "01"],
        "group, ols": ["ibma-app", out, group, "group", "--estimator", "ols", *RESAMPLED],
        "group, reml": ["ibma-app", out, group, "group", "--estimator", "reml", "--inference", "fdr"],
        "group, reml, resampled": ["ibma-app", out, group, "group", "--estimator", "reml", *RESAMPLED],
        "studies, stouffer": ["ibma-app", studies, str(folder / "meta"), "group", "--estimator", "stouffer"],
    }


def watched(words: Sequence[str]) -> int:
    """Run a command in this process; write which kernels it compiled, and in how many CPU seconds."""
    from numba.core import event

    found: dict[str, float] = defaultdict(float)
    began: list[float] = []

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, event: Any) -> None:
            began.append(time.thread_time())

        def on_end(self, event: Any) -> None:
            taken = time.thread_time() - began.pop()
            if not began:  # else a part of another
                function = event.data["dispatcher"].py_func
                found[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"] += taken

    event.register("numba:compile", Listener())
    from ibma_app.cli import demo_main, main

    code = demo_main(words[1:]) if words[0] == "ibma-demo" else main(words[1:])
    Path(os.environ[REPORT]).write_text(json.dumps(sorted(found.items(), key=lambda item: -item[1])))
    return code


def measure(words: Sequence[str], folder: Path, environ: dict[str, str], repeat: int) -> tuple[Taken, Compiled]:
    """Run a command in a process of its own, several times from the same start."""
    report = folder / "compiled.json"
    command = [sys.executable, "-P", str(HERE), "--watched", *words]
    if words[0] == "ibma-app":
        command += ["--nprocs", "1"]
    path = f"{folder / 'site'}{os.pathsep}{HERE.parent}"
    taken = best(command, repeat, {"PYTHONPATH": path, REPORT: str(report), **environ})
    return taken, [(name, seconds) for name, seconds in json.loads(report.read_text())]


def compare(folder: Path, repeat: int) -> dict[str, Compiled]:
    """Print a row per job; return what each compiled."""
    from ibma_app.workflows.demo.bold_files import write_bold
    from ibma_app.workflows.demo.simulate import make_brain
    from ibma_app.workflows.demo.simulate_bold import simulate_bold

    # a copy, as kernels may lie beside the package
    shutil.copytree(HERE.parents[1] / "ibma_app", folder / "site/ibma_app", ignore=shutil.ignore_patterns("*.nb[ci]"))
    write_bold(folder / "bold", simulate_bold(make_brain(4.0), 2, 0), lambda: None)
    say("CPU s (wall s)           no bytecode          cold          warm   compiling   kernels")
    compiled: dict[str, Compiled] = {}
    for name, words in jobs(folder).items():
        runs: dict[str, tuple[Taken, Compiled]] = {}
        kept = ""
        for state in ("no bytecode", "cold", "warm"):
            if state != "warm":  # that finds what the cold run has kept
                kept = tempfile.mkdtemp(dir=folder)
            environ = {"NUMBA_CACHE_DIR": kept}
            if state == "no bytecode":
                environ |= {"PYTHONPYCACHEPREFIX": str(Path(kept) / "pyc"), "MPLCONFIGDIR": str(Path(kept) / "mpl")}
            runs[state] = measure(words, folder, environ, repeat if state == "warm" else 1)
        cells = "".join(f"{taken.cpu:7.1f} ({taken.wall:4.1f})" for taken, _ in runs.values())
        compiled[name] = runs["cold"][1]
        total = sum(seconds for _, seconds in compiled[name])
        say(f"{name:23}{cells}{total:12.1f}{len(compiled[name]):10}")
    return compiled


def list_kernels(compiled: dict[str, Compiled], most: int) -> None:
    """Print a row per kernel, the slowest first."""
    say("\nCPU s  kernel, and jobs that need it")
    seconds: dict[str, list[float]] = defaultdict(list)
    needed: dict[str, list[str]] = defaultdict(list)
    for job, kernels in compiled.items():
        for name, taken in kernels:
            seconds[name].append(taken)
            needed[name].append(job)
    for name, taken in sorted(seconds.items(), key=lambda item: -max(item[1]))[:most]:
        say(f"{max(taken):5.2f}  {name:32} {', '.join(needed[name])}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1, help="warm runs, of which the fastest counts")
    parser.add_argument("--kernels", type=int, default=40, help="how many kernels are listed")
    parser.add_argument("--watched", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.watched:
        return watched(given.watched)
    say(f"{len(os.sched_getaffinity(0))} cores; load when it began: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        list_kernels(compare(Path(folder), given.repeat), given.kernels)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
