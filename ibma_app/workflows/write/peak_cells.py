"""The table of a design's cells at the peaks of a test: what the page draws, as numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import special

from ibma_app.core.design import Test
from ibma_app.core.results import CellAtPeak, PeakEvidence, WrittenFile
from ibma_app.dataset.write import save_json, save_tsv
from ibma_app.workflows.write.maps import Target
from ibma_app.workflows.write.sidecars import map_sidecar

COLUMNS = {
    "peak": "The voxel, as the page names it",
    "x": "mm, RAS+",
    "y": "mm, RAS+",
    "z": "mm, RAS+",
    "where": "The structure and its vertex, or the region; voxels of a grid have none",
    "cell": "A combination of the levels of the design's factors; numeric covariates are held at their means",
    "maps": "Maps of the cell that cover the voxel",
    "mean": "The cell's mean as the model estimates it",
    "se": "Its standard error",
    "dof": "Its degrees of freedom",
    "lower": "Lower end of its 95 % interval",
    "upper": "Upper end of its 95 % interval",
}


def write_cells(target: Target, peaks: Sequence[PeakEvidence]) -> list[WrittenFile]:
    """Write a table for each test that has cells at its peaks."""
    files = []
    for test in target.design.tests:
        rows = [row for peak in peaks if peak.test == test.name for row in _rows(peak)]
        columns = [name for name in COLUMNS if name != "where" or any(row["where"] for row in rows)]
        if not rows:
            continue
        path = target.path("cells", ".tsv", test=test.name)
        written = save_tsv(target.output, path, columns, rows)
        _describe(target, test, path, columns)
        files.append(WrittenFile(test.name if target.named_tests else "", "", "cells", written))
    return files


def _describe(target: Target, test: Test, path: Any, columns: Sequence[str]) -> None:
    """Write the table's sidecar: voxels were chosen for being extreme, and intervals do not allow for that."""
    common = map_sidecar(
        target.common, "effect", target.units, test=test, design=target.design, dof=None, tail=test.tail
    )
    words = (
        "Means of the design's cells at the peaks of the test, chosen for being extreme. Intervals of two cells do not "
        "say how sure their difference is: the test does."
    )
    described = {name: {"Description": text} for name, text in COLUMNS.items() if name in columns}
    save_json(target.output, path.with_suffix(".json"), {**common, "Description": words, **described})


def _rows(peak: PeakEvidence) -> Iterator[dict[str, Any]]:
    there = {row.row for row in peak.maps}
    x, y, z = peak.xyz
    for cell in peak.cells:
        yield {
            "peak": peak.name, "x": x, "y": y, "z": z, "where": peak.where, "cell": cell.name,
            "maps": len(there.intersection(cell.rows)),
            **_estimates(cell),
        }  # fmt: skip


def _estimates(cell: CellAtPeak) -> dict[str, float | None]:
    """Return a cell's mean, its error and its 95 % interval (of t where there are dof)."""
    mean, variance, dof = cell.combined.effect, cell.combined.variance, cell.combined.dof
    if mean is None or variance is None or not variance > 0.0:
        return {"mean": mean, "se": None, "dof": dof, "lower": None, "upper": None}
    half = -float(special.stdtrit(np.inf if dof is None else dof, 0.025)) * variance**0.5
    return {"mean": mean, "se": variance**0.5, "dof": dof, "lower": mean - half, "upper": mean + half}
