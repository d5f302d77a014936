"""The table of maps of a page, without columns that are the same for all maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ibma_app.core.results import MapSurvey, Results
from ibma_app.core.statmap import Observation, Publication
from ibma_app.report.html import format_number
from ibma_app.report.text.methods_section import share_of_maps

SHOWN_ROWS = 12
"""Maps whose rows are visible; the others are folded."""


@dataclass(frozen=True)
class ScalingFact:
    """The factor by which ibma-import multiplied a map's effects, and why (or why by none)."""

    factor: float | None
    why: str


@dataclass(frozen=True)
class MapRow:
    """One row of the table of maps."""

    label: str  # without what the labels of all maps share
    sample_size: float | None
    dof: str
    dof_source: str
    units: str
    share: float  # percent of the mask
    losses: tuple[tuple[str, int], ...]
    cost: int | None
    derived: tuple[str, ...]
    median_abs_effect: float | None
    median_variance: float | None
    uris: tuple[str, ...]
    publication: Publication | None = None  # None: not known what to cite
    scaling: ScalingFact | None = None  # None: not stated in its sidecar


@dataclass(frozen=True)
class MapsTable:
    """The table of maps: visible and folded rows, the columns in which maps differ, and what holds for all."""

    shown: tuple[MapRow, ...]
    folded: tuple[MapRow, ...]
    columns: frozenset[str]
    sentence: str

    @property
    def rows(self) -> tuple[MapRow, ...]:
        """All rows."""
        return self.shown + self.folded


COLUMNS: dict[str, Callable[[tuple[MapRow, ...]], bool]] = {
    "n": lambda rows: any(row.sample_size is not None for row in rows),
    "dof": lambda rows: len({row.dof for row in rows}) > 1 or len({row.dof_source for row in rows}) > 1,
    "source": lambda rows: len({row.dof_source for row in rows}) > 1,  # under the dof
    "units": lambda rows: len({row.units for row in rows}) > 1,
    "scaling": lambda rows: any(row.scaling is not None for row in rows),
    "coverage": lambda rows: any(row.share != 100.0 or row.losses for row in rows),
    "cost": lambda rows: any(row.cost is not None for row in rows),
    "effect": lambda rows: any(row.median_abs_effect is not None for row in rows),
    "variance": lambda rows: any(row.median_variance is not None for row in rows),
    "reference": lambda rows: any(row.publication is not None for row in rows),
    "derived": lambda rows: any(row.derived for row in rows),
}
"""Column -> whether it is shown, given the rows."""


def maps_table(results: Results) -> MapsTable:
    """List the maps, with what each contributed and lost."""
    aligned = len(results.survey) == len(results.analysis.observations)
    observations = results.analysis.observations if aligned else (None,) * len(results.survey)
    labels = short_labels([row.label for row in results.survey])
    rows = tuple(
        _map_row(survey, label, observation, results)
        for survey, label, observation in zip(results.survey, labels, observations, strict=True)
    )
    columns = frozenset(name for name, useful in COLUMNS.items() if useful(rows))
    keep = len(rows) if len(rows) <= SHOWN_ROWS + 3 else SHOWN_ROWS  # folding three rows or fewer saves no space
    return MapsTable(rows[:keep], rows[keep:], columns, _sentence(rows, columns, results))


def short_labels(labels: Sequence[str]) -> list[str]:
    """Leave out of each label what all have in common: ``sub-01_task-x`` becomes ``sub-01``.

    Labels stay whole where they would not be unique otherwise.
    """
    if len(labels) < 2:
        return list(labels)
    parts = [label.split("_") for label in labels]
    common = set(parts[0]).intersection(*parts[1:])
    short = ["_".join(part for part in one if part not in common) for one in parts]
    return short if all(short) and len(set(short)) == len(set(labels)) else list(labels)


def _coverage_share(survey: MapSurvey, n_voxels: int) -> float:
    """Percent of the mask's voxels that a map covers."""
    return 100.0 * survey.covered / n_voxels if n_voxels else 0.0


def _map_row(survey: MapSurvey, label: str, observation: Observation | None, results: Results) -> MapRow:
    source = observation.dof_source if observation else ""
    return MapRow(
        label=label,
        sample_size=survey.sample_size,
        dof=survey.dof,
        dof_source="" if source in (survey.dof, "unknown") else f"from {source}" if source else "",
        units=survey.units,
        share=_coverage_share(survey, results.grid.n_voxels),
        losses=tuple((reason, count) for reason, count in survey.losses.items() if count),
        cost=survey.cost,
        derived=survey.derived,
        median_abs_effect=survey.median_abs_effect,
        median_variance=survey.median_variance,
        uris=survey.uris,
        publication=observation.publication if observation else None,
        scaling=_scaling_fact(observation) if observation else None,
    )


def _scaling_fact(observation: Observation) -> ScalingFact | None:
    """Read how ibma-import scaled a map: its effects, else the first kind that it has."""
    statmap = observation.statmaps.get("effect") or next(iter(observation.statmaps.values()))
    why, factor = statmap.metadata.get("UnitsSource"), statmap.metadata.get("ScalingFactor")
    if not isinstance(why, str) or not why:
        return None
    return ScalingFact(float(factor) if isinstance(factor, int | float) else None, why)


def _sentence(rows: tuple[MapRow, ...], columns: frozenset[str], results: Results) -> str:
    """Write what holds for all maps, and what the columns mean."""
    if not rows:
        return ""
    voxels = f"the whole mask of {format_number(results.grid.n_voxels)} voxels"
    if "coverage" in columns:
        whole = sum(1 for row in rows if row.share == 100.0)
        parts = [f"{whole} of {len(rows)} maps cover {voxels}."]
    else:
        kept = share_of_maps(results) == 1 and len(rows) > 1
        why = ", because the mask holds only voxels that all maps cover" if kept else ""
        parts = [f"{'Each map covers' if len(rows) > 1 else 'The map covers'} {voxels}{why}."]
    alike = []
    dof = "" if "dof" in columns else rows[0].dof
    source = "" if "source" in columns else rows[0].dof_source
    if dof or source:
        alike.append(" ".join(part for part in ("dof", dof, source) if part))
    if "units" not in columns:
        alike.append(f"units {rows[0].units}")
    if alike:
        parts.append(f"{'All maps' if len(rows) > 1 else 'The map'}: {', '.join(alike)}.")
    if "cost" in columns:
        parts.append(f"Voxels lost to it alone: the mask would have them if this map covered them{_costliest(rows)}.")
    if "scaling" in columns:
        parts.append("Scaled by: what the import multiplied the effects by (the median, where it differs by voxel).")
    if columns & {"effect", "variance"}:
        parts.append("Medians are over the voxels of the mask that the map covers.")
    return " ".join(parts)


def _costliest(rows: tuple[MapRow, ...]) -> str:
    """Name the maps that cost most, wherever in the table they are."""
    costs = sorted(((row.cost, row.label) for row in rows if row.cost), key=lambda one: -one[0])
    named = ", ".join(f"{label} ({format_number(cost)})" for cost, label in costs[:3])
    return f"; most: {named}" if named else ""
