"""SPM: a first- or second-level folder with its SPM.mat, or loose ``con_`` and ``spmT_`` images."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, InputError
from ibma_app.core.from_files import read_dof
from ibma_app.core.grid import Grid
from ibma_app.core.study import ImportedContrast, Importer, ImportRequest, Study
from ibma_app.images.masks import mask_grid
from ibma_app.images.read import read_header, read_image
from ibma_app.images.spaces import MNI, says_mni
from ibma_app.importers.lazy import LazyMaps
from ibma_app.importers.spm.design import SpmContrast, SpmDesign, read_design
from ibma_app.importers.spm.snpm import is_snpm, read_snpm, stem_of
from ibma_app.importers.units import Scaling, percent, unknown

ENDINGS = (".nii", ".img", ".nii.gz", ".img.gz")
AGREE = 1e-3  # relative difference of spmT from con and ResMS; float32 files agree to 1e-6
_LOOSE = re.compile(r"(con_|spmT_)(.+?)(\.nii|\.img|\.hdr)(\.gz)?$")
_T_WORDS = re.compile(r"SPM\{T_\[([\d.]+)\]\}")
_NAME_WORDS = re.compile(r"contrast(?: -)? \d+: (.+)", re.IGNORECASE)

Read = Callable[[], NDArray[Any]]


def recognises(source: str) -> bool:
    """Return whether a source is a folder of SPM or SnPM, an SPM.mat, or a ``con_``, ``spmT_`` or ``snpmT+`` image."""
    path = Path(source)
    if path.is_dir():
        return (path / "SPM.mat").is_file() or any(_LOOSE.match(one.name) for one in path.iterdir()) or is_snpm(path)
    return path.is_file() and (path.name == "SPM.mat" or _LOOSE.match(path.name) is not None or bool(stem_of(path)))


def read(source: str, request: ImportRequest) -> Study:
    """Read an SPM folder (or its SPM.mat, or one loose image).

    Effects are the ``con_`` images. Their variance is ResMS c' Bcov c; without
    ResMS it follows from con and spmT. F contrasts are listed only: an F has
    no sign, and an ``ess_`` image is a sum of squares.

    Raises
    ------
    InputError, ReadWriteError, DataError
        What is missing, damaged, or was not estimated.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"{source} does not exist. Give the folder that holds SPM.mat, or a con_ image.")
    if path.is_dir() and (path / "SPM.mat").exists():
        path = path / "SPM.mat"
    if path.name == "SPM.mat":
        return _read_model(path)
    if stem_of(path) or (path.is_dir() and is_snpm(path)):
        return read_snpm(path)
    if path.is_dir():
        return _read_loose(path, sorted({_stem(one) for one in path.iterdir() if _LOOSE.match(one.name)}), source)
    if not _LOOSE.match(path.name):
        raise InputError(f"{source} is no SPM folder: give a folder with SPM.mat, or a con_ or spmT_ image.")
    return _read_loose(path.parent, [_stem(path)], source)


def _read_model(path: Path) -> Study:
    """Read an estimated model."""
    design = read_design(path)
    if not design.contrasts:
        raise DataError(f"{path} has no contrasts (xCon is empty): define and estimate them in SPM first.")
    contrasts, listed = [], []
    folder = _Folder(path.parent, design)
    for contrast in design.contrasts:
        reason = _why_listed(folder, contrast)
        if reason:
            listed.append(f"{contrast.stat} contrast {contrast.number}, {contrast.name}: {reason}")
        else:
            contrasts.append(_read_contrast(folder, contrast))
    if not contrasts:
        raise DataError(f"{path}: no T contrast with its images is there. " + " ".join(listed))
    level = "subject" if design.first_level else "group"
    return Study(design.software, str(path.parent), tuple(contrasts), tuple(listed), level)


@dataclass(frozen=True, eq=False)
class _Folder:
    """A model's folder: finds its images, whatever their ending, and caches those that contrasts share."""

    root: Path
    design: SpmDesign
    _kept: dict[Path, NDArray[Any]] = field(default_factory=dict)
    _means: dict[tuple[tuple[int, float], ...], NDArray[Any]] = field(default_factory=dict)

    def read(self, path: Path) -> NDArray[Any]:
        """Read an image that every contrast uses, once."""
        if path not in self._kept:
            self._kept[path] = read_image(path).data
        return self._kept[path]

    def mean(self, shares: Mapping[int, float], paths: Mapping[int, Path], grid: Grid) -> NDArray[Any]:
        """Average the sessions' means by their shares in a contrast, NaN outside the mask."""
        key = tuple(sorted(shares.items()))
        if key not in self._means:
            heights = {column: float(self.design.matrix[:, column].max()) for column in shares}
            mean = sum(share * heights[column] * self.read(paths[column]) for column, share in shares.items())
            self._means[key] = np.where(grid.mask, mean, np.nan)
        return self._means[key]

    def find(self, name: str | None) -> Path | None:
        """Find an image by the name in SPM.mat, with any ending."""
        return None if not name else find_image(self.root, name)

    def images(self, contrast: SpmContrast) -> tuple[Path | None, Path | None]:
        """Find a T contrast's con and spmT images."""
        return (
            self.find(contrast.con or f"con_{contrast.number:04d}.nii"),
            self.find(contrast.spm or f"spmT_{contrast.number:04d}.nii"),
        )

    def betas(self, contrast: SpmContrast) -> dict[Path, float]:
        """Find the estimates with weight in a T contrast, and the weights: {} unless all exist."""
        used = np.flatnonzero(contrast.weights[:, 0])
        paths = [self.find(_beta(self.design, int(column))) for column in used]
        found = [path for path in paths if path is not None]
        weights = contrast.weights[used, 0].tolist()
        return dict(zip(found, weights, strict=True)) if len(found) == len(paths) else {}


def find_image(folder: Path, name: str) -> Path | None:
    """Find an image in a folder by its name, with any ending that SPM uses."""
    stem = re.sub(r"\.(nii|img|hdr)(\.gz)?$", "", name)
    choices = [folder / name, *(folder / f"{stem}{ending}" for ending in ENDINGS)]
    return next((one for one in choices if one.is_file() or one.is_symlink()), None)


def _why_listed(folder: _Folder, contrast: SpmContrast) -> str:
    """Say why a contrast is not imported; "" when it is."""
    if contrast.stat == "F":
        return "an F test has no sign and no effect of one dimension; it is not imported."
    if contrast.stat != "T":
        return "a Bayesian contrast has no sampling variance; it is not imported."
    if contrast.weights.shape[1] != 1:
        return "a T contrast of several rows is none."
    if not contrast.weights.any():
        return "all its weights are zero."
    if folder.images(contrast) == (None, None) and not folder.betas(contrast):
        return f"neither con_{contrast.number:04d} nor spmT_{contrast.number:04d} is in the folder."
    return ""


def _read_contrast(folder: _Folder, contrast: SpmContrast) -> ImportedContrast:
    """Read one T contrast: its grid and scaling now, its maps on access."""
    design = folder.design
    con, spm_t = folder.images(contrast)
    path = con or spm_t or next(iter(folder.betas(contrast)))
    grid = mask_grid(read_image(path).grid, folder.find(design.mask or "mask.nii"))
    weights = design.named_weights(contrast)
    has_effect = con is not None or bool(folder.betas(contrast))
    scaling = _scaling(folder, contrast, grid) if has_effect else unknown("There is no con image, only t.")
    readers, derived, notes, sources = _readers(folder, contrast, scaling)
    n, groups, note = design.subjects(contrast)
    return ImportedContrast(
        name=contrast.name,
        maps=LazyMaps(readers),
        grid=grid,
        dof=design.dof,
        sample_size=n,
        units=scaling.units,
        units_source=scaling.source,
        scaling_factor=scaling.median,
        regressor_height=scaling.height,
        contrast_weights=weights,
        space=MNI if says_mni(grid) else "",
        columns=groups,
        derived=derived,
        sources=tuple(str(one) for one in (folder.design.path, *sources)),
        notes=tuple(filter(None, (*notes, note))),
        number=contrast.number,
    )


def _readers(
    folder: _Folder, contrast: SpmContrast, scaling: Scaling
) -> tuple[dict[str, Read], dict[str, str], list[str], list[Path]]:
    """Return how each kind of map is read, how some are derived, and from which files."""
    con, spm_t = folder.images(contrast)
    residual = folder.find(folder.design.residual or "ResMS.nii")
    factor = folder.design.variance_factor(contrast)
    terms = {con: 1.0} if con is not None else folder.betas(contrast)
    readers: dict[str, Read] = {}
    derived: dict[str, str] = {}
    notes: list[str] = []
    if terms:
        readers["effect"] = partial(_scaled, "effect", scaling, terms)
        if con is None:
            derived["effect"] = (
                f"{', '.join(path.name for path in terms)}, weighed by the contrast (its con is missing)"
            )
        if residual is not None and factor is not None:
            if spm_t is None or _agree(terms, spm_t, folder.read(residual) * factor):
                readers["variance"] = partial(_scaled, "variance", scaling, {residual: factor})
                derived["variance"] = f"{residual.name} and the design (c' Bcov c = {factor:.6g})"
            else:
                notes.append(f"{residual.name} does not fit {spm_t.name}; the variance is (effect / t)^2 instead.")
        elif spm_t is None:
            notes.append("Without ResMS and spmT there is no variance.")
    if spm_t is not None:
        readers["t"] = partial(_scaled, "t", scaling, {spm_t: 1.0})
    used = [*terms, spm_t, residual if "variance" in readers else None]
    return readers, derived, notes, [one for one in used if one is not None]


def _sum(terms: Mapping[Path, float]) -> NDArray[Any]:
    """Read images and return their weighted sum."""
    if list(terms.values()) == [1.0]:
        return read_image(next(iter(terms))).data
    total = sum(read_image(path).data * np.float64(factor) for path, factor in terms.items())
    return np.asarray(total)


def _scaled(kind: str, scaling: Scaling, terms: Mapping[Path, float]) -> NDArray[Any]:
    """Read a map (a weighted sum of images) in the contrast's units."""
    return scaling.scale(kind, _sum(terms))


def _agree(terms: Mapping[Path, float], spm_t: Path, variance: NDArray[Any]) -> bool:
    """Return whether spmT is con / sqrt(ResMS c' Bcov c): a folder may have files of another model."""
    effect, t = _sum(terms), read_image(spm_t).data
    if not effect.shape == t.shape == variance.shape:
        return False
    with np.errstate(all="ignore"):
        ours = effect / np.sqrt(variance)
        apart = np.abs(ours - t) / np.maximum(np.abs(t), 1e-3)
    apart = apart[np.isfinite(apart) & (t != 0)]
    return not apart.size or bool(np.median(apart) <= AGREE)


def _scaling(folder: _Folder, contrast: SpmContrast, grid: Grid) -> Scaling:
    """Find the factor to percent signal change: the constants' estimates are the sessions' means."""
    design = folder.design
    reason = design.why_no_percent(contrast)
    shares = design.session_shares(contrast)
    if reason or not shares:
        return unknown(f"Not percent signal change: {reason or 'the session of its regressors is not known'}.")
    paths = {column: folder.find(_beta(design, column)) for column in shares}
    missing = [_beta(design, column) for column, path in paths.items() if path is None]
    if missing:
        return unknown(
            f"Not percent signal change: {missing[0]}, the estimate of the constant regressor and so the session's "
            "mean, is not in the folder."
        )
    found = {column: path for column, path in paths.items() if path is not None}
    other = next((path.name for path in found.values() if folder.read(path).shape != grid.shape), None)
    if other:
        return unknown(f"Not percent signal change: {other} lies on another grid than the contrast.")
    source = f"session mean {' and '.join(path.name for path in found.values())}"
    mean = folder.mean(shares, found, grid)
    return percent(mean, source, design.named_weights(contrast), design.heights())


def _beta(design: SpmDesign, column: int) -> str:
    """Return the file name of a column's estimate."""
    stated = design.betas[column] if column < len(design.betas) else ""
    return stated or f"beta_{column + 1:04d}.nii"


def _stem(path: Path) -> str:
    """Return the part of a name after con_ or spmT_."""
    found = _LOOSE.match(path.name)
    return found[2] if found else ""


def _read_loose(folder: Path, stems: list[str], source: str) -> Study:
    """Read images without SPM.mat: name and dof are in the headers, units are unknown."""
    contrasts = []
    for stem in stems:
        con, spm_t = find_image(folder, f"con_{stem}.nii"), find_image(folder, f"spmT_{stem}.nii")
        paths = [one for one in (con, spm_t) if one is not None]
        if not paths:
            continue
        kinds = {kind: one for kind, one in (("effect", con), ("t", spm_t)) if one is not None}
        headers = [read_header(one) for one in paths]
        words = [header.description for header in headers]
        name = next((found[1] for text in words if (found := _NAME_WORDS.search(text))), f"con_{stem}")
        stated = [(one, found[1]) for one, text in zip(paths, words, strict=True) if (found := _T_WORDS.search(text))]
        dof = read_dof(stated[0][1], stated[0][0], "SPM{T_[dof]} in its header") if stated else None
        grid = headers[0].grid
        contrasts.append(
            ImportedContrast(
                name=" ".join(name.split()),
                maps=LazyMaps({kind: partial(_volume, one) for kind, one in kinds.items()}),
                grid=grid,
                dof=dof,
                units_source="Not percent signal change: there is no SPM.mat, so neither session mean nor design.",
                space=MNI if says_mni(grid) else "",
                sources=tuple(str(one) for one in paths),
            )
        )
    if not contrasts:
        raise DataError(f"{source} holds no con_ or spmT_ image that can be read.")
    return Study("SPM", source, tuple(contrasts), notes=("No SPM.mat is there: degrees of freedom may be missing.",))


def _volume(path: Path) -> NDArray[Any]:
    return read_image(path).data


IMPORTER = Importer(
    name="spm",
    title="SPM: a first- or second-level folder (SPM.mat with its images), con_ and spmT_ images, or a folder of SnPM",
    recognises=recognises,
    read=read,
    example="sub-01/spm",
)
