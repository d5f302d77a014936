"""Degrees of freedom: where they are found, and z as the t that they make of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ibma_app.core.statmap import Observation
from ibma_app.stats.tails import t_to_z

Floats = NDArray[np.float64]

FAR = 20.0  # |z| whose probability is not left to stdtrit: SciPy before 1.17 stops at 1e-100


@dataclass(frozen=True)
class Dof:
    """The degrees of freedom of one observation's maps, and where they come from."""

    value: float  # inf where unknown or voxelwise
    source: str  # "map", "sidecar", "--dof", "SampleSize - 1", "unknown"

    @property
    def text(self) -> str:
        """A number, ``voxelwise`` or ``unknown``."""
        if self.source == "map":
            return "voxelwise"
        return f"{self.value:g}" if np.isfinite(self.value) else "unknown"


def find_dof(observation: Observation, default: float | None = None) -> Dof:
    """Find an observation's dof: its map, its sidecar, ``--dof``, SampleSize - 1, else unknown."""
    if "dof" in observation.statmaps:
        return Dof(np.inf, "map")
    if observation.dof is not None:
        known = observation.dof_source
        return Dof(float(observation.dof), known if known != "unknown" else "sidecar")
    if default is not None:
        return Dof(float(default), "--dof")
    if observation.sample_size is not None and observation.sample_size > 1:
        return Dof(float(observation.sample_size) - 1.0, "SampleSize - 1")
    return Dof(np.inf, "unknown")


def z_to_t(z: Floats, dof: ArrayLike) -> Floats:
    """Turn z into the t of the same upper-tail probability; the inverse of `t_to_z`.

    Within |z| < 20 `scipy.special.stdtrit` inverts the probability; further out
    `t_to_z` is inverted by bisection on log t.
    """
    z, dof = np.broadcast_arrays(np.asarray(z, dtype=np.float64), np.asarray(dof, dtype=np.float64))
    size = np.abs(z)
    with np.errstate(all="ignore"):
        t = -special.stdtrit(dof, special.ndtr(-size))
    t = np.where(np.isinf(dof), size, t)
    far = np.flatnonzero((size >= FAR) & np.isfinite(dof) & np.isfinite(size))
    if far.size:
        low, high = np.zeros(far.size), np.full(far.size, 700.0)
        for _ in range(60):  # 700 / 2**60: the last bit of log t
            middle = 0.5 * (low + high)
            below = t_to_z(np.exp(middle), dof.flat[far]) < size.flat[far]
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        t = t.copy()
        t.flat[far] = np.exp(high)
    return np.copysign(t, z)
