"""Rank of a design matrix: which columns are linear combinations of others."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERANCE = 1e-9
"""A column of norm 1 that is nearer than this to the span of the others counts as dependent."""


def has_full_rank(matrix: Floats) -> bool:
    """Return whether the columns of a matrix (K, P) are linearly independent, whatever their units."""
    norms = np.sqrt((matrix**2).sum(axis=0))
    if np.any(norms == 0) or matrix.shape[0] < matrix.shape[1]:
        return False
    # R of the QR decomposition has the singular values of the matrix, and is small however many maps there are
    values = np.linalg.svd(np.linalg.qr(matrix / norms, mode="r"), compute_uv=False)
    return bool(values[-1] > TOLERANCE * values[0])


def describe_aliases(matrix: Floats, columns: Sequence[str]) -> list[str]:
    """Write each column that depends on earlier ones as their combination: ``'b' = 'intercept' - 'a'``.

    Parameters
    ----------
    matrix : (K, P) array
        Of deficient rank.
    columns : sequence of str
        Their names.

    Returns
    -------
    list of str
        One equation per dependent column; columns of zeros are named as such.
    """
    norms = np.sqrt((matrix**2).sum(axis=0))
    equations: list[str] = []
    kept: list[int] = []
    for j, name in enumerate(columns):
        if norms[j] == 0:
            equations.append(f"{name!r} is 0 everywhere")
            continue
        base = matrix[:, kept] / norms[kept]
        target = matrix[:, j] / norms[j]
        weights = np.linalg.lstsq(base, target, rcond=None)[0] if kept else np.zeros(0)
        if np.linalg.norm(target - base @ weights) > TOLERANCE:
            kept.append(j)
            continue
        raw = weights * norms[j] / norms[kept]
        relevant = [(columns[kept[i]], raw[i]) for i in np.flatnonzero(np.abs(weights) > 1e-7)]
        equations.append(f"{name!r} = {_sum_of(relevant)}")
    return equations


def _sum_of(parts: Sequence[tuple[str, float]]) -> str:
    """Write a linear combination, cut short when it is long."""
    text = ""
    for name, weight in parts[:6]:
        factor = "" if abs(abs(weight) - 1) < 1e-7 else f"{abs(weight):.4g}*"
        sign = ("-" if weight < 0 else "") if not text else (" - " if weight < 0 else " + ")
        text += f"{sign}{factor}{name!r}"
    return text + (f" + ... ({len(parts)} columns)" if len(parts) > 6 else "")
