"""Which voxels the report shows map by map: the extremes of z, and the first clusters' peaks."""

from collections.abc import Mapping, Sequence

import numpy as np

from ibma_app.core.design import Test
from ibma_app.core.estimate import Estimate
from ibma_app.core.results import PeakEvidence
from ibma_app.inference.cluster_table import ClusterRow
from ibma_app.stream.evidence.peak_evidence import read_peaks
from ibma_app.stream.stack import Stack
from ibma_app.workflows.write.maps import Target

MOST_PEAKS, FEWEST_PEAKS, MOST_ROWS = 6, 2, 600
"""Peaks of a test, at most and at least, and rows (peaks times maps) at most: many maps get fewer peaks."""
MOST_TESTS = 8
MOST_REGIONS = 24
"""Peaks of a test where each is a region of a table: those that are significant have a forest plot each."""


def gather_peaks(
    target: Target, stack: Stack, estimate: Estimate, clusters: Mapping[tuple[str, str], Sequence[ClusterRow]]
) -> tuple[PeakEvidence, ...]:
    """Read each map's values at the peaks of the first tests, while the stack is open.

    Parameters
    ----------
    target : Target
    stack : Stack
    estimate : Estimate
        Of the stack's voxels.
    clusters : mapping
        (test, inference) -> rows of its table, in the order of the inferences.
    """
    listed, noun = (MOST_REGIONS, "region") if stack.grid.named else (MOST_PEAKS, "cluster")
    most = max(FEWEST_PEAKS, min(listed, MOST_ROWS // max(1, stack.n_maps)))
    found: list[PeakEvidence] = []
    for test in target.design.tests[:MOST_TESTS]:
        tables = {inference: rows for (name, inference), rows in clusters.items() if name == test.name}
        places = choose_peaks(estimate, test, tables, listed, noun)
        few = dict(list(places.items())[:most])
        found += read_peaks(stack, target.model, estimate, test, few)
    return tuple(found)


def choose_peaks(
    estimate: Estimate,
    test: Test,
    tables: Mapping[str, Sequence[ClusterRow]],
    listed: int = MOST_PEAKS,
    noun: str = "cluster",
) -> dict[int, str]:
    """Choose and name voxels: largest and smallest z, then the peaks of clusters in the order of their numbers.

    Parameters
    ----------
    estimate : Estimate
    test : Test
    tables : mapping of str to sequence of ClusterRow
        Inference -> the rows of its table.
    listed : int
        Clusters of each table, at most.
    noun : str
        What a row of a table is called.

    Returns
    -------
    dict of int to str
        Voxel of the mask -> name; each voxel once.
    """
    fitted = estimate.tests[test.name]
    if not fitted.estimable.any():
        return {}
    z = fitted.z.astype(np.float32)  # single precision, as in the map on disk: the page takes its extremes from there
    places = {int(np.argmax(z)): "largest z"}
    if test.signed:
        places.setdefault(int(np.argmin(z)), "smallest z")
    for inference, rows in tables.items():
        clusters = [row for row in rows if row.cluster_id.isdecimal()]  # not their further peaks
        for row in clusters[:listed]:
            name = f"{noun} {row.cluster_id} ({inference})"
            if row.peak in places and noun not in places[row.peak]:
                places[row.peak] = f"{places[row.peak]}, {name}"
            places.setdefault(row.peak, name)
    return places
