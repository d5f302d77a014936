"""One map after another: read, converted, brought to the grid, handed over in order."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, DatasetError, IbmaError
from ibma_app.core.grid import Grid
from ibma_app.core.statmap import Observation, StatMap
from ibma_app.stream.convert import COVERED, Converted, convert_maps, kinds_to_open
from ibma_app.stream.hedges import Sample, hedges_g
from ibma_app.stream.load import Geometry, Image, read_image
from ibma_app.stream.regrid import regrid, reorient, same_lattice, smooth
from ibma_app.stream.survey import ReadMap, pack_suspect


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

    def pick(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Take the voxels that may be analysed of a volume on the grid, (V,)."""
        if self.base.size == volume.size:
            return np.ascontiguousarray(volume).reshape(-1)
        if volume.flags.f_contiguous:  # as files are: no copy of the whole volume
            return volume.reshape(-1, order="F").take(self._in_files)
        return volume.reshape(-1).take(self.base)

    @cached_property
    def _in_files(self) -> NDArray[np.intp]:
        """Where those voxels lie in a file, whose first axis runs fastest."""
        shape = self.grid.shape
        return np.ravel_multi_index(np.unravel_index(self.base, shape), shape, order="F")


@dataclass(frozen=True, eq=False)
class Prepared:
    """One map, read and converted: its rows over the base mask."""

    read: ReadMap
    rows: dict[str, NDArray[Any]]  # floats, NaN where not covered
    reasons: NDArray[np.uint8]
    notes: tuple[str, ...]


def prepare_maps(
    observations: Sequence[Observation], plan: Plan, nprocs: int, *, skip: bool
) -> Iterator[Prepared | IbmaError]:
    """Read maps ahead in threads (a few at a time), and hand them over in order."""

    def prepare(index: int) -> Prepared | IbmaError:
        try:
            return _prepare(index, observations[index], plan, skip_empty=skip)
        except IbmaError as error:
            if not skip:
                raise
            label = observations[index].label
            return type(error)(f"{label} is left out: {error.message}" if len(observations) > 1 else error.message)

    if nprocs <= 1 or len(observations) < 2:
        yield from map(prepare, range(len(observations)))
        return
    ahead: deque[Future[Prepared | IbmaError]] = deque()
    with ThreadPoolExecutor(min(nprocs, len(observations))) as pool:
        try:
            for index in range(len(observations)):
                ahead.append(pool.submit(prepare, index))
                if len(ahead) > nprocs:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _prepare(index: int, observation: Observation, plan: Plan, *, skip_empty: bool) -> Prepared:
    """Read one observation's files and give its rows over the base mask."""
    kinds = kinds_to_open(observation, plan.needs)
    volumes, geometry = _read_kinds(observation, kinds)
    rows, chosen, converted, derived = _bring_to_grid(index, observation, volumes, geometry, plan)
    if plan.samples is not None:
        observation = replace(observation, units="hedges-g")
    suspect = pack_suspect(rows, chosen)
    for row in rows.values():
        row[chosen != COVERED] = np.nan
    covered = int(np.count_nonzero(chosen == COVERED))
    notes = converted.notes
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
        tuple(derived),
        converted.dof,
        converted.dof_text,
        converted.signed,
        covered,
        suspect,
    )
    return Prepared(read, rows, chosen, notes)


def _bring_to_grid(
    index: int, observation: Observation, volumes: dict[str, NDArray[Any]], geometry: Geometry, plan: Plan
) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8], Converted, list[str]]:
    """Convert an observation's volumes: rows over the base mask, why voxels fell out, and what was derived."""
    aligned = plan.grid.matches(geometry.affine, geometry.shape)
    turned = not aligned and same_lattice(plan.grid, geometry)
    if not (aligned or turned or plan.interpolate):
        raise DatasetError(
            f"{observation.path} lies on another grid ({' x '.join(map(str, geometry.shape))} voxels) than the "
            f"analysis ({' x '.join(map(str, plan.grid.shape))}). Name a grid for all with --grid FILE."
        )
    if turned:
        volumes = {kind: reorient(volume, geometry, plan.grid) for kind, volume in volumes.items()}
    if (aligned or turned) and not plan.smoothing:  # the usual way: the voxels alone, no volumes in between
        picked = {kind: plan.pick(volume) for kind, volume in volumes.items()}
        converted = convert_maps(observation, picked, plan.needs, default_dof=plan.default_dof, whole=volumes)
        rows, derived = _derive(index, observation, converted, plan)
        return rows, converted.reasons, converted, derived
    converted = convert_maps(observation, volumes, plan.needs, default_dof=plan.default_dof)
    arrays, derived = _derive(index, observation, converted, plan)
    reasons = converted.reasons
    if not (aligned or turned):
        arrays, reasons = regrid(arrays, reasons, geometry, plan.grid)
        derived.append("interpolated to the analysis grid")
    if plan.smoothing:
        arrays["effect"] = smooth(arrays["effect"], reasons == COVERED, plan.smoothing, plan.grid)
        derived.append(f"effect smoothed with FWHM {plan.smoothing:g} mm")
    return {kind: plan.pick(array) for kind, array in arrays.items()}, plan.pick(reasons), converted, derived


def _derive(
    index: int, observation: Observation, converted: Converted, plan: Plan
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Give what was converted, t as Hedges' g and its variance where that is asked for, and words of it."""
    arrays, derived = dict(converted.arrays), [*_computed(observation), *converted.derived]
    if plan.samples is not None:
        arrays["effect"], arrays["variance"] = hedges_g(arrays.pop("t").astype(np.float64), plan.samples[index])
        derived.append("effect and variance as Hedges' g from t and sample size")
    return arrays, derived


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
