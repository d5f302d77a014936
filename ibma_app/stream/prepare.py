"""One map after another: read, converted, brought to the grid, handed over in order."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.coverage import COVERED, Indices, Reasons
from ibma_app.core.errors import DataError, DatasetError, IbmaError
from ibma_app.core.grid import Grid
from ibma_app.core.statmap import Observation, StatMap
from ibma_app.images.read import Geometry, Image, read_image
from ibma_app.images.regrid import regrid, reorient, same_lattice, smooth
from ibma_app.stream.convert import Converted, convert_maps, kinds_to_open
from ibma_app.stream.hedges_g import Sample, hedges_g
from ibma_app.stream.memory_plan import MemoryNeeds
from ibma_app.stream.survey import ReadMap, pack_suspect


class Wanted:
    """Picks voxels of flat volumes; and remembers which of them the last map covered, as maps are often alike there.

    Parameters
    ----------
    at : ndarray of int, (V,)
        Flat indices of the voxels that are wanted, in the order of the result.
    """

    def __init__(self, at: Indices) -> None:
        self._at = at
        self._last: tuple[Reasons, tuple[Reasons, Indices, Indices]] | None = None

    def __call__(self, reasons: Reasons) -> tuple[Reasons, Indices, Indices]:
        """Give the wanted voxels' reasons (V,), which of them are covered (N,), and where in the volumes those are.

        The same arrays for maps that are alike: they are not to be written to.
        """
        last = self._last
        if last is not None and np.array_equal(last[0], reasons):
            return last[1]
        wanted = reasons.take(self._at)
        inside = np.flatnonzero(wanted == COVERED)
        found = wanted, inside, self._at.take(inside)
        self._last = reasons, found
        return found


@dataclass(frozen=True)
class Plan:
    """What is asked of every map."""

    grid: Grid
    needs: tuple[str, ...]
    base: NDArray[np.int64]  # flat indices of the voxels that may be analysed
    interpolate: bool
    smoothing: float
    default_dof: float | None
    samples: tuple[Sample, ...] | None = None  # with them, t becomes Hedges' g

    @cached_property
    def in_files(self) -> Wanted:
        """Those voxels, as they lie in a file, whose first axis runs fastest."""
        shape = self.grid.shape
        return Wanted(np.ravel_multi_index(np.unravel_index(self.base, shape), shape, order="F"))


@dataclass(frozen=True, eq=False)
class Prepared:
    """One map, read and converted."""

    read: ReadMap
    values: Mapping[str, NDArray[Any]]  # (N,) floats at the voxels that it covers
    covered: Indices  # (N,) which of the base mask's they are, ascending
    reasons: Reasons  # (V,) over the base mask
    notes: tuple[str, ...]
    volume: int  # voxels of its files
    worked: bool  # whether whole volumes were worked on


def prepare_maps(
    observations: Sequence[Observation], plan: Plan, readers: int, *, skip: bool, wanted: range | None = None
) -> Iterator[Prepared | IbmaError]:
    """Read maps (those ``wanted``) ahead in threads, a few at a time, and hand them over in order."""
    indices = range(len(observations)) if wanted is None else wanted

    def prepare(index: int) -> Prepared | IbmaError:
        try:
            return _prepare(index, observations[index], plan, skip_empty=skip)
        except IbmaError as error:
            if not skip:
                raise
            label = observations[index].label
            return type(error)(f"{label} is left out: {error.message}" if len(observations) > 1 else error.message)

    if readers <= 1 or len(indices) < 2:
        yield from map(prepare, indices)
        return
    ahead: deque[Future[Prepared | IbmaError]] = deque()
    with ThreadPoolExecutor(min(readers, len(indices))) as pool:
        try:
            for index in indices:
                ahead.append(pool.submit(prepare, index))
                if len(ahead) > readers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _prepare(index: int, observation: Observation, plan: Plan, *, skip_empty: bool) -> Prepared:
    """Read one observation's files and give its values within the base mask."""
    kinds = kinds_to_open(observation, plan.needs)
    volumes, geometry = _read_kinds(observation, kinds)
    converted, worked = _bring_to_grid(index, observation, volumes, geometry, plan)
    if plan.samples is not None:
        observation = replace(observation, units="hedges-g")
    notes, covered = converted.notes, converted.covered.size
    if not covered:
        empty = f"{observation.path} has no voxel with a value within the mask (all are 0, NaN or outside of it)."
        if skip_empty:
            raise DataError(empty)
        notes = (*notes, empty)
    uris = tuple(uri for kind in kinds for uri in observation.statmaps[kind].uris)
    read = ReadMap(
        index,
        observation,
        uris,
        (*_computed(observation), *converted.derived),
        converted.dof,
        converted.dof_text,
        converted.signed,
        covered,
        pack_suspect(converted.values, converted.reasons),
    )
    volume = math.prod(geometry.shape)
    return Prepared(read, converted.values, converted.covered, converted.reasons, notes, volume, worked)


def weigh_maps(
    observations: Sequence[Observation], plan: Plan, kept: int, first: Prepared | IbmaError, early: int
) -> MemoryNeeds:
    """Tell what an analysis takes, judged by its first map.

    Parameters
    ----------
    observations : sequence of Observation
    plan : Plan
    kept : int
        Kinds of map that are stacked.
    first : Prepared or IbmaError
        The first map; an error where there is none.
    early : int
        How many maps cover between them every voxel of the mask.
    """
    n_maps, base = len(observations), plan.base.size
    covered, volume, worked = base, 0, False
    if isinstance(first, Prepared):
        covered, volume, worked = first.covered.size, first.volume, first.worked
    # Where every map must cover a voxel, no mask is larger than the first map's; else this is a guess.
    voxels = covered if early == 1 else min(base, int(1.25 * covered))
    kept += any("dof" in observation.statmaps for observation in observations)
    computed = any(one.statmaps["effect"].terms for one in observations[:1] if "effect" in one.statmaps)
    return MemoryNeeds(
        n_maps=n_maps,
        volume=max(plan.grid.mask.size, volume),
        base=base,
        voxels=voxels,
        stacked=(early * base + (n_maps - early) * (voxels if early == 1 else base)) * (4 * kept + 1),
        opened=max(len(observation.statmaps) for observation in observations),
        kept=kept,
        volumes=computed or worked,
    )


def _bring_to_grid(
    index: int, observation: Observation, volumes: dict[str, NDArray[Any]], geometry: Geometry, plan: Plan
) -> tuple[Converted, bool]:
    """Give what lies in the base mask, converted; and tell whether whole volumes were worked on."""
    aligned = plan.grid.matches(geometry.affine, geometry.shape)
    turned = not aligned and same_lattice(plan.grid, geometry)
    if not (aligned or turned or plan.interpolate):
        raise DatasetError(
            f"{observation.path} lies on another grid ({' x '.join(map(str, geometry.shape))} voxels) than the "
            f"analysis ({' x '.join(map(str, plan.grid.shape))}). Name a grid for all with --grid FILE."
        )
    if turned:
        volumes = {kind: reorient(volume, geometry, plan.grid) for kind, volume in volumes.items()}
    if (aligned or turned) and not plan.smoothing:  # the usual way: the files' order, and no volumes in between
        flat = {kind: volume.reshape(-1, order="F") for kind, volume in volumes.items()}
        converted = convert_maps(observation, flat, plan.needs, default_dof=plan.default_dof, wanted=plan.in_files)
        return _standardise(index, converted, plan), False
    converted = _standardise(index, convert_maps(observation, volumes, plan.needs, default_dof=plan.default_dof), plan)
    arrays, reasons, derived = converted.arrays, converted.reasons, list(converted.derived)
    if not (aligned or turned):
        arrays, reasons = regrid(arrays, reasons, geometry, plan.grid)
        derived.append("interpolated to the analysis grid")
    if plan.smoothing:
        arrays["effect"] = smooth(arrays["effect"], reasons == COVERED, plan.smoothing, plan.grid)
        derived.append(f"effect smoothed with FWHM {plan.smoothing:g} mm")
    chosen = reasons.reshape(-1).take(plan.base)
    covered = np.flatnonzero(chosen == COVERED)
    values = {kind: array.reshape(-1).take(plan.base.take(covered)) for kind, array in arrays.items()}
    return replace(converted, values=values, covered=covered, reasons=chosen, derived=tuple(derived)), True


def _standardise(index: int, converted: Converted, plan: Plan) -> Converted:
    """Turn t into Hedges' g and its variance, where that is asked for."""
    if plan.samples is None:
        return converted
    values = dict(converted.values)
    values["effect"], values["variance"] = hedges_g(values.pop("t").astype(np.float64), plan.samples[index])
    derived = (*converted.derived, "effect and variance as Hedges' g from t and sample size")
    return replace(converted, values=values, derived=derived)


def _computed(observation: Observation) -> list[str]:
    """Say how a computed effect is made of contrasts."""
    terms = observation.statmaps["effect"].terms if "effect" in observation.statmaps else ()
    if not terms:
        return []
    return ["effect computed as " + " + ".join(f"{w:g} * {term.entities['contrast']}" for w, term in terms)]


def _read_statmap(statmap: StatMap) -> Image:
    """Read a map, or compute it from others (``--compute``): covered where all of them are."""
    if not statmap.terms:
        return read_image(statmap.path)
    total: NDArray[Any] | None = None
    first: Image | None = None
    for weight, term in statmap.terms:
        image = read_image(term.path)
        first = first or image
        if not first.geometry.as_grid().matches(image.geometry.affine, image.geometry.shape):
            raise DatasetError(f"{term.path} lies on another grid than {statmap.path}, with which it is computed.")
        values = np.where(image.data == 0, np.nan, weight * image.data.astype(np.float64))
        total = values if total is None else total + values
    if first is None or total is None:
        raise ValueError("A computed map has no terms.")
    total[total == 0] = np.finfo(np.float32).tiny  # an exact 0 would be taken for background
    return Image(total, first.geometry)


def _read_kinds(observation: Observation, kinds: Sequence[str]) -> tuple[dict[str, NDArray[Any]], Geometry]:
    """Open the files of one observation, all in the voxel order of the first."""
    volumes: dict[str, NDArray[Any]] = {}
    reference: Geometry | None = None
    for kind in kinds:
        path = observation.statmaps[kind].path
        image = _read_statmap(observation.statmaps[kind])
        if reference is None:
            reference = image.geometry
        volumes[kind] = image.data
        grid = reference.as_grid()
        if grid.matches(image.geometry.affine, image.geometry.shape):
            continue
        if not same_lattice(grid, image.geometry):
            raise DatasetError(
                f"{path} lies on another grid than {observation.statmaps[kinds[0]].path}, though both are of "
                f"{observation.label}. Provide both on one grid."
            )
        volumes[kind] = reorient(image.data, image.geometry, grid)
    if reference is None:
        raise DataError(f"{observation.label}: nothing to read.")
    return volumes, reference
