"""SnPM: of the folder of a nonparametric analysis, its t map; the rest is listed."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, IbmaError
from ibma_app.core.from_files import read_dof
from ibma_app.core.study import ImportedContrast, Study
from ibma_app.images.read import read_header, read_image
from ibma_app.images.spaces import MNI, says_mni
from ibma_app.importers.lazy import LazyMaps
from ibma_app.importers.spm.matlab import read_value

_IMAGE = re.compile(r"(?P<stem>.+)\.(nii|img)(\.gz)?")
_T = re.compile(r"(?i)snpmT\+")
_T_WORDS = re.compile(r"(?<![A-Za-z ])T_\{([\d.]+)\} statistic")
_PSEUDO_WORDS = re.compile(r"(?i)SmVar")
_OTHERS = {
    r"snpmT-": "the same t with its sign turned",
    r"snpmF": "an F has no sign",
    r"lP[+-]?": "-log10 of the uncorrected p",
    r"lP_FWE[+-]?": "-log10 of p after correction (FWE)",
    r"lP_FDR[+-]?": "-log10 of p after correction (FDR)",
    r"lwP[+-]?": "-log10 of the p of combined statistics",
    r"beta_\d+": "parameter estimates, without an error",
    r"ResMS": "residual squares",
    r"SnPMt?_filtered.*": "thresholded: only what was significant is left",
}
"""The other images that SnPM writes, by the stems of their names."""
_PSEUDO = (
    "{path} is no t but a pseudo-t: its variance was smoothed (SnPM's variance smoothing), so it has no t "
    "distribution. Run SnPM without variance smoothing, or analyse the contrast images with ibma-app."
)


def stem_of(path: Path) -> str | None:
    """Return the stem of SnPM's t image, "snpmT+"; None for other files."""
    found = _IMAGE.fullmatch(path.name)
    return found["stem"] if found and _T.fullmatch(found["stem"]) else None


def find_t(folder: Path) -> Path | None:
    """Find the t image in an SnPM folder."""
    return next((path for path in sorted(folder.iterdir()) if stem_of(path)), None)


def is_snpm(folder: Path) -> bool:
    """Return whether a folder is of SnPM."""
    return find_t(folder) is not None or (folder / "SnPM.mat").is_file() or (folder / "SnPMcfg.mat").is_file()


def read_snpm(path: Path) -> Study:
    """Read the t map of an SnPM folder, or of its ``snpmT+`` image.

    Raises
    ------
    InputError, ReadWriteError, DataError
        There is no t (an F test), or it is a pseudo-t: of a smoothed variance.
    """
    folder = path if path.is_dir() else path.parent
    t = find_t(folder) if path.is_dir() else path
    listed = tuple(f"{name}: {what}; it is not imported" for name, what in _others(folder).items())
    if t is None:
        raise DataError(f"{folder} has no snpmT+ image, the t map of SnPM. {'; '.join(listed)}".strip())
    header = read_header(t)
    stated = _T_WORDS.search(header.description)
    if _PSEUDO_WORDS.search(header.description) or _number(folder, "SnPMcfg.mat", "bVarSm"):
        raise DataError(_PSEUDO.format(path=t))
    dof: float | None = None
    if stated:
        dof = read_dof(stated[1], t, "T_{dof} in its header")
    elif (number := _number(folder, "SnPM.mat", "df")) is not None:
        dof = read_dof(number, folder / "SnPM.mat", "df")
    contrast = ImportedContrast(
        name=folder.name or "snpmT+",
        maps=LazyMaps({"t": partial(_volume, t)}),
        grid=header.grid,
        dof=dof,
        units_source="SnPM's t alone is read: an effect has no error of its own there.",
        space=MNI if says_mni(header.grid) else "",
        sources=(str(t),),
    )
    return Study("SnPM", str(path), (contrast,), listed=listed, level="group")


def _others(folder: Path) -> dict[str, str]:
    """Say what the other images of SnPM in a folder are."""
    others = {}
    for path in sorted(folder.iterdir()):
        found = _IMAGE.fullmatch(path.name)
        if not found:
            continue
        for pattern, what in _OTHERS.items():
            if re.fullmatch(pattern, found["stem"], re.IGNORECASE):
                others[path.name] = what
    return others


def _number(folder: Path, file: str, name: str) -> float | None:
    """Read a number of one of SnPM's MATLAB files; None where it is not there or cannot be read."""
    try:
        value: Any = np.asarray(read_value(folder / file, name, ()), dtype=np.float64)
    except (IbmaError, TypeError, ValueError):
        return None
    return float(value.flat[0]) if value.size == 1 else None


def _volume(path: Path) -> NDArray[Any]:
    return read_image(path).data
