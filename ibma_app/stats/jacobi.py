"""Eigenvalues and eigenvectors of one voxel's small symmetric matrices, by Jacobi's rotations.

Small eigenvalues of positive definite matrices keep their digits (Demmel & Veselic 1992).
"""

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.compiled import inner

Floats = NDArray[np.float64]

_SWEEPS = 40


@inner
def _rotate(matrix: Floats, vectors: Floats, n: int, p: int, q: int) -> None:
    """Make one element off the diagonal 0 (Jacobi)."""
    theta = (matrix[q, q] - matrix[p, p]) / (2.0 * matrix[p, q])
    t = (1.0 if theta >= 0.0 else -1.0) / (abs(theta) + np.sqrt(theta * theta + 1.0))
    c = 1.0 / np.sqrt(t * t + 1.0)
    s = t * c
    for i in range(n):
        one, other = matrix[i, p], matrix[i, q]
        matrix[i, p], matrix[i, q] = c * one - s * other, s * one + c * other
    for i in range(n):
        one, other = matrix[p, i], matrix[q, i]
        matrix[p, i], matrix[q, i] = c * one - s * other, s * one + c * other
        one, other = vectors[i, p], vectors[i, q]
        vectors[i, p], vectors[i, q] = c * one - s * other, s * one + c * other


@inner
def diagonalise(matrix: Floats, vectors: Floats, n: int) -> None:
    """Turn a symmetric matrix into its eigenvalues, on the diagonal, and eigenvectors, in columns."""
    for i in range(n):
        for j in range(n):
            vectors[i, j] = 1.0 if i == j else 0.0
    for _ in range(_SWEEPS):
        left = 0.0
        for p in range(n):
            for q in range(p + 1, n):
                if abs(matrix[p, q]) > 1e-16 * np.sqrt(abs(matrix[p, p] * matrix[q, q])):
                    left += 1.0
                    _rotate(matrix, vectors, n, p, q)
        if left == 0.0:
            return
