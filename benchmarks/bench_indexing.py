"""Indexing a large dataset: ours beside stock PyBIDS, seconds and peak memory, in one run.

    python benchmarks/bench_indexing.py [--subjects 5000] [--skip-stock]

The dataset is made of empty files: 18 maps a subject (two runs, three contrasts, three kinds) and two sidecars. Each
side runs in a process of its own. Stock PyBIDS is what its documentation shows: ``BIDSLayout`` with its derivatives
configuration and without validation, which would leave statistic maps out.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAPS = 18


def make_dataset(root, subjects):
    root.mkdir()
    description = {"Name": "benchmark", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    for number in range(subjects):
        folder = root / f"sub-{number:05d}" / "func"
        folder.mkdir(parents=True)
        for run in (1, 2):
            stem = f"sub-{number:05d}_task-x_run-{run}_space-S"
            (folder / f"{stem}_statmap.json").write_text('{"DegreesOfFreedom": 100}')
            for contrast in "abc":
                for kind in ("effect", "variance", "t"):
                    (folder / f"{stem}_contrast-{contrast}_stat-{kind}_statmap.nii.gz").touch()


def find_ours(root, labels, database):
    from ibma_app.core.statmap import Dataset
    from ibma_app.dataset.query import Query, find_statmaps

    return find_statmaps([Dataset("data", root)], Query("participant", labels=labels, database_dir=database))


def find_stock(root):
    from bids.layout import BIDSLayout

    layout = BIDSLayout(str(root), validate=False, config=["bids", "derivatives"])
    return [(one.path, one.get_metadata()) for one in layout.get(suffix="statmap", extension=".nii.gz")]


def measure(side, root):
    import bids.layout  # noqa: F401  both import it; the clock is for indexing

    database = root.parent / "database"
    runs = {
        "ours": lambda: find_ours(root, {}, None),
        "ours, one subject": lambda: find_ours(root, {"sub": ("00001",)}, None),
        "ours, new database": lambda: find_ours(root, {}, database),
        "ours, kept database": lambda: find_ours(root, {}, database),
        "stock PyBIDS": lambda: find_stock(root),
    }
    wall, cpu = time.perf_counter(), time.process_time()
    found = runs[side]()
    row = [time.perf_counter() - wall, time.process_time() - cpu, len(found)]
    print(json.dumps([*row, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=5000)
    parser.add_argument("--skip-stock", action="store_true")
    parser.add_argument("--part", nargs=2, metavar=("SIDE", "ROOT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        measure(options.part[0], Path(options.part[1]))
        return
    sides = ["ours", "ours, one subject", "ours, new database", "ours, kept database"]
    sides += [] if options.skip_stock else ["stock PyBIDS"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        make_dataset(root, options.subjects)
        print(f"{options.subjects} subjects x {MAPS} maps")
        print(f"{'':22}{'wall s':>8}{'CPU s':>8}{'x ours':>8}{'maps':>8}{'peak GiB':>9}")
        first = None
        for side in sides:
            ran = subprocess.run(
                [sys.executable, __file__, "--part", side, str(root)], capture_output=True, text=True, check=True
            )
            wall, cpu, maps, peak = json.loads(ran.stdout.splitlines()[-1])
            first = first or cpu
            print(f"{side:22}{wall:8.2f}{cpu:8.2f}{cpu / first:8.2f}{maps:8d}{peak:9.2f}", flush=True)


if __name__ == "__main__":
    main()
