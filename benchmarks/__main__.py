"""Every benchmark, one after another, as one Markdown page: ``python benchmarks [--nimare PYTHON] [--only NAME...]``.

Peers run in the same pass: NiMARE, PyMARE, nilearn, stock PyBIDS, where they are installed (``pip install nimare pymare
tfce``; NiMARE may have an environment of its own). Everything takes half an hour and 4 GB of disk; ``--quick`` takes
small sizes.
"""

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import bench_files
import bench_growth
from clock import say

HERE = Path(__file__).parent
PACKAGES = ("ibma-app", "numpy", "scipy", "numba", "nilearn", "pymare", "pybids", "zlib-ng")
NAMES = ("files", "growth", "estimators", "dependent", "resampling", "surfaces", "indexing", "cold")


def machine(nimare: str | None) -> str:
    """Tell what it runs on."""
    from importlib.metadata import PackageNotFoundError, version

    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if nimare:
        asked = [nimare, "-c", "import importlib.metadata as m; print(m.version('nimare'))"]
        versions.append("NiMARE " + subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip())
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{model}, {cores} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}; "
        f"{', '.join(versions)}. Load when it began: {load:.1f}."
    )


def script(name: str, *words: str) -> None:
    """Run one of the benchmarks that print a table of their own."""
    say(f"\n## `{' '.join((name, *words))}`\n\n```")
    environ = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    ran = subprocess.run(
        [sys.executable, str(HERE / name), *words], env=environ, capture_output=True, text=True, check=False
    )
    say((ran.stdout if ran.returncode == 0 else ran.stderr).rstrip())
    say("```")


def others(only: list[str], quick: bool) -> None:
    """Run the benchmarks that are scripts of their own."""
    if "estimators" in only and importlib.util.find_spec("pymare"):
        script("bench_estimators.py", *(("--voxels", "20000") if quick else ()))
    if "dependent" in only:
        script("bench_dependent.py", *(("--voxels", "20000") if quick else ()))
    if "resampling" in only:
        script("bench_resampling.py", "--maps", "20", "--mixed", "reml", "dl", "fixed-effects")
        if not quick:
            script("bench_resampling.py", "--maps", "100")
    if "surfaces" in only:
        script("bench_surfaces.py")
    if "indexing" in only:
        script("bench_indexing.py", *(("--subjects", "300") if quick else ()))
    if "cold" in only:
        script("bench_cold.py", "--kernels", "10" if quick else "40")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    bench_files.add_arguments(parser)
    bench_growth.add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that everything runs")
    given = parser.parse_args()
    say(f"{machine(given.nimare)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.data or Path(temporary)
        if "files" in given.only:
            say("\n## From files to maps")
            bench_files.compare(folder, given.nimare, 1 if given.quick else given.repeat)
        if "growth" in given.only:
            say("\n## Growth")
            bench_growth.grow(folder, given.mem, [20, 40, 80] if given.quick else given.maps)
    others(given.only, given.quick)


if __name__ == "__main__":
    main()
