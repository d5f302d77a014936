"""Stacks many maps into a table of maps by voxels: each file is read once, in limited memory."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape, require_grid
from ibma_app.core.block import Floats, Indices, VoxelBlock
from ibma_app.core.errors import DataError, IbmaError, Note, UsageError, merge_notes
from ibma_app.core.results import MapSurvey
from ibma_app.core.statmap import Observation
from ibma_app.core.system.long_work import tell_progress
from ibma_app.images.placement import place_notes
from ibma_app.stream.hedges_g import Sample, describe_dof, describe_mixture, pool_variances
from ibma_app.stream.memory_plan import NOTHING, Resampled, plan_memory
from ibma_app.stream.prepare import GIVEN, LeftOut, Plan, Prepared, prepare_maps, weigh_maps
from ibma_app.stream.residuals.centred import Centring, centre
from ibma_app.stream.row_store import RowStore, open_store
from ibma_app.stream.survey import (
    ReadMap,
    coverage_note,
    empty_mask,
    refuse_thresholded,
    survey_map,
    unique_costs,
    variance_note,
)
from ibma_app.stream.workers.resources import ONE_THREAD, Resources

WHOLE, CANDIDATES = 0, 1  # layouts of the stored rows: voxels of the base mask, or those that may be in the final one

SMOOTH_BEFORE = (
    "Leave it out; what lies on a surface is smoothed along it before (wb_command -metric-smoothing, mri_surf2surf)."
)


@dataclass(frozen=True, eq=False)
class Stack:
    """K maps over the V voxels of the final mask, read by blocks; valid within the context of `stack_maps`."""

    grid: Shape  # the final mask
    survey: tuple[MapSurvey, ...]  # one per map
    notes: tuple[Note, ...]  # warnings for the user
    kinds: tuple[str, ...]  # of "effect", "variance", "z"
    kept: tuple[int, ...]  # (K,) which observation each row is of
    signed: tuple[bool, ...]  # (K,) False: z of an unsigned p
    sample_size: Floats | None  # (K,) where all are known
    dof: Floats | None  # (K, 1) of whole maps, inf where unknown; None: some are voxelwise and not read
    _store: RowStore = field(repr=False)
    _voxelwise: tuple[int, ...] = ()  # rows whose dof differ by voxel
    side_by_side: int = 1  # tiles that may be fitted at once in the memory there is
    samples: tuple[Sample, ...] | None = None  # (K,) of standardised effects: their variances need all maps' g
    _centring: Centring | None = None  # what is taken off the effects

    @property
    def n_maps(self) -> int:
        """K."""
        return len(self.survey)

    @property
    def n_voxels(self) -> int:
        """V."""
        return self.grid.n_voxels

    @property
    def on_disk(self) -> bool:
        """Whether the rows are in files of the work folder."""
        return self._store.on_disk

    def read(self, start: int, stop: int) -> VoxelBlock:
        """Read voxels ``start`` to ``stop`` of every map; safe in threads."""
        stop = min(stop, self.n_voxels)
        values = {kind: self._store.read_all(kind, self.n_maps, start, stop) for kind in self.kinds}
        first = next(iter(values.values()))
        absent = np.isnan(first)
        covered = ~absent
        if absent.any():
            for kind_values in values.values():
                kind_values[absent] = 0.0
        if self.samples is not None and "variance" in values:
            values["variance"] = pool_variances(values["effect"], covered, self.samples)
        if self._centring is not None and "effect" in values:
            values["effect"] = centre(values["effect"], covered, self._centring, start)
        return VoxelBlock(
            covered=covered,
            effect=values.get("effect"),
            variance=values.get("variance"),
            z=values.get("z"),
            dof=self._dof_block(start, stop, covered),
            sample_size=self.sample_size,
        )

    def read_plain(self, kind: str, start: int, stop: int) -> NDArray[np.float32]:
        """Read one kind of every map in single precision, NaN where a map does not cover a voxel."""
        return self._store.read_all(kind, self.n_maps, start, min(stop, self.n_voxels), np.float32)

    def read_map(self, kind: str, row: int) -> NDArray[np.float32]:
        """Read one map (V,) in single precision, NaN where it does not cover a voxel."""
        return np.asarray(self._store.read(kind, row, 0, self.n_voxels), dtype=np.float32)

    def forget_given(self) -> None:
        """Drop the effects as they were given, which only the comparison of maps reads."""
        self._store.drop(GIVEN)

    @property
    def given(self) -> tuple[int, ...]:
        """The maps whose effects are there as they were given, too (`read_map` of the kind "given")."""
        return tuple(row for row in range(self.n_maps) if self._store.has(GIVEN, row))

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take in memory, at most."""
        return self.n_maps * self.n_voxels * 4 * (len(self.kinds) + bool(self._voxelwise))

    def contents(self) -> Iterator[tuple[str, int, float, NDArray[Any]]]:
        """Yield every row: kind, map, scale, and values as stored; then what is taken off them."""
        yield from self._store.contents()
        yield from (("centring", row, 1.0, values) for row, values in enumerate(self._centring or ()))

    def in_memory(self) -> "Stack":
        """Return the same maps in memory, which can be sent to another process."""
        return replace(self, _store=self._store.in_memory())

    def centred(self, centring: Centring) -> "Stack":
        """Return the same maps less an effect: `read` takes it off."""
        return replace(self, _centring=centring)

    def _dof_block(self, start: int, stop: int, covered: NDArray[np.bool_]) -> Floats | None:
        if self.dof is None or not self._voxelwise:
            return self.dof
        block = np.repeat(self.dof, stop - start, axis=1)
        for row in self._voxelwise:
            block[row] = self._store.read("dof", row, start, stop)
        block[~covered] = 0.0
        return block


@contextmanager
def stack_maps(
    observations: Sequence[Observation],
    plan: Plan,
    resources: Resources = ONE_THREAD,
    *,
    tests: int = 1,
    resampled: Resampled = NOTHING,
) -> Iterator[Stack]:
    """Read the maps of one analysis, each file exactly once, into a stack that is read by voxels.

    When n_min maps must cover a voxel, each voxel of the final mask is covered
    by one of the first K - n_min + 1 maps: of later maps only these candidates
    are stored.

    Parameters
    ----------
    observations : sequence of Observation
        The rows of the design, K of them.
    plan : Plan
    resources : Resources
        Its threads read maps, as far as its memory allows. A stack that is too
        large for the memory goes to float32 files in a private folder in its
        ``work_dir``, removed at exit.
    tests : int
        Number of tests of the design: their maps take memory, too.
    resampled : Resampled
        What will be resampled: it takes memory, too.

    Yields
    ------
    Stack

    Raises
    ------
    DataError
        A kind of map that is missing, thresholded maps, an empty mask.
    DatasetError
        A map on another grid.
    InputError, ReadWriteError, OutputError
        Files that cannot be read; a work folder that cannot be used.
    UsageError
        There is too little memory even for files, or maps with variances would be smoothed.
    """
    if plan.smoothing and any(need in plan.needs for need in ("variance", "z")):
        raise UsageError("--smoothing is for effect maps without variances: it changes the variance.")
    if plan.smoothing:
        require_grid(plan.grid, "--smoothing", SMOOTH_BEFORE)
    first = _first_maps(observations, plan)
    memory_needs = weigh_maps(observations, plan, first[-1], _n_early(len(observations), plan.share))
    memory_needs = replace(memory_needs, tests=tests, resampled=resampled)
    limits = resources.bytes_to_use, resources.threads, resources.processes
    memory_plan = plan_memory(memory_needs, *limits)
    with open_store(
        resources.work_dir, on_disk=memory_plan.on_disk, size=memory_needs.stacked, window=memory_plan.window
    ) as store:
        builder = _Builder(plan, store, len(observations))
        later = prepare_maps(observations, plan, memory_plan.readers, len(first))
        with tell_progress("Reading maps", len(observations), of="maps") as count:
            for prepared in chain(_pop_each(first), later):
                if isinstance(prepared, LeftOut):
                    builder.leave_out(prepared)
                else:
                    builder.add(prepared)
                count(1)
        # now that the mask is known, and no longer estimated from the first map
        yield builder.finish(lambda voxels: plan_memory(replace(memory_needs, voxels=voxels), *limits).threads)


def _first_maps(observations: Sequence[Observation], plan: Plan) -> list[Prepared | LeftOut]:
    """Read maps until one can be used: the memory for the others is estimated from it."""
    found: list[Prepared | LeftOut] = []
    for prepared in prepare_maps(observations, plan, 1):
        found.append(prepared)
        if isinstance(prepared, Prepared):
            break
    return found


def _pop_each(maps: list[Prepared | LeftOut]) -> Iterator[Prepared | LeftOut]:
    """Yield maps, each removed from the list."""
    while maps:
        yield maps.pop(0)


def _n_min(share: float, n_maps: int) -> int:
    """Return how many maps must cover a voxel."""
    return max(1, math.ceil(share * n_maps - 1e-9))


def _n_early(n_maps: int, share: float) -> int:
    """Return how many maps cover between them every voxel that enough maps cover."""
    return n_maps - _n_min(share, n_maps) + 1


def _in_words_of(shape: Shape, notes: tuple[Note, ...]) -> tuple[Note, ...]:
    """Return notes on voxels in the words of a shape."""
    about = [{label: shape.speak(detail) for label, detail in note.about.items()} for note in notes]
    return tuple(Note(shape.speak(note.text), own, note.noun) for note, own in zip(notes, about, strict=True))


class _Builder:
    """Stores prepared maps in order, and finds the final mask."""

    def __init__(self, plan: Plan, store: RowStore, n_planned: int) -> None:
        self.plan, self.store = plan, store
        # if maps are left out, the others need no more early rows than this
        self.n_early = _n_early(n_planned, plan.share)
        self.count = np.zeros(plan.base.size, dtype=np.int32)
        self._alike: Indices | None = None  # voxels of the last maps that cover the same ones,
        self._n_alike = 0  # and how many such maps are not counted yet
        self.candidates: NDArray[np.int64] | None = None
        self.maps: list[ReadMap] = []
        self.notes: list[Note] = []
        self.left_out: list[LeftOut] = []

    def leave_out(self, left: LeftOut) -> None:
        """Note that a map is left out."""
        self.left_out.append(left)

    def add(self, prepared: Prepared) -> None:
        """Store one map: its values in the base mask, or at the candidates once they are known."""
        row = len(self.maps)
        if row == self.n_early:
            self._count_in(None)
            self.candidates = np.flatnonzero(self.count)
        self._count_in(prepared.covered)
        layout = WHOLE if self.candidates is None else CANDIDATES
        chosen: Any = slice(None) if self.candidates is None else self.candidates
        for kind, values in prepared.values.items():
            if kind != "dof" or "dof" in self.plan.needs:
                self.store.append(kind, row, self._lay_out(values, prepared.covered), layout)
        self.store.append("reason", row, prepared.reasons[chosen], layout)
        self.maps.append(prepared.read)
        self.notes.extend(prepared.notes)

    def _count_in(self, covered: Indices | None) -> None:
        """Count the voxels of a map; those of maps that cover the same ones are counted together."""
        if covered is self._alike and covered is not None:
            self._n_alike += 1
            return
        if self._alike is not None:
            self.count[self._alike] += self._n_alike
        self._alike, self._n_alike = covered, 1

    def _lay_out(self, values: NDArray[Any], covered: Indices) -> NDArray[Any]:
        """Return a map's values over the base mask, or the candidates once they are known; NaN where not covered."""
        candidates = self.candidates
        if covered.size == self.count.size if candidates is None else np.array_equal(covered, candidates):
            return values
        row = np.full(self.count.size, np.nan, dtype=values.dtype)
        row[covered] = values
        return row if candidates is None else row[candidates]

    def finish(self, threads: Callable[[int], int]) -> Stack:
        """Find the final mask, survey the maps, and make the stack; ``threads`` returns how many V voxels allow."""
        if not self.maps:
            raise self._all_bad()
        self._count_in(None)
        self.notes.extend(left.note for left in self.left_out)
        places = place_notes([(read.observation.label, read.remarks) for read in self.maps])
        self.notes.extend(map(Note, places))
        refuse_thresholded(self.maps, self.count)
        n_min = _n_min(self.plan.share, len(self.maps))
        final = np.flatnonzero(self.count >= n_min)
        layouts = {WHOLE: np.arange(self.count.size)}
        if self.candidates is not None:
            layouts[CANDIDATES] = self.candidates
        nearly = {layout: self.count[voxels] == n_min - 1 for layout, voxels in layouts.items()}
        costs = unique_costs(self.maps, self.store, nearly) if n_min > 1 else {}
        if not final.size:
            raise DataError(self.plan.grid.speak(empty_mask(self.maps, costs, n_min).message))
        self.store.select({layout: np.searchsorted(voxels, final) for layout, voxels in layouts.items()})
        kinds, rows = self.plan.kinds, enumerate(self.maps)
        survey = tuple(survey_map(read, row, self.store, final.size, kinds) for row, read in rows)
        if n_min > 1:
            survey = tuple(replace(one, cost=costs.get(one.label, 0)) for one in survey)
        self.store.drop("reason")
        covered, whole = int(np.count_nonzero(self.count)), self.plan.grid.mask.size
        late = (
            coverage_note(costs, final.size, covered, (self.count.size, whole), self.plan.grid),
            variance_note(survey),
        )
        self.notes.extend(Note(text) for text in late if text)
        return self._stack(final, survey, threads(final.size))

    def _stack(self, final: NDArray[np.int64], survey: tuple[MapSurvey, ...], threads: int) -> Stack:
        mask = np.zeros(self.plan.grid.mask.size, dtype=bool)
        mask[self.plan.base[final]] = True
        sizes = [read.observation.sample_size for read in self.maps]
        voxelwise = tuple(row for row in range(len(self.maps)) if self.store.has("dof", row))
        unread = any(row.dof == "voxelwise" and index not in voxelwise for index, row in enumerate(survey))
        dof = [np.inf if read.observation.dof is None else read.observation.dof for read in self.maps]
        samples = None if self.plan.samples is None else tuple(self.plan.samples[read.index] for read in self.maps)
        doubts = (
            (describe_mixture(samples), describe_dof([read.observation for read in self.maps], samples))
            if samples
            else ()
        )
        return Stack(
            grid=self.plan.grid.with_mask(mask.reshape(self.plan.grid.shape)),
            survey=survey,
            notes=_in_words_of(self.plan.grid, merge_notes((*self.notes, *(Note(doubt) for doubt in doubts if doubt)))),
            kinds=self.plan.kinds,
            kept=tuple(read.index for read in self.maps),
            signed=tuple(read.signed for read in self.maps),
            sample_size=None if None in sizes else np.asarray(sizes, dtype=np.float64),
            dof=None if unread else np.asarray(dof, dtype=np.float64)[:, None],
            _store=self.store,
            _voxelwise=voxelwise,
            side_by_side=threads,
            samples=samples,
        )

    def _all_bad(self) -> IbmaError:
        """Make the error of a stack without maps: of the first error's type, with all messages."""
        if not self.left_out:
            return DataError("There are no maps to combine.")
        errors = [left.error for left in self.left_out]
        if len(errors) == 1:
            return errors[0]
        named = (f"{left.observation.label} is left out: {left.error.message}" for left in self.left_out)
        return type(errors[0])(" ".join(named))
