"""Cluster tables of a page: the first rows of the files, and the largest clusters."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibma_app.core.methods import ClusterColumn

CLUSTER_ROWS = 12
"""Rows of a cluster table that a page shows; the TSV has all."""

LARGEST = 5
"""Clusters that a page names first."""

CLUSTER_COLUMNS = {
    "cluster_id": "Cluster",
    "structure": "Structure",
    "vertex": "Vertex",
    "x": "x (mm)",
    "y": "y (mm)",
    "z": "z (mm)",
    "peak_z": "Peak z",
    "mean_z": "Mean z",
    "peak_effect": "Peak effect",
    "log10p": "−log10 p",
    "area_mm2": "Area (mm²)",
    "volume_mm3": "Volume (mm³)",
    "n_voxels": "Voxels",
    "region": "Region",
    "peak_g": "Peak g",
    "peak_g_lower": "95 % from",
    "peak_g_upper": "to",
    "peak_eta2": "Peak η²",
    "peak_eta2_lower": "95 % from",
    "peak_eta2_upper": "to",
}
"""Column of a cluster table -> its name on a page; ``region_<atlas>`` is ``Region (<atlas>)``."""

REGION, COMPOSITION = "region", "composition"
"""Columns of text: there are some even without an atlas. What a cluster consists of stands under its region."""

OF_SHAPES = (REGION, "structure", "vertex", "area_mm2", "volume_mm3", "x", "y", "z")
"""Columns that pages leave out where no row has a value: what maps lie on has no such thing."""

TEXTS = (REGION, "structure")
"""Beginnings of the names of columns of text."""

MISSING = "n/a"

Place = tuple[float, float, float]


@dataclass(frozen=True)
class Cluster:
    """One cluster, as a sentence tells it."""

    number: str
    n_voxels: int
    place: Place | None  # mm
    peak_z: float | None
    region: str  # "" without an atlas
    structure: str = ""  # "" in volumes, which have none


@dataclass(frozen=True)
class ClusterTable:
    """The first rows of a cluster table, and the file that has the rest."""

    columns: tuple[tuple[str, bool], ...]  # name on the page, whether it holds numbers
    rows: tuple[tuple[str, ...], ...]
    values: tuple[tuple[str, ...], ...]  # of the same cells, as in the file; "" where there are none
    below: tuple[tuple[str, ...], ...]  # what stands under a cell: "" where nothing does
    places: tuple[Place | None, ...]  # mm of each row
    n_rows: int
    n_clusters: int
    href: str  # relative to the page
    largest: tuple[Cluster, ...] = ()

    @property
    def single(self) -> bool:
        """Whether each cluster is one element, as regions of a table are: then it is no cluster to speak of."""
        return _are_single(self.largest)


def _are_single(largest: Sequence[Cluster]) -> bool:
    return bool(largest) and largest[0].n_voxels == 1 and largest[0].place is None


def read_clusters(path: Path, page_folder: Path, own: Sequence[ClusterColumn] = ()) -> ClusterTable | None:
    """Read the first rows of a cluster table, with the columns of its inference; None when the file is gone."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = [line for line in csv.reader(stream, delimiter="\t") if line]
    except OSError:
        return None
    if not lines:
        return None
    head, body = lines[0], lines[1:]
    labels = {**CLUSTER_COLUMNS, **{column.name: column.label for column in own}}
    shares = {column.name for column in own if column.percent}
    largest = _largest([dict(zip(head, line, strict=False)) for line in body if line[0].isdecimal()])
    if _are_single(largest):
        labels["cluster_id"] = "Number"
    shown = body[:CLUSTER_ROWS]
    kept = [
        index
        for index, name in enumerate(head)
        if not name.startswith(COMPOSITION)
        and not (name == "n_voxels" and _are_single(largest))
        and (not name.startswith(OF_SHAPES) or any(line[index] != MISSING for line in body))
    ]
    under = [_composition_column(head, index) for index in kept]
    return ClusterTable(
        columns=tuple((_column_name(head[index], labels), not head[index].startswith(TEXTS)) for index in kept),
        rows=tuple(tuple(_cell(head[i], line[i], share=head[i] in shares) for i in kept) for line in shown),
        values=tuple(tuple(line[i] if line[i] != MISSING else "" for i in kept) for line in shown),
        below=tuple(
            tuple(line[one] if one is not None and line[one] != MISSING else "" for one in under) for line in shown
        ),
        places=tuple(_place(dict(zip(head, line, strict=False))) for line in shown),
        n_rows=len(body),
        n_clusters=sum(1 for line in body if line[0].isdecimal()),  # sub-peaks have letters: 1a
        href=relative_to_page(path, page_folder),
        largest=largest,
    )


def _composition_column(head: Sequence[str], index: int) -> int | None:
    """Find the column that says what the clusters of a region column consist of."""
    kind, _, atlas = head[index].partition("_")
    name = f"{COMPOSITION}_{atlas}" if atlas else COMPOSITION
    return head.index(name) if kind == REGION and name in head else None


def _largest(rows: Sequence[Mapping[str, str]]) -> tuple[Cluster, ...]:
    """Pick the clusters of most voxels, the largest first."""
    clusters = [
        Cluster(
            number=row["cluster_id"],
            n_voxels=int(_number(row.get("n_voxels")) or 0),
            place=_place(row),
            peak_z=_number(row.get("peak_z")),
            region=next((cell for name, cell in row.items() if name.startswith(REGION) and cell != MISSING), ""),
            structure=row["structure"] if row.get("structure", MISSING) != MISSING else "",
        )
        for row in rows
    ]
    return tuple(sorted(clusters, key=lambda one: -one.n_voxels)[:LARGEST])  # of one size: in the order of the table


def _number(cell: str | None) -> float | None:
    try:
        number = float(cell or MISSING)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _place(row: Mapping[str, str]) -> Place | None:
    """Position of a row's peak, in mm."""
    try:
        x, y, z = (float(row[axis]) for axis in "xyz")
    except (KeyError, ValueError):
        return None
    return (x, y, z) if np.isfinite((x, y, z)).all() else None


def _column_name(column: str, labels: Mapping[str, str]) -> str:
    """Name a column of a cluster table for the page."""
    kind, _, atlas = column.partition("_")
    return f"{labels[kind]} ({atlas})" if kind == REGION and atlas else labels.get(column, column)


def _cell(column: str, cell: str, *, share: bool) -> str:
    """Write a cell for the page: a dash where it is empty, proportions in percent."""
    if cell == MISSING:
        return "–"
    if column.startswith(TEXTS) or column in ("cluster_id", "vertex"):
        return cell
    number = _number(cell)
    if number is None:
        return cell
    if share:
        return f"{100 * number:.1f}"
    if column in ("x", "y", "z"):
        return f"{number:.1f}"
    if column in ("area_mm2", "volume_mm3", "n_voxels"):
        return f"{number:,.0f}"
    return cell if len(cell) <= 7 else f"{number:.4g}"


def relative_to_page(path: Path, page_folder: Path) -> str:
    """Path of a file, relative to the page (pages lie at the top of the dataset)."""
    return path.relative_to(page_folder).as_posix() if path.is_relative_to(page_folder) else path.as_posix()
