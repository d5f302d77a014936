"""The maps and sidecars of an imported contrast: missing kinds derived, voxels without values blanked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ibma_app import __version__
from ibma_app.core.anatomy.elements import Elements, Shape
from ibma_app.core.errors import DataError
from ibma_app.core.study import ImportedContrast
from ibma_app.images.kinds import refuse_marks, refuse_no_p, refuse_no_statistic, refuse_turned_p, tell_unsigned
from ibma_app.stats.consistency import find_contradictions
from ibma_app.stats.saturated import hold_saturated
from ibma_app.stats.tails import z_to_t
from ibma_app.workflows.write.sidecars import kind_units

Floats = NDArray[np.float64]

DESCRIPTIONS = {
    "effect": "Effect (contrast of parameter estimates)",
    "variance": "Sampling variance of the effect: its squared standard error",
    "t": "t statistic",
    "z": "z statistic",
    "p": "p value",
    "dof": "Degrees of freedom",
}


@dataclass(frozen=True, eq=False)
class ReadyMaps:
    """What is written of one contrast."""

    maps: Mapping[str, Floats]  # kind -> (V,) within the grid's mask, finite, background filled
    grid: Shape
    derived: Mapping[str, str]
    n_covered: int  # voxels that have every kind of map
    notes: tuple[str, ...] = ()  # what was done to the values

    @staticmethod
    def fill(kind: str) -> float:
        """Return the value of background: 1 for p, 0 for the others."""
        return 1.0 if kind == "p" else 0.0


def plan_kinds(contrast: ImportedContrast) -> tuple[str, ...]:
    """Return the kinds of map that are written, without reading any.

    Effect, variance and t where there is an effect; else t, z or p. z is added
    to t where the degrees of freedom are unknown: it cannot be derived then.
    """
    there = set(contrast.maps)
    known = contrast.dof is not None or "dof" in there
    kinds: list[str] = []
    if "effect" in there:
        kinds = ["effect", "variance", "t"] if there & {"variance", "t", "z"} else ["effect", *(there & {"p"})]
    elif there & {"t", "z"}:
        kinds = ["t"] if "t" in there else ["z"]
    elif "p" in there:
        kinds = ["p"]
    if "z" in there and "z" not in kinds and not known:
        kinds.append("z")
    if "dof" in there and kinds:
        kinds.append("dof")
    return tuple(kinds)


def turns_z_into_t(contrast: ImportedContrast) -> bool:
    """Return whether t, and the variance with it, can only come from z: then degrees of freedom are needed."""
    there = set(contrast.maps)
    return {"effect", "z"} <= there and not there & {"variance", "t", "dof"}


def make_ready(contrast: ImportedContrast) -> ReadyMaps:
    """Read a contrast's maps, derive missing kinds, and blank voxels without values.

    The variance is derived as (effect / t)², with t from z where there is no
    t; t as effect / sqrt(variance). A voxel without an effect, variance or t
    is background in all three.

    Raises
    ------
    DataError
        The maps differ in shape, or most signs of effect and t (or z) are opposite.
    """
    wanted = plan_kinds(contrast)
    mask = contrast.grid.mask
    volumes = {kind: _volume(mask, contrast, kind) for kind in contrast.maps}
    _refuse_others(contrast, volumes)
    volumes, saturated = hold_saturated(volumes, _smallest(volumes.get("p")))
    read = {kind: volume[mask].astype(np.float64) for kind, volume in volumes.items()}
    odd = list(find_contradictions(read, read.get("dof", np.inf if contrast.dof is None else contrast.dof)))
    if any(found.hopeless for found in odd):
        raise DataError(
            f"{contrast.name}: {odd[0].text}; read: {', '.join(contrast.sources)}. One of the maps is turned round or "
            "of another contrast: mend it or leave it out."
        )
    derived = dict(contrast.derived)
    with np.errstate(all="ignore"):
        _derive(read, wanted, contrast, derived)
    good = np.ones(int(mask.sum()), dtype=bool)
    for kind in wanted:
        good &= np.isfinite(read[kind]) & (np.abs(read[kind]) < float(np.finfo(np.float32).max))
    if "variance" in wanted:
        good &= read["variance"] > 0
    covered = good & np.logical_or.reduce([read[kind] != ReadyMaps.fill(kind) for kind in wanted if kind != "dof"])
    maps = {kind: np.where(good, read[kind], ReadyMaps.fill(kind)) for kind in wanted}
    kept = {kind: text for kind, text in derived.items() if kind in wanted}
    saturation = (
        f"{kind}: {count} saturated value(s) ({'0' if kind == 'p' else 'infinite'}) taken at the limit of the scale."
        for kind, count in saturated.items()
        if kind in wanted
    )
    notes = (*saturation, *(f"The maps contradict each other: {found.text}." for found in odd))
    unsigned = tell_unsigned(volumes)
    if unsigned:
        notes = (*notes, f"{unsigned[:1].upper()}{unsigned[1:]}")
    if isinstance(contrast.grid, Elements):  # tables have "n/a" where there is no value, and 0 is one
        maps = {kind: values[good] for kind, values in maps.items()}
        return ReadyMaps(maps, contrast.grid.with_mask(good), kept, int(good.sum()), notes)
    return ReadyMaps(maps, contrast.grid, kept, int(covered.sum()), notes)


def _refuse_others(contrast: ImportedContrast, volumes: Mapping[str, NDArray[Any]]) -> None:
    """Refuse what is no map of its kind: masks, labels, 1 - p."""
    read = f"(read: {', '.join(contrast.sources)})"
    names = [Path(source).name for source in contrast.sources] if len(volumes) == 1 else []
    for kind, values in volumes.items():
        refuse_marks(kind, values, f"The {kind} map of {contrast.name} {read}")
        if kind == "effect" and len(volumes) > 1:
            continue  # what has an error or a statistic beside it is no mask
        refuse_no_statistic(kind, values, f"{contrast.name} {read}", names)
    if "p" in volumes:
        refuse_no_p(volumes["p"], f"The p map of {contrast.name} {read}")
        refuse_turned_p(volumes, contrast.tail, f"The p map of {contrast.name} {read}")


def _volume(mask: NDArray[np.bool_], contrast: ImportedContrast, kind: str) -> NDArray[Any]:
    """Read one map."""
    values = np.asarray(contrast.maps[kind])
    if values.shape != mask.shape:
        raise DataError(
            f"{contrast.name}: its {kind} map has the shape {values.shape}, the contrast's other maps {mask.shape}, so "
            f"they are of different analyses (read: {', '.join(contrast.sources)}). Remove what does not belong there."
        )
    return values


def _smallest(p: NDArray[Any] | None) -> float:
    """Return the smallest p that a source can hold; of scaled integers, the smallest that it has."""
    if p is None or p.dtype == np.float32:
        return float(np.finfo(np.float32).smallest_subnormal)
    return float(p.min(where=p > 0, initial=1.0))


def _derive(
    read: dict[str, Floats], wanted: tuple[str, ...], contrast: ImportedContrast, derived: dict[str, str]
) -> None:
    """Derive the kinds that are wanted and missing."""
    if "t" in wanted and "t" not in read and "variance" not in read:
        dof = read.get("dof", contrast.dof if contrast.dof is not None else np.inf)
        read["t"] = z_to_t(read["z"], dof)
        unknown = contrast.dof is None and "dof" not in read
        derived["t"] = "z, taken as t: the degrees of freedom are not known" if unknown else "z and degrees of freedom"
    if "variance" in wanted and "variance" not in read:
        read["variance"] = (read["effect"] / read["t"]) ** 2
        derived["variance"] = "(effect / t)^2" + (", t from z" if "t" in derived else "")
    if "t" in wanted and "t" not in read:
        read["t"] = read["effect"] / np.sqrt(read["variance"])
        derived["t"] = "effect / sqrt(variance)"


def make_sidecar(contrast: ImportedContrast, kind: str, ready: ReadyMaps, software: str, root: Path) -> dict[str, Any]:
    """Make the sidecar of one map."""
    sidecar: dict[str, Any] = {
        "Description": f"{DESCRIPTIONS[kind]}, imported from {software}.",
        "Sources": [locate_source(source, root) for source in contrast.sources],
        "ContrastName": contrast.name,
        "Units": kind_units(kind, contrast.units),
        "UnitsSource": contrast.units_source,
        "ScalingFactor": contrast.scaling_factor,
        "RegressorHeight": contrast.regressor_height,
        "ContrastWeights": dict(contrast.contrast_weights) if contrast.contrast_weights else None,
        "DegreesOfFreedom": "voxelwise" if "dof" in ready.maps else _number(contrast.dof),
        "SampleSize": _number(contrast.sample_size),
        "Tail": contrast.tail if kind == "p" else None,
        "Derived": ready.derived.get(kind),
        "DOI": contrast.publication.doi if contrast.publication else None,
        "Authors": contrast.publication.authors if contrast.publication else None,
        "Title": contrast.publication.title if contrast.publication else None,
        "Notes": [*contrast.notes, *ready.notes] or None,
        "Software": {"Name": software, "ImportedBy": f"ibma-app {__version__}"},
    }
    return {key: value for key, value in sidecar.items() if value not in (None, "")}


def _number(value: float | None) -> float | int | None:
    """Turn whole numbers into int, so that JSON has no decimal point."""
    if value is None:
        return None
    return int(value) if float(value).is_integer() else float(value)


def locate_source(source: str, root: Path) -> str:
    """Return a source as a URI reference: files relative to OUTPUT_DIR, addresses unchanged."""
    if "://" in source:
        return source
    relative = Path(os.path.relpath(os.path.abspath(source), os.path.realpath(root)))  # noqa: PTH100
    return quote(os.fsencode(relative.as_posix()))
