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
MOST_REGIONS, MOST_ROWS_OF_REGIONS = 100, 4000
"""The same where each is a region of a table: every region has a forest plot, as long as they are so few."""


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
    regions = stack.grid.named
    listed, noun = (MOST_REGIONS, "region") if regions else (MOST_PEAKS, "cluster")
    most_rows = MOST_ROWS_OF_REGIONS if regions else MOST_ROWS
    most = max(FEWEST_PEAKS, min(listed, most_rows // max(1, stack.n_maps)))
    found: list[PeakEvidence] = []
    for test in target.design.tests[:MOST_TESTS]:
        tables = {inference: rows for (name, inference), rows in clusters.items() if name == test.name}
        places = choose_peaks(estimate, test, tables, listed, noun)
        if regions:
            strongest = np.argsort(-np.abs(estimate.tests[test.name].z), kind="stable")
            places = {**places, **{int(at): "not significant" for at in strongest if int(at) not in places}}
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
