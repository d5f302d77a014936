"""Which voxels the report looks at closely: the extremes of z, and the first clusters' peaks."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ibma_app.core.design import Test
from ibma_app.core.estimate import Estimate
from ibma_app.core.grid import Grid
from ibma_app.core.results import PeakEvidence
from ibma_app.stream.peak_evidence import read_peaks
from ibma_app.stream.stack import Stack
from ibma_app.workflows.write.maps import Target

MOST_PEAKS, FEWEST_PEAKS, MOST_ROWS = 6, 2, 600
"""Peaks of a test: fewer where maps are many, so that a page stays small."""
MOST_TESTS = 8

Files = Mapping[tuple[str, str, str], Path]


def gather_peaks(target: Target, stack: Stack, estimate: Estimate, files: Files) -> tuple[PeakEvidence, ...]:
    """Read what each map says at the peaks of the first tests, while the stack is open.

    Parameters
    ----------
    target : Target
    stack : Stack
    estimate : Estimate
        Of the stack's voxels.
    files : mapping
        What was written, the cluster tables among it.
    """
    most = max(FEWEST_PEAKS, min(MOST_PEAKS, MOST_ROWS // max(1, stack.n_maps)))
    found: list[PeakEvidence] = []
    for test in target.design.tests[:MOST_TESTS]:
        places = choose_peaks(target.grid, estimate, test, _tables(files, test.name if target.named_tests else ""))
        few = dict(list(places.items())[:most])
        found += read_peaks(stack, target.model, estimate, test, few)
    return tuple(found)


def choose_peaks(grid: Grid, estimate: Estimate, test: Test, tables: Mapping[str, Path]) -> dict[int, str]:
    """Name the voxels to look at: largest and smallest z, then clusters in the order of their numbers.

    Parameters
    ----------
    grid : Grid
    estimate : Estimate
    test : Test
    tables : mapping of str to Path
        Inference -> its cluster table.

    Returns
    -------
    dict of int to str
        Voxel of the mask -> name; each voxel once.
    """
    fitted = estimate.tests[test.name]
    if not fitted.estimable.any():
        return {}
    z = fitted.z.astype(np.float32)  # as the map on disk has it, from which the page takes its extremes
    places = {int(np.argmax(z)): "largest z"}
    if not test.is_f:
        places.setdefault(int(np.argmin(z)), "smallest z")
    voxels = np.flatnonzero(grid.mask)
    to_voxel = np.linalg.inv(grid.affine)
    for inference, path in tables.items():
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["cluster_id"].isdecimal()]
        for row in rows[:MOST_PEAKS]:
            mm = np.array([float(row["x"]), float(row["y"]), float(row["z"]), 1.0])
            i, j, k = np.rint(to_voxel @ mm)[:3].astype(int).tolist()
            at = int(np.searchsorted(voxels, np.ravel_multi_index((i, j, k), grid.shape)))
            name = f"cluster {row['cluster_id']} ({inference})"
            if at in places and "cluster" not in places[at]:
                places[at] = f"{places[at]}, {name}"
            places.setdefault(at, name)
    return places


def _tables(files: Files, test: str) -> dict[str, Path]:
    """Find a test's cluster tables, in the order of the inferences."""
    return {inference: path for (name, inference, kind), path in files.items() if kind == "clusters" and name == test}
