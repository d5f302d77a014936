"""How CPU time and memory grow: with maps at fixed memory, with voxels, with resamples.

    python benchmarks/bench_growth.py [--mem 2G] [--maps 50 300 750 1500 3000] [--data FOLDER]

Maps: `reml` on effects and variances of 228,483 voxels. Voxels: `reml` on 21 studies at 3, 2 and 1 mm. Resamples:
`ols` on 20 subjects, `max-stat` and `tfce`. The slope is that of log CPU on log size between neighbours, without what a
run of the smallest kind takes anyway: 1 is linear.
"""

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bench_files
import brains
from clock import Taken, say

RESAMPLES = (100, 1000, 10_000)


def table(title: str, size: str, rows: Sequence[tuple[int, Taken]], idle: float) -> None:
    """Print a growth table."""
    say(f"\n### {title}\n\n| {size} | CPU s | wall s | MiB | slope |\n|---|---|---|---|---|")
    before: tuple[int, float] | None = None
    for number, taken in rows:
        work, slope = taken.cpu - idle, ""
        if before and work > 0 and before[1] > 0:
            slope = f"{math.log(work / before[1]) / math.log(number / before[0]):.2f}"
        say(f"| {number:,} | {taken.cpu:.1f} | {taken.wall:.1f} | {taken.peak:.0f} | {slope} |")
        before = number, work


def grow(folder: Path, mem: str, sizes: Sequence[int]) -> None:
    """Print all tables."""
    out = folder / "out"
    pair = brains.make_studies(folder / "studies_3", 21, 3.0)
    two = bench_files.app(brains.make_subjects(folder / "subjects20", 20), out, "group", ["--estimator", "ols"], 2)
    idle = two.cpu
    whole = brains.make_many(folder / "many", max(sizes))
    rows = []
    for n in sizes:
        data = whole if n == max(sizes) else brains.make_part(folder / f"many{n}", whole, n)
        rows.append((n, bench_files.app(data, out, "group", ["--estimator", "reml", "--mem", mem], 1)))
    table(f"Maps, `reml`, 2 mm, `--mem {mem}`", "maps", rows, idle)
    words = ["--estimator", "reml", "--units", "assume-same", "--mem", mem]
    rows = []
    for step in (3.0, 2.0, 1.0):
        data = pair if step == 3.0 else brains.make_studies(folder / f"studies_{step:.0f}", 21, step)
        voxels = int(brains.brain(step)[0].sum())
        rows.append((voxels, bench_files.app(data, out, "group", words, 1)))
    table("Voxels, 21 studies, `reml`, 3, 2 and 1 mm", "voxels", rows, 0.8 * idle)
    for name in ("max-stat", "tfce"):
        rows = []
        for r in RESAMPLES if name == "max-stat" else RESAMPLES[:2]:
            words = ["--estimator", "ols", "--inference", name, "--permutations", str(r)]
            rows.append((r, bench_files.app(folder / "subjects20", out, "group", words, 1)))
        table(f"Resamples, 20 subjects, `ols`, `{name}`", "resamples", rows, idle)
    shutil.rmtree(out, ignore_errors=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mem", default="2G")
    parser.add_argument("--maps", type=int, nargs="+", default=[50, 300, 750, 1500, 3000])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--data", type=Path, help="where the data are made, and kept (5 GB for 3,000 maps)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        grow(given.data or Path(folder), given.mem, given.maps)


if __name__ == "__main__":
    sys.exit(main())
