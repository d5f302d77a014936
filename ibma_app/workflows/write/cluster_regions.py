"""Names of regions in the cluster tables of a finished analysis, by other atlases."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.anatomy.elements import require_grid
from ibma_app.core.errors import DataError
from ibma_app.core.estimate import Field
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import NeighbourFacts, find_fact
from ibma_app.core.results import EstimatorResult, Results, WrittenFile
from ibma_app.dataset.output_dir import Output
from ibma_app.dataset.write import save_json, save_tsv
from ibma_app.inference.clusters import find_clusters
from ibma_app.inference.regions import (
    NOWHERE,
    composition_columns,
    describe_composition,
    describe_places,
    region_columns,
)
from ibma_app.report.maps import ResultMaps

OF_ATLASES = ("region", "composition")  # how the columns begin that an atlas fills

Rows = list[dict[str, Any]]
Places = NDArray[np.float64]  # (N, 3), mm


def rename_regions(output: Output, results: Results, atlases: Sequence[Atlas]) -> Results:
    """Write the cluster tables of an analysis anew, with the regions of these atlases instead of those they have.

    Returns
    -------
    Results
        With the sources of these atlases.

    Raises
    ------
    DataError
        A table, its sidecar or its maps are not as this program wrote them.
    ReadWriteError, OutputError
        A table cannot be written.
    """
    for result in results.estimators:
        for file in (file for file in result.files if file.kind == "clusters"):
            _rename(output, results.seen_by(result), result, file, atlases)
    return replace(results, atlases=tuple(atlas.source for atlas in atlases))


def _rename(
    output: Output, results: Results, result: EstimatorResult, file: WrittenFile, atlases: Sequence[Atlas]
) -> None:
    """Write one table and its sidecar."""
    try:
        head, rows, content = _read(file.path)
        peaks = np.array([[float(row[axis]) for axis in "xyz"] for row in rows]).reshape(-1, 3)
        clusters = _members(results, result, file, rows, peaks) if rows and atlases else {}
        at = head.index(next(name for name in head if name.startswith(OF_ATLASES)))
        described = {start: next(v for k, v in content.items() if k.startswith(start)) for start in OF_ATLASES}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration):
        raise DataError(
            f"{file.path} (with its sidecar and maps) is not as ibma-app wrote it, so its peaks cannot be given "
            "regions. Run the analysis again, with the atlas."
        ) from None
    columns: dict[str, Any] = {}
    for start, names in zip(OF_ATLASES, (region_columns(atlases), composition_columns(atlases)), strict=True):
        columns |= dict.fromkeys(names, described[start])
    _fill(rows, peaks, clusters, atlases)
    others = [name for name in head if not name.startswith(OF_ATLASES)]
    below = file.path.relative_to(output.root)
    save_tsv(output, below, [*others[:at], *columns, *others[at:]], rows)
    sidecar: dict[str, Any] = {}
    for key, value in content.items():
        sidecar |= columns if key.startswith(OF_ATLASES) else {key: value}
    save_json(output, below.with_suffix(".json"), sidecar | {"Atlas": [atlas.name for atlas in atlases]})


def _read(path: Path) -> tuple[list[str], Rows, Mapping[str, Any]]:
    """Read a table and its sidecar."""
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        rows: Rows = [dict(row) for row in reader]
    return list(reader.fieldnames or ()), rows, json.loads(path.with_suffix(".json").read_bytes())


def _fill(rows: Rows, peaks: Places, clusters: Mapping[int, Places], atlases: Sequence[Atlas]) -> None:
    """Fill the columns of the atlases: of each peak its region, of each cluster what it consists of."""
    for row in rows:
        row |= dict.fromkeys((*region_columns(atlases), *composition_columns(atlases)), NOWHERE)
    for region, composition, atlas in zip(region_columns(atlases), composition_columns(atlases), atlases, strict=False):
        for number, (row, name) in enumerate(zip(rows, describe_places(atlas, peaks), strict=True)):
            row[region] = name
            if number in clusters:
                row[composition] = describe_composition(atlas, clusters[number])


def _members(
    results: Results, result: EstimatorResult, file: WrittenFile, rows: Rows, peaks: Places
) -> dict[int, Places]:
    """Find the voxels of each cluster in the maps: row -> places in mm.

    Raises
    ------
    ValueError
        There are no clusters of these sizes at these peaks.
    """
    grid, tests = require_grid(results.grid, "--atlas"), results.design.tests
    test = next((test for test in tests if test.name == file.test), tests[0])
    maps = ResultMaps(result, grid, results.design, test)
    back = np.linalg.inv(grid.affine)
    voxels = np.rint(peaks @ back[:3, :3].T + back[:3, 3]).astype(np.int64)
    numbers = np.full(grid.shape, -1)
    numbers[grid.mask] = np.arange(grid.n_voxels)
    at_peaks = numbers[tuple(voxels.T)]
    sizes = {row: int(cells["n_voxels"]) for row, cells in enumerate(rows) if cells["n_voxels"] != NOWHERE}
    finding = next(f for f in result.findings if (f.test, f.inference.name) == (file.test, file.inference))
    fact = find_fact(finding.facts, NeighbourFacts)
    z = _vector(maps, grid, "z")
    field = Field(z, test.tail, np.ones(z.size, dtype=bool), grid, np.zeros(z.size))
    for marked in _marked(maps, grid, file.inference, float(results.settings["cluster_p"])):
        for neighbours in (fact.neighbours,) if fact else (26, 18, 6):
            found = find_clusters(field, marked, neighbours)
            of_voxel = np.full(z.size, -1)
            of_voxel[found.voxels] = found.labels
            clusters = {row: of_voxel[at_peaks[row]] for row in sizes}
            if all(clusters[row] >= 0 and found.sizes[clusters[row]] == size for row, size in sizes.items()):
                indices = np.argwhere(grid.mask)
                return {
                    row: indices[of_voxel == cluster] @ grid.affine[:3, :3].T + grid.affine[:3, 3]
                    for row, cluster in clusters.items()
                }
    raise ValueError("no such clusters")


def _marked(maps: ResultMaps, grid: Grid, inference: str, cluster_p: float) -> Iterator[NDArray[np.bool_]]:
    """List which voxels may have formed the clusters: the significant ones, or those below the cluster-forming p."""
    yield _vector(maps, grid, "mask", inference) > 0
    yield _vector(maps, grid, "log10p") >= -math.log10(cluster_p) * (1 - 1e-6)  # the file has single precision


def _vector(maps: ResultMaps, grid: Grid, kind: str, inference: str = "") -> NDArray[np.float64]:
    volume = maps.volume(kind, inference)
    if volume is None:
        raise KeyError(kind)
    return np.asarray(grid.to_vector(volume), dtype=np.float64)
