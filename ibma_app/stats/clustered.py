"""The maps of each pattern of coverage, ordered by what they belong to."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.basis import Patterns

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def order_maps(patterns: Patterns, clusters: Ints) -> tuple[Ints, Floats, Ints, Ints]:
    """Bring the covered maps of each cluster together.

    Parameters
    ----------
    patterns : Patterns
        N of them.
    clusters : ndarray of int, shape (K,)
        The cluster of each map.

    Returns
    -------
    which, columns
        As in `Patterns`, in that order.
    counts : ndarray of int, shape (N,)
        Clusters with covered maps, m.
    starts : ndarray of int, shape (N, K + 1)
        First covered map of each of them, and k.
    """
    which, columns = patterns.which.copy(), patterns.columns.copy()
    n_patterns, n_maps = which.shape
    counts, starts = np.zeros(n_patterns, dtype=np.int64), np.zeros((n_patterns, n_maps + 1), dtype=np.int64)
    for n, k in enumerate(patterns.maps.tolist()):
        order = np.argsort(clusters[which[n, :k]], kind="stable")
        which[n, :k] = which[n, order]
        columns[n, :, :k] = columns[n][:, order]
        first = np.flatnonzero(np.diff(clusters[which[n, :k]], prepend=-1))
        counts[n] = first.size
        starts[n, : first.size + 1] = np.append(first, k)
    return which, columns, counts, starts
