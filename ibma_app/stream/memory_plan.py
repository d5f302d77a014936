"""How the memory that may be used (``--mem``) is divided among reading, keeping and fitting maps."""

from collections.abc import Callable
from dataclasses import dataclass

from ibma_app.core.errors import UsageError

BLOCK = 8192
"""Voxels of a tile. It depends on neither threads nor memory, so that neither changes a result."""
VALUES = 2**22  # of one kind of map in a tile: with many maps a tile has fewer voxels
SMALLEST_BLOCK = 256

MIB = 1024**2

STACK_SHARE = 0.25  # of the memory: larger stacks go to files
WINDOW_SHARE = 0.125  # of the memory: for what is read from files at once
COMPARED = 3 * 20 * MIB  # for comparing the maps: 5 million values, and work on them
OUTPUTS = 24  # numbers at a voxel held by estimate, inference and writing, for the first test
OF_A_TEST = 7  # and for each further test
A_JOB = 64  # bytes at a voxel for each thread that scores relabellings (`stream/resampling/fast_ols.py`),
A_SCAN = 17 * MIB  # and bytes in addition
HELD = 256  # bytes at a voxel for the maps that a job holds (`stream/resampling/fast_mixed.py`)
A_TILE = 2**15  # bytes that a thread takes there for each map and column of the design
WORK = 2.0  # an estimator's work arrays, as a multiple of a tile (`tests/stream/test_memory_plan.py`)
KEPT = 16 * MIB  # freed arrays that the C library keeps for each thread (`machine.return_freed_memory`)


@dataclass(frozen=True)
class Resampled:
    """Which of an analysis' estimators are resampled."""

    least_squares: bool = False  # from all maps in memory
    others: bool = False  # tile by tile, some whole maps of z at a time
    columns: int = 1  # P of the design


NOTHING = Resampled()


@dataclass(frozen=True)
class MemoryNeeds:
    """The sizes that decide how much memory an analysis takes."""

    n_maps: int  # K
    volume: int  # voxels of a file
    base: int  # voxels that may be analysed
    voxels: int  # V, at most
    stacked: int  # bytes of all rows together
    opened: int = 1  # kinds of map read of each observation
    kept: int = 1  # kinds of map stacked
    tests: int = 1
    volumes: bool = False  # whether whole volumes are interpolated, smoothed or computed
    resampled: Resampled = NOTHING

    def reading(self, readers: int) -> int:
        """Return the bytes taken by so many maps that are read at once, and one ahead."""
        worked = 8 * (self.kept + 4) if self.volumes else 0
        each = self.volume * (8 * self.opened + 4 + worked) + self.voxels * (8 * self.kept + 8) + self.base
        return 20 * self.base + 8 * self.voxels + (readers + 1) * (each + KEPT)

    def fitting(self, threads: int) -> int:
        """Return the bytes taken by so many tiles that are fitted at once."""
        tile = self.n_maps * min(block_size(self.n_maps), self.voxels)
        work = int(threads * tile * (8 * self.kept + 1) * (1 + WORK))
        return self._estimated + work + (threads + 1) * KEPT

    def resampling(self, threads: int) -> int:
        """Return the bytes taken by so many jobs of relabellings that are scored at once."""
        how, job = self.resampled, A_JOB * self.voxels + A_SCAN + KEPT
        gathered = 4 * self.n_maps * self.voxels + threads * job if how.least_squares else 0
        scanned = HELD * self.voxels + threads * (job + A_TILE * self.n_maps * how.columns) if how.others else 0
        return self._estimated + KEPT + max(gathered, scanned) if gathered or scanned else 0

    @property
    def _estimated(self) -> int:
        """Bytes of an estimate of all voxels."""
        return 8 * self.voxels * (OUTPUTS + OF_A_TEST * (self.tests - 1))

    def comparing(self) -> int:
        """Return the bytes taken by comparing the maps with each other."""
        return KEPT + min(COMPARED, 12 * self.n_maps * self.voxels) + 256 * self.n_maps * 24

    @property
    def least(self) -> int:
        """Least bytes that will do: nothing at the same time, and the rows in files."""
        return max(self.reading(1), self.fitting(1), self.comparing(), self.resampling(1))


@dataclass(frozen=True)
class MemoryPlan:
    """How much is done at the same time."""

    on_disk: bool  # whether the rows go to files
    readers: int  # maps read at once
    threads: int  # tiles fitted, or relabellings scored, at once
    window: int  # bytes read from the files at once


def block_size(n_maps: int) -> int:
    """Return the voxels of a tile of K maps: a power of two that depends on K alone."""
    size = BLOCK
    while size > SMALLEST_BLOCK and size * n_maps > VALUES:
        size //= 2
    return size


def plan_memory(needs: MemoryNeeds, memory: int, nprocs: int, processes: int = 1) -> MemoryPlan:
    """Decide how much is done at the same time in so much memory; results do not depend on it.

    Parameters
    ----------
    needs : MemoryNeeds
    memory : int
        Bytes, without those of the interpreter and its libraries.
    nprocs : int
        Threads.
    processes : int
        Number of processes that run at the same time, each in so much memory.

    Raises
    ------
    UsageError
        The memory is less than the least that will do.
    """
    least = needs.least
    if least > memory:
        each, fewer = (" by each process", ", take fewer --nprocs") if processes > 1 else ("", "")
        raise UsageError(
            f"{needs.n_maps} maps of {needs.voxels} voxels need at least {_size(least)} of memory; {_size(memory)} may "
            f"be used{each}. Give more with --mem {_round_up(least) * processes}M{fewer}, or combine fewer maps at "
            "a time."
        )
    on_disk = needs.stacked > STACK_SHARE * memory or needs.stacked + least > memory
    left = memory - (0 if on_disk else needs.stacked)
    threads = _most(lambda n: max(needs.fitting(n), needs.resampling(n)), nprocs, left)
    window = int(min(WINDOW_SHARE * memory, left - needs.fitting(threads))) if on_disk else 0
    return MemoryPlan(on_disk, _most(needs.reading, nprocs, left), threads, max(window, 0))


def _most(takes: Callable[[int], int], nprocs: int, memory: int) -> int:
    """Return how many may be done at the same time; at least one."""
    return next((n for n in range(nprocs, 1, -1) if takes(n) <= memory), 1)


def _size(size: int) -> str:
    return f"{_round_up(size)} MiB" if size < 1024 * MIB else f"{size / 1024**3:.1f} GiB"


def _round_up(size: int) -> int:
    return -(-size // MIB)
