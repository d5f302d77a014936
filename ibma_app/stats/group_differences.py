"""The sampling variance of standardised differences between two groups: Cohen's d and Hedges' g.

References
----------
Hedges LV (1982). Estimation of effect size from a series of independent
experiments. Psychological Bulletin 92, 490-499.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def variance_of_difference(d: ArrayLike, n1: ArrayLike, n2: ArrayLike) -> NDArray[np.float64]:
    """Return 1/n1 + 1/n2 + d²/(2 (n1 + n2)), the large-sample variance (metafor's ``vtype="LS"``).

    Parameters
    ----------
    d : array_like
        Standardised differences, any shape.
    n1, n2 : array_like
        Sizes of the groups, of that shape; NaN where unknown.

    Returns
    -------
    ndarray
        NaN where d or a size is.
    """
    d, n1, n2 = (np.asarray(one, dtype=np.float64) for one in (d, n1, n2))
    variance: NDArray[np.float64] = 1.0 / n1 + 1.0 / n2 + d**2 / (2.0 * (n1 + n2))
    return variance
