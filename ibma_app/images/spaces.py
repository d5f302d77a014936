"""Names of templates in other software, and what they are called in file names."""

import re
from collections.abc import Sequence

import numpy as np

from ibma_app.core.grid import Grid
from ibma_app.core.labels import make_label
from ibma_app.core.study import NATIVE

MNI = "MNI152"
"""The label of a space that is only known to be one of MNI's."""
_MNI_CODE = 4  # of sform and qform: NIFTI_XFORM_MNI_152
# Where the box of an image in MNI space may lie, mm: the 1 mm template's box and a generous margin.
_BOX = ((-130.0, 130.0), (-160.0, 130.0), (-130.0, 150.0))

_LABELS = {  # letters and digits of the name, lowercase
    # AFNI (TEMPLATE_SPACE, views)
    "orig": NATIVE,
    "acpc": NATIVE,
    "tlrc": "Talairach",
    "mnin27": "MNIColin27",
    "mnianat": "",  # Colin 27 in SPM's anatomy toolbox: 4 to 5 mm away from MNI, whatever its name says
    "mni1522009casym": "MNI152NLin2009cAsym",
    "mni2009casym": "MNI152NLin2009cAsym",
    "mni152t12009c": "MNI152NLin2009cAsym",
    # NIDM (names of versions before 1.0; those of NeuroVault are these without "CoordinateSystem")
    "subject": NATIVE,
    "custom": "",
    "standardized": "",
    "world": "",
    "colin27": "MNIColin27",
    "mni305": "MNI305",
    "ixi549": "IXI549Space",
    "icbm452air": "ICBM452AirSpace",
    "icbm452warp5": "ICBM452Warp5Space",
    "icbmmni152linear": "MNI152Lin",
    "icbmmni152nonlinear6thgeneration": "MNI152NLin6Asym",
    **{
        f"icbmmni152nonlinear2009{letter}{word}symmetric": f"MNI152NLin2009{letter}{short}"
        for letter in "abc"
        for word, short in (("a", "Asym"), ("", "Sym"))
    },
    # NIDM's numbers since 1.0
    "nidm0000009": "MNIColin27",
    "nidm0000017": "",
    "nidm0000038": "ICBM452AirSpace",
    "nidm0000039": "ICBM452Warp5Space",
    "nidm0000040": "MNI152Lin",
    "nidm0000041": "MNI152NLin2009aAsym",
    "nidm0000042": "MNI152NLin2009aSym",
    "nidm0000043": "MNI152NLin2009bAsym",
    "nidm0000044": "MNI152NLin2009bSym",
    "nidm0000045": "MNI152NLin2009cAsym",
    "nidm0000046": "MNI152NLin2009cSym",
    "nidm0000047": "MNI152NLin6Asym",
    "nidm0000050": "IXI549Space",
    "nidm0000051": MNI,
    "nidm0000055": "MNI305",
    "nidm0000075": "",
    "nidm0000077": NATIVE,
    "nidm0000078": "Talairach",
    # NeuroVault, and words in tables
    "genericmni": MNI,
    "mni": MNI,
    "mni152": MNI,
    "talairach": "Talairach",
    "native": NATIVE,
    "other": "",
    "unknown": "",
    "na": "",
    "none": "",
    "": "",
}


def template_label(name: str) -> str:
    """Return the label of a template by any software's name for it.

    Parameters
    ----------
    name : str
        ``TT_N27``, ``GenericMNI``, ``IcbmMni152NonLinear6thGenerationCoordinateSystem``,
        ``NIDM_0000051``, or a label as in BIDS file names.

    Returns
    -------
    str
        A label; `core.study.NATIVE` for a subject's own space; "" when the
        name does not tell. Names that are not known become their letters and digits.
    """
    letters = make_label(name)
    key = letters.lower().removesuffix("coordinatesystem")
    if key in _LABELS:
        return _LABELS[key]
    if key.startswith("tt") and re.match(r"(?i)tt_", name):
        return "Talairach"  # AFNI's TT_N27, TT_avg152, ...: templates that were brought into Talairach's frame
    return letters


def is_mni(space: str | None) -> bool:
    """Tell whether a label is of the MNI family, whose maps may be pooled: MNI152NLin6Asym, SPM12's IXI549Space, ..."""
    return str(space or "").upper().startswith(("MNI", "IXI549SPACE"))


def has_mni152_shape(space: str | None) -> bool:
    """Tell whether nilearn's MNI152 brain fits a space, behind its maps and as their mask: MNI's, but no child's."""
    return is_mni(space) and not str(space).upper().startswith(("MNIINFANT", "MNIPEDIATRIC"))


def masked_to_mni152(unit: str, spaces: Sequence[str | None]) -> bool:
    """Tell whether ``--mask auto`` keeps an analysis within nilearn's MNI152 brain: studies, all in spaces it fits.

    Parameters
    ----------
    unit : "run", "subject" or "study"
        What one observation is.
    spaces : sequence of str or None
        The observations' labels.
    """
    return unit == "study" and bool(spaces) and all(has_mni152_shape(space) for space in spaces)


def lies_in_mni152(grid: Grid, space: str | None) -> bool:
    """Tell whether nilearn's MNI152 brain lies where maps do: the header states a place, the space has its shape."""
    return grid.placed and has_mni152_shape(space)


def says_mni(grid: Grid) -> bool:
    """Tell whether the header itself says MNI152."""
    return grid.sform_code == _MNI_CODE or (grid.sform_code == 0 and grid.qform_code == _MNI_CODE)


def outside_mni(grid: Grid) -> str:
    """Say in what way an image's box cannot be that of a map in MNI space; "" when it can."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape], [1], indexing="ij")).reshape(4, -1)
    low, high = (grid.affine @ corners)[:3].min(axis=1), (grid.affine @ corners)[:3].max(axis=1)
    for axis, (least, most), one, two in zip("xyz", _BOX, low, high, strict=True):
        if one < least or two > most:
            return f"its box reaches from {one:.0f} to {two:.0f} mm along {axis}"
    if not (low < 0).all() or not (high > 0).all():
        return "its box does not hold the origin"
    return ""
