"""A FEAT folder: its maps, their space and their names."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibma_app.core.errors import IbmaError
from ibma_app.core.from_files import read_text
from ibma_app.core.study import NATIVE
from ibma_app.images.read import read_grid
from ibma_app.images.spaces import MNI, says_mni
from ibma_app.importers.fsl.design import FeatDesign, lower_contrast, read_design, read_dof

KINDS = {"effect": "cope", "variance": "varcope", "t": "tstat", "z": "zstat"}
FSL_TEMPLATE = "MNI152NLin6Asym"
ENDINGS = (".nii.gz", ".nii", ".img.gz", ".img")
LARGEST_MATRIX = 2**16  # bytes of FLIRT's 4 x 4 numbers
SCANNER = 1  # of sform and qform: NIFTI_XFORM_SCANNER_ANAT


def find_image(folder: Path, stem: str) -> Path | None:
    """Find an image by its name without ending."""
    choices = (folder / f"{stem}{ending}" for ending in ENDINGS)
    return next((one for one in choices if one.is_file() or one.is_symlink()), None)


def numbered(folder: Path, stem: str = "cope") -> list[int]:
    """List the numbers of the images ``<stem><number>``, which may have gaps."""
    pattern = re.compile(rf"{stem}(\d+)\.(nii|img)(\.gz)?")
    names = (pattern.fullmatch(one.name) for one in folder.iterdir()) if folder.is_dir() else ()
    return sorted({int(found[1]) for found in names if found})


@dataclass(frozen=True, eq=False)
class FeatFolder:
    """A FEAT folder, its maps chosen: those in standard space where there are any."""

    root: Path
    base: Path  # where the maps' mask, mean and stats lie: root or its reg_standard
    design: FeatDesign
    space: str  # a template's label, NATIVE, or "" where it is unknown
    space_reason: str
    was_registered: bool  # FEAT has a transformation to standard space, so its own maps are not in that space
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, root: Path, *, prefer_native: bool = False) -> "FeatFolder":
        """Open a FEAT folder; ``prefer_native`` ignores reg_standard."""
        design = read_design(root)
        registered = root / "reg_standard"
        template = _template(design.settings.get("regstandard", ""))
        if numbered(registered / "stats") and not (prefer_native and numbered(root / "stats")):
            note = f"The maps in standard space are taken (reg_standard); template: {template}."
            return cls(root, registered, design, template, "", was_registered=True, notes=(note,))
        if design.is_group or root.parent.suffix == ".gfeat":
            return cls(root, root, design, template, "", was_registered=False)
        space, reason, was_registered = _native_or_not(root, template)
        return cls(root, root, design, space, reason, was_registered)

    @property
    def stats(self) -> Path:
        """The folder of the maps."""
        return self.base / "stats"

    @property
    def is_group(self) -> bool:
        """Whether it combines results of lower levels."""
        return self.design.is_group or self._in_gfeat

    @property
    def _in_gfeat(self) -> bool:
        return self.root.parent.suffix == ".gfeat"

    @property
    def mask(self) -> Path | None:
        """The mask image."""
        return find_image(self.base, "mask")

    @property
    def mean(self) -> Path | None:
        """The session's mean image."""
        own = find_image(self.base, "mean_func")
        return find_image(self.root.parent, "mean_func") if own is None and self._in_gfeat else own

    @property
    def software(self) -> str:
        """FEAT's version, where design.fsf has it."""
        version = self.design.settings.get("version", "")
        return f"FSL (FEAT {version})" if version else "FSL"

    def subjects(self, number: int) -> tuple[float | None, dict[str, float]]:
        """Return the subjects of a group contrast (``n1``, ``n2`` of two); None for first levels and fixed effects."""
        return (None, {}) if not self.is_group or self.design.is_fixed else self.design.subjects(number)

    @property
    def dof(self) -> float | None:
        """The degrees of freedom in the text file ``dof``."""
        return self.dof_of(self.stats, self.root / "stats", self.root)

    @staticmethod
    def dof_of(*folders: Path) -> float | None:
        """Read the first text file ``dof`` of some folders."""
        return next((value for folder in folders if (value := read_dof(folder / "dof")) is not None), None)

    def contrast_name(self, number: int) -> str:
        """Name a contrast; at group level after the lower level's, and the group's own when it has several."""
        own = self.design.names.get(number, "")
        if not self.is_group:
            return own or f"cope{number}"
        lower, name = lower_contrast(self.root, self.design.inputs)
        name = name or self._name_below(lower) or (f"cope{lower}" if lower is not None else "")
        if not name or len(numbered(self.stats)) > 1:
            return " ".join(filter(None, (name, own or f"contrast{number}")))
        return name

    def _name_below(self, number: int | None) -> str:
        """Look up the lower level's name in the first input that still exists."""
        folder = self.lower_folder()
        return "" if folder is None or number is None else read_design(folder).names.get(number, "")

    def lower_folder(self) -> Path | None:
        """Return the first input that is a FEAT folder and still there."""
        return next((place for place in self.lower_folders() if is_there(place / "design.con")), None)

    def lower_folders(self) -> tuple[Path, ...]:
        """Return the FEAT folders that went in, there or not."""
        image = re.compile(r"(/reg_standard)?/stats/cope\d+(\.(nii|img|hdr)(\.gz)?)?/?$")
        return tuple(dict.fromkeys(Path(image.sub("", text)) for text in self.design.inputs if text))


def is_there(path: Path) -> bool:
    """Return whether a file is there, whatever its name is made of."""
    try:
        return path.is_file()
    except OSError:  # a name that is longer than a file system takes
        return False


def _template(regstandard: str) -> str:
    """Name the template that FEAT registered to."""
    name = Path(regstandard).name
    if not name or "MNI152" in name:
        return FSL_TEMPLATE
    return MNI if "MNI" in name.upper() else ""


def _native_or_not(root: Path, template: str) -> tuple[str, str, bool]:
    """Return the space of a first-level folder's own maps, why, and whether FEAT registered them somewhere."""
    reg = root / "reg"
    matrix = _matrix(reg / "example_func2standard.mat")
    first = numbered(root / "stats")
    cope = find_image(root / "stats", f"cope{first[0]}") if first else None
    try:
        grid = read_grid(cope) if cope else None
        standard = find_image(reg, "standard")
        there = read_grid(standard) if standard else None
    except IbmaError:
        return "", "", False
    at_home = matrix is not None and np.allclose(matrix, np.eye(4), atol=1e-4)
    if at_home and grid is not None and there is not None and there.matches(grid):
        return template, "", False
    if matrix is not None or any(reg.glob("example_func2*")) or find_image(reg, "standard"):
        return NATIVE, "its reg folder leads from them to other images", True
    if grid is not None and says_mni(grid):
        return MNI, "", False
    if grid is not None and SCANNER in (grid.sform_code, grid.qform_code):
        return NATIVE, "their headers say scanner coordinates", False
    return "", "", False


def _matrix(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    """Read FLIRT's matrix; None when it is not there."""
    try:
        matrix = np.loadtxt(io.StringIO(read_text(path, LARGEST_MATRIX)), ndmin=2)
    except (OSError, ValueError):
        return None
    return matrix if matrix.shape == (4, 4) else np.full((4, 4), np.nan)
