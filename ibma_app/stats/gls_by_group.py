"""Generalised least squares of many voxels: partial autocorrelations rounded, so that voxels share a factorisation."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.gls import BlockFit, Factorised, OrdinaryFit, Orthonormal

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROWS = 1024  # voxels that are fitted at once: what is computed does not depend on memory


def round_partials(partials: Floats, steps: Sequence[float]) -> Floats:
    """Round partial autocorrelations, (B, p), to multiples of a step for each lag.

    The first lag matters most. Steps of the size of an estimate's error add
    little to it.
    """
    widths = np.asarray(steps, dtype=np.float64)
    most = np.floor(0.97 / widths)
    rounded: Floats = np.clip(np.round(partials / widths), -most, most) * widths
    return rounded


def group_rows(rounded: Floats, steps: Sequence[float]) -> Iterator[tuple[Floats, Ints]]:
    """Yield each combination of rounded partial autocorrelations, (p,), with the rows that have it."""
    if not len(rounded):
        return
    if not rounded.shape[1]:
        yield np.zeros(0), np.arange(rounded.shape[0])
        return
    codes = np.zeros(rounded.shape[0], dtype=np.int64)
    for lag, width in enumerate(steps):
        levels = 2 * int(np.floor(0.97 / width)) + 1
        codes = codes * levels + np.rint(rounded[:, lag] / width).astype(np.int64) + levels // 2
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        rows = order[start:end]
        yield rounded[rows[0]], rows


def fit_by_group(
    series: NDArray[np.floating],
    ordinary: OrdinaryFit,
    rounded: Floats,
    steps: Sequence[float],
    design: Orthonormal,
    among: Ints | None = None,
) -> Iterator[tuple[Ints, BlockFit]]:
    """Fit series by generalised least squares; yield rows and their fit.

    Parameters
    ----------
    series : ndarray, shape (V, T)
        Of any precision; computed with is double precision.
    ordinary : OrdinaryFit
        Of all V voxels.
    rounded : ndarray, shape (V, p)
        Partial autocorrelations of the noise.
    steps : sequence of float
        By which they were rounded.
    design : Orthonormal
    among : ndarray of int, optional
        Rows that are fitted; None: all.
    """
    among = np.arange(len(series)) if among is None else among
    for partials, found in group_rows(rounded[among], steps):
        rows = among[found]
        factorised = Factorised(design, partials)
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            yield some, factorised.fit(series[some].astype(np.float64), ordinary.take(some))
