"""Reads maps one by one, converts them to what estimators need, and brings them to the analysis grid."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape, require_grid
from ibma_app.core.block import COVERED, MIN_COVERAGE, Indices, Reasons
from ibma_app.core.errors import DataError, DatasetError, IbmaError, Note
from ibma_app.core.results import INTERPOLATED
from ibma_app.core.statmap import Observation, StatMap
from ibma_app.core.system.threads import in_order
from ibma_app.images.elements.formats import MapValues, read_map
from ibma_app.images.kinds import check_kinds, keep_zeros, tell_unsigned
from ibma_app.images.placement import APART, ELSEWHERE, SIZES, UNPLACED, outside_brain
from ibma_app.images.read import SMALLEST
from ibma_app.images.regrid import LATTICE, regrid, reorient, same_lattice, smooth, tell_apart, voxels_apart
from ibma_app.images.spaces import lies_in_mni152
from ibma_app.stats.consistency import find_contradictions
from ibma_app.stats.saturated import hold_saturated
from ibma_app.stream.convert import Converted, convert_maps, is_settled_by_maps, kinds_to_open, settle_dof
from ibma_app.stream.grid_and_mask import VoxelSelection, tell_other_elements, tell_other_kind
from ibma_app.stream.hedges_g import Sample, standardise
from ibma_app.stream.memory_plan import MemoryNeeds
from ibma_app.stream.survey import ReadMap, pack_suspect

ROW_KINDS = ("effect", "variance", "z")
GIVEN = "given"  # the row of a study's effects as they were given, where others are combined


@dataclass(frozen=True)
class Plan:
    """How the maps of one analysis are read, and brought to one grid."""

    grid: Shape  # its mask: the voxels that may be analysed
    needs: tuple[str, ...]  # of "effect", "variance", "z", "dof", "sample_size": all that the estimators need
    unit: str  # what one map is: "run", "subject" or "study"
    min_coverage: float | None = None  # share of the maps that must cover a voxel; None: the unit's default
    regrid: bool = False  # interpolate maps of other grids, also those of runs and subjects
    smoothing: float = 0.0  # FWHM of the kernel for effect maps, mm
    samples: tuple[Sample, ...] | None = None  # one per map: t becomes Hedges' g and its variance

    @property
    def share(self) -> float:
        """Share of the maps that must cover a voxel."""
        return MIN_COVERAGE[self.unit] if self.min_coverage is None else self.min_coverage

    @property
    def interpolates(self) -> bool:
        """Whether maps of other grids are brought to the grid; else they are errors."""
        return self.regrid or self.unit == "study"

    @property
    def leaves_out(self) -> bool:
        """Whether a map that lacks something or cannot be read is named and left out while another remains."""
        return self.unit == "run"

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are stacked, of "effect", "variance", "z"."""
        return tuple(kind for kind in ROW_KINDS if kind in self.needs)

    @property
    def keeps_given(self) -> bool:
        """Whether studies' own effects are kept to be compared, as z or standardised effects are combined."""
        return self.unit == "study" and (self.samples is not None or "effect" not in self.needs)

    @cached_property
    def read_needs(self) -> tuple[str, ...]:
        """What has to be read: t instead of effects and variances, where they are standardised."""
        every = tuple(need for need in (*ROW_KINDS, "dof", "sample_size") if need in self.needs)
        if self.samples is None:
            return every
        return ("t", *(need for need in every if need not in ("effect", "variance")))

    @cached_property
    def base(self) -> NDArray[np.int64]:
        """Flat indices of the voxels that may be analysed."""
        return np.flatnonzero(self.grid.mask)

    @cached_property
    def in_files(self) -> VoxelSelection:
        """Picks these voxels from flat volumes in file order (the first axis runs fastest)."""
        return VoxelSelection(self.grid.file_order)


@dataclass(frozen=True, eq=False)
class Prepared:
    """One map, read and converted."""

    read: ReadMap
    values: Mapping[str, NDArray[Any]]  # (N,) floats at the voxels that it covers
    covered: Indices  # (N,) their indices in the base mask, ascending
    reasons: Reasons  # (V,) over the base mask
    notes: tuple[Note, ...]
    volume: int  # voxels of a file
    interpolated: bool  # or smoothed: whole volumes were in memory


class Opened(NamedTuple):
    """The files of one observation."""

    volumes: dict[str, NDArray[Any]]  # kind -> (X, Y, Z), or (N,) of elements
    grid: Shape  # of all of them
    notes: tuple[Note, ...]  # on saturated values
    remarks: dict[str, str]  # on their headers, as in `ibma_app.images.placement.WORDS`


class LeftOut(NamedTuple):
    """A map that is left out, and why."""

    observation: Observation
    error: IbmaError

    @property
    def note(self) -> Note:
        """The reason in words that maps of one fault share, and the file that it concerns."""
        paths = [path for statmap in self.observation.statmaps.values() for path in statmap.files]
        file = next((path for path in paths if str(path) in self.error.message), self.observation.path)
        why = self.error.message.removeprefix(f"{file}: ").replace(str(file), "it")
        label, unit = self.observation.label, self.observation.unit_label
        named = file.name if unit in file.name else f"{label} ({file})"
        return Note(f"left out: {why.replace(label, 'it')}", {named: ""})


def prepare_maps(
    observations: Sequence[Observation], plan: Plan, readers: int, first: int = 0
) -> Iterator[Prepared | LeftOut]:
    """Read maps in threads, from the ``first`` on, and yield them in order; those that are left out, too."""

    def prepare(index: int) -> Prepared | LeftOut:
        try:
            return _prepare(index, observations[index], plan)
        except IbmaError as error:
            if not plan.leaves_out:
                raise
            return LeftOut(observations[index], error)

    yield from in_order(prepare, range(first, len(observations)), readers)


def _prepare(index: int, observation: Observation, plan: Plan) -> Prepared:
    """Read one observation's files, and return its values within the base mask."""
    kinds = kinds_to_open(observation, plan.read_needs)
    opened = _read_kinds(observation, kinds)
    everything = {**opened.volumes, **_read_others(index, observation, opened, plan)}
    check_kinds(observation, everything)
    observation, inferred, odd_dof = settle_dof(observation, everything, plan.read_needs)
    odd = (*odd_dof, *_contradictions(observation, everything))
    given = everything.get("effect") if plan.keeps_given else None
    converted, interpolated = _bring_to_grid(index, observation, opened, plan, given)
    if plan.samples is not None:
        observation = replace(observation, units="hedges-g")
    notes, covered = (*opened.notes, *odd, *converted.notes), converted.covered.size
    if not covered:
        empty = "no voxel has a value within the mask (all are 0, NaN or outside of it)."
        if plan.leaves_out:
            raise DataError(f"{observation.path}: {empty}")
        notes = (*notes, Note(empty, {observation.label: str(observation.path)}))
    uris = tuple(uri for kind in kinds for uri in observation.statmaps[kind].uris)
    read = ReadMap(
        index,
        observation,
        uris,
        (*_computed(observation), *inferred, *converted.derived),
        converted.signed,
        covered,
        pack_suspect(converted.values, converted.reasons),
        {**opened.remarks, **_remarks(observation, opened, plan)},
    )
    volume = math.prod(opened.grid.shape)
    return Prepared(read, converted.values, converted.covered, converted.reasons, notes, volume, interpolated)


def _remarks(observation: Observation, opened: Opened, plan: Plan) -> dict[str, str]:
    """Describe what is unusual about a map's position (`ibma_app.images.placement`)."""
    remarks: dict[str, str] = {}
    grid, source = plan.grid.box, opened.grid.box
    if grid is None or source is None:
        return remarks
    apart = voxels_apart(grid, source)
    if LATTICE * float(grid.voxel_sizes.min()) < apart < math.inf:
        remarks[APART] = f"{apart:.2g} mm"
    if not source.placed:
        remarks[UNPLACED] = ""
    elif lies_in_mni152(source, observation.entities.get("space")):
        kind, volume = next(iter(opened.volumes.items()))
        away = outside_brain(volume, source, 1.0 if kind == "p" else 0.0)
        if away:
            remarks[ELSEWHERE] = away
    return remarks


def _read_others(index: int, observation: Observation, opened: Opened, plan: Plan) -> dict[str, NDArray[Any]]:
    """Read kinds that are not needed, to check them against the others: of studies, of the first map, and for dof."""
    checked = ("effect", "t") if plan.unit == "study" or not index else ()
    if is_settled_by_maps(observation, plan.read_needs):
        checked = (*checked, "t", "z")
    others = {}
    for kind in dict.fromkeys(checked):
        if kind in observation.statmaps and kind not in opened.volumes:
            with suppress(IbmaError):  # a file that is not needed may be damaged
                image = _read_statmap(observation.statmaps[kind])
                if opened.grid.matches(image.shape):
                    others[kind] = image.data
    return others


def _contradictions(observation: Observation, volumes: Mapping[str, NDArray[Any]]) -> tuple[Note, ...]:
    """Describe where the kinds of one contrast contradict each other.

    Raises
    ------
    DataError
        Most signs are opposite.
    """
    dof = np.inf if observation.dof is None else observation.dof
    notes = []
    for found in find_contradictions(volumes, dof):
        if found.hopeless:
            raise DataError(
                f"{observation.label}: {found.text} ({observation.path}). One of the maps is turned round or of "
                "another contrast: leave it out or mend it."
            )
        text = f"{found.what}. Were the maps resampled one by one, or are they of different models?"
        notes.append(Note(text, {observation.label: found.extent}))
    notes += [Note(unsigned, {observation.label: ""})] if (unsigned := tell_unsigned(volumes)) else []
    return tuple(notes)


def weigh_maps(observations: Sequence[Observation], plan: Plan, first: Prepared | LeftOut, early: int) -> MemoryNeeds:
    """Estimate the memory that an analysis needs, from its first map.

    Parameters
    ----------
    observations : sequence of Observation
    plan : Plan
    first : Prepared or LeftOut
        The first map; an error when none can be used.
    early : int
        How many maps cover between them every voxel of the mask.
    """
    n_maps, base = len(observations), plan.base.size
    covered, volume, interpolated = base, 0, False
    if isinstance(first, Prepared):
        covered, volume, interpolated = first.covered.size, first.volume, first.interpolated
    # where every map must cover a voxel, the mask is no larger than the first map's; else this is a guess
    voxels = covered if early == 1 else min(base, int(1.25 * covered))
    kept = len(plan.kinds) + plan.keeps_given + any("dof" in observation.statmaps for observation in observations)
    computed = any(one.statmaps["effect"].terms for one in observations[:1] if "effect" in one.statmaps)
    return MemoryNeeds(
        n_maps=n_maps,
        volume=max(plan.grid.mask.size, volume),
        base=base,
        voxels=voxels,
        stacked=(early * base + (n_maps - early) * (voxels if early == 1 else base)) * (4 * kept + 1),
        opened=max(len(observation.statmaps) for observation in observations),
        kept=kept,
        volumes=computed or interpolated,
    )


def _bring_to_grid(
    index: int, observation: Observation, opened: Opened, plan: Plan, given: NDArray[Any] | None
) -> tuple[Converted, bool]:
    """Convert a map within the base mask; return whether it was interpolated or smoothed, too."""
    volumes, source = opened.volumes, opened.grid
    aligned = plan.grid.matches(source)
    turned = not aligned and same_lattice(plan.grid, source)
    if not (aligned or turned):
        _check_interpolation(observation, source, plan)
    if turned:
        volumes = {kind: reorient(volume, source, plan.grid) for kind, volume in volumes.items()}
        given = None if given is None else reorient(given, source, plan.grid)
    if (aligned or turned) and not plan.smoothing:  # most maps: in file order, without volumes in between
        flat = {kind: volume.reshape(-1, order="F") for kind, volume in volumes.items()}
        converted = convert_maps(observation, flat, plan.read_needs, plan.in_files)
        converted = _standardise(index, converted, plan)
        return _keep_given(converted, given, plan.grid.file_order.take(converted.covered), "F"), False
    converted = _standardise(index, convert_maps(observation, volumes, plan.read_needs), plan)
    converted = _keep_given(converted, given, converted.covered, "C")
    arrays, reasons, derived = converted.arrays, converted.reasons, list(converted.derived)
    grid = require_grid(plan.grid, "Interpolation")
    if not (aligned or turned):
        arrays, reasons = regrid(arrays, reasons, require_grid(source, "Interpolation"), grid)
        derived.append(INTERPOLATED)
    if plan.smoothing:
        arrays["effect"] = smooth(arrays["effect"], reasons == COVERED, plan.smoothing, grid)
        derived.append(f"effect smoothed with FWHM {plan.smoothing:g} mm")
    chosen = reasons.reshape(-1).take(plan.base)
    covered = np.flatnonzero(chosen == COVERED)
    values = {kind: array.reshape(-1).take(plan.base.take(covered)) for kind, array in arrays.items()}
    return replace(converted, values=values, covered=covered, reasons=chosen, derived=tuple(derived)), True


def _check_interpolation(observation: Observation, source: Shape, plan: Plan) -> None:
    """Refuse to interpolate a map where that was not asked for, where a position is unknown, and on elements."""
    if plan.grid.box is None or source.box is None:
        raise DatasetError(tell_other_elements(observation.path, source, plan.grid))
    if not plan.interpolates:
        raise DatasetError(
            f"{observation.path} lies on another grid than the analysis ({tell_apart(plan.grid, source)}). Name a grid "
            "for all with --grid FILE."
        )
    if not (source.placed and plan.grid.placed):
        what = f"{observation.path} states" if not source.placed else "the grid of the analysis states"
        raise DataError(
            f"{observation.path} cannot be brought to the grid of the analysis: {what} no place (neither sform nor "
            "qform in the header). Copy the header of an image whose place is known (FSL: fslcpgeom)."
        )


def _standardise(index: int, converted: Converted, plan: Plan) -> Converted:
    """Turn t into Hedges' g and its variance, if there are samples."""
    return converted if plan.samples is None else standardise(converted, plan.samples[index])


def _keep_given(converted: Converted, given: NDArray[Any] | None, at: Indices, order: Literal["C", "F"]) -> Converted:
    """Add a study's effects as they were given, 0 where not finite; what is covered does not depend on them."""
    if given is None:
        return converted
    kept = np.nan_to_num(given.reshape(-1, order=order).take(at), nan=0.0, posinf=0.0, neginf=0.0)
    return replace(converted, values={**converted.values, GIVEN: kept})


def _computed(observation: Observation) -> list[str]:
    """Describe how a computed effect is made of contrasts."""
    terms = observation.statmaps["effect"].terms if "effect" in observation.statmaps else ()
    if not terms:
        return []
    return ["effect computed as " + " + ".join(f"{w:g} * {term.entities['contrast']}" for w, term in terms)]


def _read_statmap(statmap: StatMap) -> MapValues:
    """Read a map, or compute it from others (``--compute``): covered where all of them are."""
    if not statmap.terms:
        found = read_map(statmap.files)
        return replace(found, data=keep_zeros(statmap.kind, found.data)) if found.shape.named else found
    total: NDArray[Any] | None = None
    first: MapValues | None = None
    for weight, term in statmap.terms:
        image = read_map(term.files)
        first = first or image
        if not first.shape.matches(image.shape):
            raise DatasetError(f"{term.path} lies on another grid than {statmap.path}, with which it is computed.")
        values = np.where(image.data == 0, np.nan, weight * image.data.astype(np.float64))
        total = values if total is None else total + values
    if first is None or total is None:
        raise ValueError("A computed map has no terms.")
    total[total == 0] = np.finfo(np.float32).tiny  # an exact 0 would count as background
    return MapValues(total, first.shape)


def _read_kinds(observation: Observation, kinds: Sequence[str]) -> Opened:
    """Read the files of one observation, all in the voxel order of the first."""
    volumes: dict[str, NDArray[Any]] = {}
    remarks: dict[str, str] = {}
    smallest_p = SMALLEST
    reference: Shape | None = None
    for kind in kinds:
        path = observation.statmaps[kind].path
        image = _read_statmap(observation.statmaps[kind])
        if reference is None:
            reference = image.shape
        volumes[kind] = image.data
        if image.odd_sizes:
            remarks[SIZES] = image.odd_sizes
        smallest_p = image.smallest if kind == "p" else smallest_p
        if reference.matches(image.shape):
            continue
        if not same_lattice(reference, image.shape):
            first = observation.statmaps[kinds[0]].path
            raise DatasetError(tell_other_kind(path, image.shape, first, reference, observation.label))
        volumes[kind] = reorient(image.data, image.shape, reference)
    if reference is None:
        raise DataError(f"{observation.label}: nothing to read.")
    volumes, counts = hold_saturated(volumes, smallest_p)
    notes = tuple(_saturated(observation, kind, count) for kind, count in counts.items())
    return Opened(volumes, reference, notes, remarks)


def _saturated(observation: Observation, kind: str, count: int) -> Note:
    """Describe values at the end of their scale, which were replaced by its limit."""
    what, limit = f"{kind} is infinite", "the largest finite one of the map, 38.4 at least"
    if kind == "p":
        what, limit = "p is 0", "the smallest p that the file can hold"
    return Note(f"{what}, taken as {limit}.", {observation.label: f"{count} voxel(s)"})
