"""FEAT's text files: contrasts, regressors and their heights, degrees of freedom, options."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma_app.core import from_files
from ibma_app.core.errors import DataError, ReadWriteError
from ibma_app.core.from_files import number_in, show, whole_number_in
from ibma_app.importers.units import NEGLIGIBLE

_NAME = re.compile(r"/ContrastName(\d+)[ \t]*(.*)")
_SETTING = re.compile(r'^[ \t]*set[ \t]+(?:fmri\(([^)\n]+)\)|(feat_files)\((\d+)\))[ \t]+"?([^"\n]*)"?', re.MULTILINE)
LARGEST_TEXT = 64 * 2**20  # bytes: a design of 10,000 points and 500 regressors
MOST_COLUMNS = 2000  # of a design
LONGEST_LEVEL = 1000  # characters of design.lev
_COUNTS = re.compile(r"(evs_orig|evs_real|basisfnum\d*|nharmonics\d*)")  # settings that say how many of something
_BASIS = {"4": "Gamma basis", "5": "sine basis", "6": "FIR basis", "7": "custom basis"}  # of fmri(convolve)
CUSTOM_BASIS = "7"
SINUSOID = "1"  # of fmri(shape)
_COPE_IMAGE = re.compile(r"/stats/cope(\d+)(?:\.(?:nii|img|hdr)(?:\.gz)?)?/?$")
FIXED_EFFECTS = "3"  # of fmri(mixed_yn)


@dataclass(frozen=True, eq=False)
class FeatDesign:
    """A FEAT folder's design; missing parts are empty."""

    names: Mapping[int, str] = field(default_factory=dict)  # by the contrast's number
    weights: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)  # by the contrast's number: (P,)
    matrix: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))  # (points, P)
    heights: tuple[float, ...] = ()  # of the regressors
    columns: tuple[str, ...] = ()
    shapes: frozenset[str] = frozenset()  # columns that are a response's shape: derivatives, basis functions
    settings: Mapping[str, str] = field(default_factory=dict)  # design.fsf
    inputs: tuple[str, ...] = ()  # feat_files of design.fsf

    @property
    def is_group(self) -> bool:
        """Whether its inputs are results of lower levels."""
        return self.settings.get("level") == "2"

    @property
    def is_fixed(self) -> bool:
        """Whether it is a fixed-effects analysis: runs of one subject."""
        return self.settings.get("mixed_yn") == FIXED_EFFECTS

    def named_weights(self, number: int) -> dict[str, float]:
        """Return a contrast's weights that are not zero, by regressor; {} when they are not known."""
        weights = self.weights.get(number, np.empty(0))
        largest = np.abs(weights).max(initial=0.0)
        names = [self.columns[i] if i < len(self.columns) else f"EV{i + 1}" for i in range(weights.size)]
        return {
            name: float(weight)
            for name, weight in zip(names, weights, strict=True)
            if abs(weight) > NEGLIGIBLE * largest
        }

    def named_heights(self) -> dict[str, float]:
        """Return the height of each regressor, peak to peak."""
        heights = self.heights or tuple(np.ptp(self.matrix, axis=0)) if self.matrix.size else self.heights
        return {self.columns[i] if i < len(self.columns) else f"EV{i + 1}": float(h) for i, h in enumerate(heights)}

    def residual_dof(self) -> float | None:
        """Return points less the design's rank; None when the matrix is not there."""
        if not self.matrix.size:
            return None
        return float(self.matrix.shape[0] - np.linalg.matrix_rank(self.matrix))

    def subjects(self, number: int) -> tuple[float | None, dict[str, float]]:
        """Return how many subjects are behind a group contrast: not always as many as the analysis has inputs.

        Returns
        -------
        n : float or None
            None: neither matrix nor inputs are there.
        groups : dict
            ``n1`` and ``n2`` of a contrast of two groups.
        """
        rows = self.matrix.shape[0] or len(self.inputs)
        weights = self.weights.get(number, np.empty(0))
        if not self.matrix.size or weights.size != self.matrix.shape[1]:
            return (float(rows) if rows else None), {}
        weighed = np.abs(weights) > NEGLIGIBLE * np.abs(weights).max()
        used, others = self.matrix[:, weighed].T, self.matrix[:, ~weighed].T
        own = [column for column in others if _is_group(column) and column.sum() > 1]
        # repeated measures: a column for each subject without weight (few inputs each; groups have many)
        if own and len(own) > max(2, max(column.sum() for column in own)) and (sum(own) == 1).all():
            return float(len(own)), {}
        if len(used) == 1:
            return _of_one_column(used[0], others)
        if not all(_is_group(column) for column in used) or (used.sum(axis=0) > 1).any():
            return float(rows), {}
        sizes = used.sum(axis=1)
        is_difference = len(used) == 2 and abs(weights.sum()) < NEGLIGIBLE * np.abs(weights).max()
        return float(sizes.sum()), ({"n1": float(sizes[0]), "n2": float(sizes[1])} if is_difference else {})


def _is_group(column: NDArray[np.float64]) -> bool:
    """Return whether a regressor marks the members of a group (or the inputs of a subject)."""
    return bool(np.isin(column, (0.0, 1.0)).all() and 0 < column.sum() < column.size)


def _of_one_column(column: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, dict[str, float]]:
    """Return how many subjects are behind a contrast that weighs one regressor of a group design."""
    high = column == column.max()
    two = len(np.unique(column)) == 2 and any(np.ptp(other) == 0 and other.any() for other in others)
    if two:  # beside the mean of all: the difference of two groups
        return float(column.size), {"n1": float(high.sum()), "n2": float((~high).sum())}
    return float(column.sum() if _is_group(column) else column.size), {}


def read_design(folder: Path) -> FeatDesign:
    """Read ``design.con``, ``design.mat`` and ``design.fsf`` of a folder, those that are there.

    Raises
    ------
    ReadWriteError
        One of them is damaged.
    """
    contrasts, design = _read_vest(folder / "design.con"), _read_vest(folder / "design.mat")
    settings, inputs = _read_fsf(folder / "design.fsf")
    numbers = _numbers(contrasts)
    count = design.matrix.shape[1] or contrasts.matrix.shape[1]
    columns, shapes = _name_columns(settings, count)
    return FeatDesign(
        names=contrasts.names,
        weights={number: contrasts.matrix[row] for row, number in enumerate(numbers)},
        matrix=design.matrix,
        heights=design.heights,
        columns=columns,
        shapes=shapes,
        settings=settings,
        inputs=inputs,
    )


@dataclass(frozen=True, eq=False)
class _Vest:
    """A file in FSL's VEST format."""

    names: dict[int, str] = field(default_factory=dict)
    heights: tuple[float, ...] = ()
    matrix: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))


def _read_vest(path: Path) -> _Vest:
    """Read a VEST file; an empty one when it is not there."""
    text = _text(path)
    if not text:
        return _Vest()
    numbered = [(whole_number_in(number), " ".join(name.split())) for number, name in _NAME.findall(text)]
    names = {number: name for number, name in numbered if number is not None}
    head, found, body = text.partition("/Matrix")
    try:
        heights = re.search(r"/PPheights\s+(.*)", head)
        rows = [_floats(line) for line in body.splitlines() if line.strip()] if found else []
        if len({row.size for row in rows}) > 1:
            raise ValueError("its rows have different lengths")
        if rows and rows[0].size > MOST_COLUMNS:
            raise ValueError(f"its matrix has {rows[0].size} columns, and no design has that many")
        matrix = np.array(rows) if rows else np.empty((0, 0))
        return _Vest(names, tuple(_floats(heights[1]).tolist()) if heights else (), matrix)
    except ValueError as error:
        raise ReadWriteError(f"{path} is damaged: {error}. Copy it again.") from None


def _floats(line: str) -> NDArray[np.float64]:
    """Read the numbers of a line."""
    words = line.split()
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError:
        odd = next((word for word in words if number_in(word) is None), line)
        raise ValueError(f"{show(odd)} is no number") from None
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    return values


def _numbers(contrasts: _Vest) -> list[int]:
    """Return which contrast each row of the matrix is: names may leave numbers out, rows seldom do."""
    rows = contrasts.matrix.shape[0]
    named = sorted(contrasts.names)
    if len(named) == rows and named and named[-1] > rows:
        return named
    return list(range(1, rows + 1))


def _read_fsf(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read the options of a design.fsf, as text alone: it is a Tcl script and is never run."""
    settings: dict[str, str] = {}
    inputs: dict[int, str] = {}
    for key, files, place, value in _SETTING.findall(_text(path)):
        position = whole_number_in(place)
        if files and position is not None:
            inputs[position] = value.strip()
        elif key:
            settings[key] = value.strip()
    for key, value in settings.items():
        number = whole_number_in(value)
        if _COUNTS.fullmatch(key) and value.isdigit() and (number is None or number > MOST_COLUMNS):
            raise DataError(f"{path}: {key} is {show(value)}; no design has so many columns.")
    return settings, tuple(inputs[number] for number in sorted(inputs))


def _name_columns(settings: Mapping[str, str], count: int) -> tuple[tuple[str, ...], frozenset[str]]:
    """Name the regressors as the design.fsf does, and return which are shapes of a response."""
    original, real = settings.get("evs_orig", ""), settings.get("evs_real", "")
    evs = range(1, (whole_number_in(original) or 0) + 1)
    stated = whole_number_in(real)
    columns = count if stated is None else stated
    custom = [ev for ev in evs if settings.get(f"convolve{ev}") == CUSTOM_BASIS]
    # the number of functions of a custom basis (FLOBS) is in another file: it follows from the remaining columns
    rest = columns - sum(len(_columns_of(settings, ev, 0)[0]) for ev in evs)
    each = rest // len(custom) if custom and rest > 0 and rest % len(custom) == 0 else 0
    names: list[str] = []
    shapes: set[str] = set()
    for ev in evs:
        own, own_shapes = _columns_of(settings, ev, each)
        names += own
        shapes |= own_shapes
    if not names or len(names) > count or len(names) != columns:
        unnamed = tuple(f"EV{i + 1}" for i in range(count))
        return unnamed, frozenset(unnamed if shapes or custom else ())
    names += [f"confound {i + 1}" for i in range(count - len(names))]
    times = Counter(names)
    unique = [name if times[name] == 1 else f"{name} [EV{i + 1}]" for i, name in enumerate(names)]
    return tuple(unique), frozenset(unique[i] for i, name in enumerate(names) if name in shapes)


def _columns_of(settings: Mapping[str, str], ev: int, custom: int) -> tuple[list[str], set[str]]:
    """Name the columns that one EV becomes, and return which are shapes; ``custom``: functions of a custom basis."""
    title = settings.get(f"evtitle{ev}") or f"EV{ev}"
    convolution = settings.get(f"convolve{ev}", "")
    kind, order, waves = (
        _BASIS.get(convolution),
        *(settings.get(f"{key}{ev}", "") for key in ("basisfnum", "nharmonics")),
    )
    functions = [title]
    if convolution == CUSTOM_BASIS:
        functions = [f"{title} ({kind} {i + 1})" for i in range(custom)]
    elif kind and (number := whole_number_in(order)) is not None:
        functions = [f"{title} ({kind} {i + 1})" for i in range(number)]
    elif settings.get(f"shape{ev}") == SINUSOID and (number := whole_number_in(waves)) is not None:
        functions = [f"{title} (harmonic {i})" if i else title for i in range(number + 1)]
    shapes = set(functions) if len(functions) > 1 or convolution == CUSTOM_BASIS else set()
    if settings.get(f"deriv_yn{ev}") == "1":
        functions.append(f"{title} (temporal derivative)")
        shapes.add(functions[-1])
    return functions, shapes


def read_dof(path: Path) -> float | None:
    """Read FEAT's text file ``dof``; None when it is not there or empty.

    Raises
    ------
    DataError
        It holds no degrees of freedom.
    """
    words = _text(path).split(maxsplit=1)
    return from_files.read_dof(words[0], path, "its number") if words else None


def _text(path: Path) -> str:
    """Read a text file; "" when it is not there."""
    try:
        return from_files.read_text(path, LARGEST_TEXT, errors="replace")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return ""
    except OSError as error:
        raise ReadWriteError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise ReadWriteError(f"{path} cannot be read: {error}.") from None


def lower_contrast(folder: Path, inputs: tuple[str, ...] = ()) -> tuple[int | None, str]:
    """Return which lower-level contrast a ``cope<N>.feat`` is about: its number and its name ("" if unknown).

    Where the inputs are cope images, theirs is the number: FEAT then calls its one folder cope1.feat.
    """
    images = {found[1] for text in inputs if (found := _COPE_IMAGE.search(text))}
    number = re.match(r"cope(\d+)", folder.name if not images else f"cope{images.pop()}" if len(images) == 1 else "")
    text = _text(folder / "design.lev")[:LONGEST_LEVEL]
    named = re.search(r"\((.+)\)\s*$", text.strip())
    name = " ".join((named[1] if named else text).split())
    return int(number[1]) if number else None, name
