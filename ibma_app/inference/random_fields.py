"""What random field theory needs to know of a map: its null field and the size of the search."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import RandomFieldFacts
from ibma_app.core.methods import Citation
from ibma_app.stats.resels import count_resels
from ibma_app.stats.rft import RandomField
from ibma_app.stats.tails import z_to_f, z_to_t

Floats = NDArray[np.float64]

WORSLEY_1996 = Citation(
    key="worsley1996",
    authors="Worsley KJ, Marrett S, Neelin P, Vandal AC, Friston KJ, Evans AC",
    year=1996,
    title="A unified statistical approach for determining significant signals in images of cerebral activation",
    source="Human Brain Mapping 4(1), 58-73",
    doi="10.1002/(SICI)1097-0193(1996)4:1<58::AID-HBM4>3.0.CO;2-O",
)

KIEBEL_1999 = Citation(
    key="kiebel1999",
    authors="Kiebel SJ, Poline J-B, Friston KJ, Holmes AP, Worsley KJ",
    year=1999,
    title="Robust smoothness estimation in statistical parametric maps using standardized residuals "
    "from the general linear model",
    source="NeuroImage 10(6), 756-766",
    doi="10.1006/nimg.1999.0508",
)


MOST_DOF = 1e6  # t and F with more are normal and chi-square


@dataclass(frozen=True, eq=False)
class Search:
    """A map as random field theory sees it."""

    field: RandomField
    heights: Floats  # (V,) what is compared with the null field, in the map's tail
    mask: NDArray[np.bool_]  # (X, Y, Z) voxels searched: the estimable ones
    resels: Floats  # (4,)
    voxels_per_resel: float
    facts: RandomFieldFacts

    @property
    def n_voxels(self) -> int:
        """The voxels searched."""
        return int(np.count_nonzero(self.mask))


def prepare_search(field: Field, inference: str, *, extents: bool = False) -> Search:
    """Find null field, resels and heights of a map.

    z have the Gaussian field, t and F their own. Where dof vary between
    voxels, it is the one field that errs on the safe side, and a voxel's height
    there has the voxel's p: for peaks that of the smallest dof, whose peaks
    are more frequent; for extents that of the largest, whose clusters are larger.

    Parameters
    ----------
    field : Field
        With ``smoothness``.
    inference : str
        The menu name, for the message.
    extents : bool
        Whether the extent of clusters is tested, not the height of peaks.

    Raises
    ------
    UsageError
        When there is no smoothness: the estimator has no residuals.
    """
    if not isinstance(field.grid, Grid):
        raise UsageError(
            f"--inference {inference} is for volumes: random fields of voxels side by side, and these maps lie on "
            f"{field.grid.words}. Choose another inference."
        )
    if field.smoothness is None:
        msg = (
            f"--inference {inference} needs the smoothness of the residuals, and there is none: this estimator "
            "leaves no residuals that are independent from map to map. Choose another inference."
        )
        raise UsageError(msg)
    null, values = _null_field(field, extents=extents)
    if null.two_sided:
        values = np.abs(values)
    elif field.tail == "negative":
        values = -values
    fwhm = np.array(field.smoothness.fwhm)
    mask = np.zeros(field.grid.shape, dtype=bool)
    mask[field.grid.mask] = field.estimable
    resels = count_resels(mask, fwhm)
    sizes = field.grid.voxel_sizes
    facts = RandomFieldFacts(
        kind=null.kind,
        dof=null.dof,
        two_sided=null.two_sided,
        dof_of="" if field.largest_dof is None else "largest" if extents else "smallest",
        fwhm=tuple(float(mm) for mm in fwhm * sizes),
        resels=tuple(float(count) for count in resels),
        n_maps=field.smoothness.n_maps,
        n_voxels=field.smoothness.n_voxels,
    )
    return Search(null, values, mask, resels, float(np.prod(fwhm)), facts)


def _null_field(field: Field, *, extents: bool) -> tuple[RandomField, Floats]:
    """Choose the null field, and the statistic that is compared with it."""
    if field.statistic is not None and field.dof is not None and field.statistic_name in ("t", "F"):
        two_sided = field.statistic_name == "t" and field.tail == "two-sided"
        rows, smallest = field.dof
        if field.largest_dof is None:
            return RandomField(field.statistic_name, field.dof, two_sided), field.statistic
        dof = min(field.largest_dof, MOST_DOF) if extents else smallest
        heights = z_to_f(field.z, rows, dof) if field.statistic_name == "F" else z_to_t(field.z, dof)
        return RandomField(field.statistic_name, (rows, dof), two_sided), heights
    return RandomField("z", two_sided=field.tail == "two-sided"), field.z
