"""The design in an SPM.mat: contrasts, degrees of freedom, sessions, regressors, subjects."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, ReadWriteError
from ibma_app.core.from_files import read_dof, show
from ibma_app.importers.spm.matlab import as_list, as_number, as_text, read_struct

Floats = NDArray[np.float64]

_KEEP = frozenset(
    {
        *("SPMid", "nscan", "Sess", "row", "xBF", "order", "xX", "X", "name", "iB", "Bcov", "erdf"),
        *("xCon", "STAT", "c", "eidf", "Vcon", "Vspm", "fname", "Vbeta", "VResMS", "VM"),
    }
)
_SESSION = re.compile(r"Sn\((\d+)\)\s*")
_BASIS = re.compile(r"\*bf\((\d+)\)\s*$")
MOST_COLUMNS = 10_000  # of a design
LONGEST_NAME, LONGEST_PATH = 255, 4096  # bytes of a file's name, characters of a path
_MODULATOR = re.compile(r"x.+\^\d+\*bf\(1\)\s*$")


@dataclass(frozen=True, eq=False)
class SpmContrast:
    """One entry of xCon."""

    number: int  # from 1
    name: str
    stat: str  # "T", "F" or "P"
    weights: Floats  # (P, Q)
    con: str | None  # names of files; None: not estimated
    spm: str | None


@dataclass(frozen=True, eq=False)
class SpmDesign:
    """The contents of an SPM.mat that are used."""

    path: Path
    software: str
    contrasts: tuple[SpmContrast, ...]
    matrix: Floats  # (scans, P)
    columns: tuple[str, ...]
    constants: tuple[int, ...]  # columns of the sessions' means
    covariance: Floats | None  # (P, P): Bcov, covariance of the estimates over the residual variance
    dof: float | None
    first_level: bool
    basis: str  # SPM's name of the basis functions: "hrf", "hrf (with time derivative)", "Finite Impulse Response"
    basis_order: int
    betas: tuple[str, ...]  # file of each column's estimate
    residual: str | None  # file of the residual variance, ResMS
    mask: str | None

    def named_weights(self, contrast: SpmContrast) -> dict[str, float]:
        """Return a T contrast's weights that are not zero, by column."""
        pairs = zip(self.columns, contrast.weights[:, 0], strict=False)
        return {name: float(weight) for name, weight in pairs if weight != 0}

    def variance_factor(self, contrast: SpmContrast) -> float | None:
        """Return c' Bcov c: the contrast's sampling variance over the residual variance."""
        weights = contrast.weights[:, 0]
        if self.covariance is None or self.covariance.shape != (weights.size, weights.size):
            return None
        factor = float(weights @ self.covariance @ weights)
        return factor if np.isfinite(factor) and factor > 0 else None

    def heights(self) -> dict[str, float]:
        """Return the height of each column, peak to peak within its session (0 elsewhere)."""
        heights = np.ptp(self.matrix, axis=0)
        return {name: float(height) for name, height in zip(self.columns, heights, strict=True)}

    def why_no_percent(self, contrast: SpmContrast) -> str:
        """Say why a contrast cannot become percent signal change, whatever its session's mean; "" if it can."""
        if not self.first_level:
            return "a second-level SPM.mat does not tell the scaling of the images that it was given"
        if not self.constants:
            return "the design has no constant regressor, so the session's mean is not known"
        for name in self.named_weights(contrast):
            basis = _BASIS.search(name)
            if basis and int(basis[1]) > 1:
                return f"it weighs {name}, which is not the response's height but its shape"
            if basis and _MODULATOR.search(_SESSION.sub("", name)):
                return f"it weighs {name}, a parametric modulator, in units of its own"
            if self.columns.index(name) in self.constants:
                return f"it weighs {name}, the session's mean itself"
        if self.basis_order > 1 and not self.basis.lower().startswith("hrf"):
            return f"no one function of its basis ({self.basis or 'not named'}) is the response's height"
        return ""

    def session_shares(self, contrast: SpmContrast) -> dict[int, float]:
        """Return each session's constant column and its share in a contrast (the shares sum to 1).

        A regressor belongs to the sessions in whose scans it is not 0: its own, or all that were concatenated
        (spm_fmri_concatenate: one Sn(1) of several constants), in proportion to their scans.
        """
        weights, constants = self.named_weights(contrast), list(self.constants)
        places = {name: column for column, name in enumerate(self.columns)}
        regressors = (self.matrix[:, [places[name] for name in weights]] != 0).astype(np.float32)
        sessions = (self.matrix[:, constants] != 0).astype(np.float32)
        scans = np.where(sessions.T @ regressors > 0, sessions.sum(axis=0, dtype=np.float64)[:, None], 0.0)  # (S, W)
        behind = scans.sum(axis=0)
        sizes = (scans * np.abs(list(weights.values())) / np.where(behind > 0, behind, 1.0)).sum(axis=1)
        total = float(sizes.sum())
        return {constants[row]: float(sizes[row]) / total for row in np.flatnonzero(sizes)} if total else {}

    def subjects(self, contrast: SpmContrast) -> tuple[float | None, dict[str, float], str]:
        """Return how many subjects are behind a second-level contrast.

        Returns
        -------
        n : float or None
        groups : dict
            ``n1`` and ``n2`` of a contrast of two groups.
        note : str
        """
        if self.first_level:
            return None, {}, ""
        scans = self.matrix.shape[0]
        per_subject = [name for name in self.columns if "subject" in name.lower()]
        if len(per_subject) > 1:
            return float(len(per_subject)), {}, ""
        groups = [self.matrix[:, i] for i in range(self.matrix.shape[1]) if self._is_indicator(i)]
        whole = [column for column in groups if column.sum() < scans]
        if len(whole) > 2:
            return None, {}, "Its design has more than two groups or conditions, so n is not known: give --sample-size."
        weights = contrast.weights[:, 0]
        used = [self.matrix[:, i] for i in np.flatnonzero(weights) if i < self.matrix.shape[1]]
        indicators = all(any(column is other or np.array_equal(column, other) for other in whole) for column in used)
        if len(used) == 2 and indicators and abs(weights.sum()) < 1e-9:
            return float(scans), {"n1": float(used[0].sum()), "n2": float(used[1].sum())}, ""
        if len(used) == 1 and indicators and len(whole) == 2:
            return float(used[0].sum()), {}, ""
        return float(scans), {}, ""

    def _is_indicator(self, column: int) -> bool:
        values = self.matrix[:, column]
        return bool(np.isin(values, (0.0, 1.0)).all() and values.any())


def read_design(path: Path) -> SpmDesign:
    """Read an SPM.mat.

    Raises
    ------
    InputError, ReadWriteError
        It is missing or damaged.
    DataError
        It is not an SPM.mat, or nothing was estimated yet.
    """
    spm = read_struct(path, "SPM", _KEEP)
    design = spm.get("xX")
    matrix = _numbers(path, "xX.X", design.get("X")) if isinstance(design, dict) else np.empty((0, 0))
    if not isinstance(design, dict) or not matrix.size:
        raise DataError(f"{path} holds no design (xX.X): specify and estimate the model in SPM first.")
    if matrix.shape[1] > MOST_COLUMNS:
        raise DataError(f"{path}: the design has {matrix.shape[1]} regressors (xX.X); no SPM design is that large.")
    names = tuple(as_text(name) for name in as_list(design.get("name")))
    columns = tuple(names[i] if i < len(names) and names[i] else f"column {i + 1}" for i in range(matrix.shape[1]))
    covariance = _numbers(path, "xX.Bcov", design.get("Bcov"))
    basis = spm.get("xBF")
    order = as_number(basis.get("order")) if isinstance(basis, dict) else None
    dof = _numbers(path, "xX.erdf", design.get("erdf"))
    return SpmDesign(
        path=path,
        software=_software(spm.get("SPMid")),
        contrasts=_contrasts(path, spm, matrix.shape[1]),
        matrix=matrix,
        columns=_unique(columns),
        constants=_constants(_numbers(path, "xX.iB", design.get("iB")), columns),
        covariance=covariance if covariance.size else None,
        dof=read_dof(float(dof.flat[0]), path, "SPM.xX.erdf") if dof.size else None,
        first_level=bool(as_list(spm.get("Sess"))) or any(_SESSION.match(name) for name in columns),
        basis=as_text(basis.get("name")) if isinstance(basis, dict) else "",
        basis_order=int(order or 1),
        betas=tuple(_file(volume) or "" for volume in as_list(spm.get("Vbeta"))),
        residual=_file(spm.get("VResMS")),
        mask=_file(spm.get("VM")),
    )


def _numbers(path: Path, key: str, value: Any) -> Floats:
    """Return a field of real, finite numbers: two axes, without elements where it is missing or empty.

    Raises
    ------
    ReadWriteError
        It is something else.
    """
    if value is None or (isinstance(value, str | list) and not value):
        return np.empty((0, 0))
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub" or value.ndim != 2:
        kind = "an array of another shape" if isinstance(value, np.ndarray) else show(value)
        raise ReadWriteError(f"{path} is damaged: {key} is {kind}, where SPM writes numbers.")
    numbers = np.asarray(value, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ReadWriteError(f"{path} is damaged: {key} holds NaN or infinity, where SPM writes numbers.")
    return numbers


def _constants(stated: Floats, columns: tuple[str, ...]) -> tuple[int, ...]:
    """Find the columns of the sessions' means: those of iB, else those named so."""
    found = tuple(int(i) - 1 for i in np.unique(stated) if 0 < i <= len(columns) and i == int(i))
    return found or tuple(i for i, name in enumerate(columns) if re.fullmatch(r"Sn\(\d+\) constant", name))


def _contrasts(path: Path, spm: Mapping[str, Any], columns: int) -> tuple[SpmContrast, ...]:
    """Read xCon; a contrast without weights is left out."""
    found = []
    for number, entry in enumerate(as_list(spm.get("xCon")), start=1):
        weights = (
            _numbers(path, f"the weights of contrast {number}", entry.get("c")) if isinstance(entry, dict) else None
        )
        if weights is None or not weights.size:
            continue
        weights = weights.reshape(columns, -1) if 1 in weights.shape and weights.size == columns else weights
        if weights.shape[0] != columns:
            raise DataError(
                f"{path}: contrast {number} has {weights.shape[0]} weights, the design {columns} columns: "
                "the file belongs to another model than its contrasts. Estimate them again."
            )
        name = as_text(entry.get("name")) or f"contrast {number}"
        stat = as_text(entry.get("STAT")) or "T"
        found.append(SpmContrast(number, name, stat, weights, _file(entry.get("Vcon")), _file(entry.get("Vspm"))))
    return tuple(found)


def _file(volume: Any) -> str | None:
    """Return the file name of a volume's record, without folders (of any system) and ``,1``."""
    if isinstance(volume, list):
        volume = volume[0] if volume else None
    text = as_text(volume.get("fname")) if isinstance(volume, dict) else ""
    name = re.sub(r",\d+$", "", PureWindowsPath(text[-LONGEST_PATH:]).name)
    return name if 0 < len(os.fsencode(name)) <= LONGEST_NAME else None


def _software(spm_id: Any) -> str:
    """Read the version: ``SPM12: spm_spm (v6842)`` -> ``SPM12``."""
    found = re.match(r"\s*(SPM\w+)", as_text(spm_id))
    return found[1] if found else "SPM"


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    """Number duplicate names."""
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} [{i + 1}]" for i, name in enumerate(names))
