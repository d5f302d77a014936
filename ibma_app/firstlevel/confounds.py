"""Which confounds enter a design: strategies as nilearn's ``load_confounds`` has them, or columns by name.

References
----------
Wang H-T, et al. Continuous evaluation of denoising strategies in resting-state fMRI connectivity using fMRIPrep
and Nilearn. PLoS Computational Biology 2024; 20: e1011942.
Power JD, et al. Methods to detect, characterize, and remove motion artifact in resting state fMRI. NeuroImage
2014; 84: 320-341 (scrubbing, and segments too short to keep).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

import numpy as np

from ibma_app.core.errors import DataError, did_you_mean
from ibma_app.firstlevel.records import Floats

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
TISSUES = ("csf", "white_matter")
EXPANSIONS = ("", "_derivative1", "_power2", "_derivative1_power2")
STRATEGIES = ("motion6", "motion24", "simple", "scrubbing", "compcor", "none")
HIGH_PASS = "cosine"  # fMRIPrep's columns of the high-pass
OUTLIERS = ("motion_outlier", "non_steady_state")  # columns that mark a volume each
FD, DVARS = "framewise_displacement", "std_dvars"
SCRUB_FD, SCRUB_DVARS = 0.5, 1.5  # mm and 1: of the strategy ``scrubbing``
SHOWN = 4  # columns that a message names
SHORTEST_SEGMENT = 5  # volumes: what lies between scrubbed ones and is shorter goes, too


@dataclass(frozen=True, eq=False)
class ChosenConfounds:
    """The confounds of one run's design."""

    columns: Mapping[str, Floats]  # name -> (T,), without NaN
    scrubbed: tuple[int, ...] = ()  # volumes that are left out
    high_pass: bool = False  # whether fMRIPrep's cosines are among the columns
    notes: tuple[str, ...] = ()


def choose_confounds(
    table: Mapping[str, Floats],
    asked: Sequence[str],
    where: str,
    *,
    metadata: Mapping[str, Any] | None = None,
    scrub_fd: float | None = None,
    cosines: bool = True,
) -> ChosenConfounds:
    """Choose the columns and the volumes that are left out.

    Parameters
    ----------
    table : mapping of str to ndarray, shape (T,)
        All confounds of the run.
    asked : sequence of str
        Strategies, columns, or patterns of columns (``a_comp_cor_0*``).
    where : str
        The table's file, for messages.
    metadata : mapping, optional
        Its JSON: which mask each component of aCompCor is from.
    scrub_fd : float, optional
        mm: volumes of more framewise displacement are left out, too.
    cosines : bool
        Whether fMRIPrep's high-pass enters, where it is there.

    Raises
    ------
    DataError
        A column that is asked for is missing, or has no number in a volume that is used.
    """
    made = _missing_expansions(table, asked)
    table = {**table, **made}
    names: list[str] = []
    scrubs = scrub_fd is not None
    for one in asked:
        names += _columns_of(one, table, metadata or {}, where)
        scrubs = scrubs or one == "scrubbing"
    high_pass = [name for name in table if name.startswith(HIGH_PASS)] if cosines else []
    named = [name for name in names if name.startswith(HIGH_PASS)]
    marked = [name for name in names if name.startswith(OUTLIERS)]
    marked += [name for name in table if name.startswith("non_steady_state")]
    scrubbed = outlier_volumes(table[name] for name in marked)
    if "scrubbing" in asked:
        scrubbed |= high_volumes(table, FD, scrub_fd or SCRUB_FD, where) | high_volumes(
            table, DVARS, SCRUB_DVARS, where
        )
    elif scrub_fd is not None:
        scrubbed |= high_volumes(table, FD, scrub_fd, where)
    n_volumes = len(next(iter(table.values()), ()))
    if scrubs:
        scrubbed = drop_short_segments(scrubbed, n_volumes, SHORTEST_SEGMENT)
    kept = dict.fromkeys([*(name for name in names if name not in marked), *(high_pass or named)])
    columns = {name: _filled(table[name], name, scrubbed, where) for name in kept}
    text = f"{where}: {len(made)} derivatives and squares that the table lacks are made of its other columns."
    return ChosenConfounds(columns, tuple(sorted(scrubbed)), bool(high_pass or named), (text,) if made else ())


def complete_columns(columns: Mapping[str, Floats], scrubbed: set[int], where: str) -> dict[str, Floats]:
    """Return columns without gaps: the start of derivatives filled, volumes that are left out at the mean.

    Raises
    ------
    DataError
        A column has no number in a volume that is used.
    """
    return {name: _filled(values, name, scrubbed, where) for name, values in columns.items()}


def outlier_volumes(columns: Iterable[Floats]) -> set[int]:
    """Return the volumes that columns of 0 and 1 mark."""
    return {int(volume) for column in columns for volume in np.flatnonzero(np.nan_to_num(column) != 0)}


def drop_short_segments(scrubbed: Iterable[int], n_volumes: int, shortest: int) -> set[int]:
    """Add the volumes between scrubbed ones where fewer than ``shortest`` follow each other."""
    edges = sorted({-1, n_volumes, *scrubbed})
    every = set(scrubbed)
    for left, right in pairwise(edges):
        if every and right - left - 1 < shortest:
            every |= set(range(left + 1, right))
    return every


def _columns_of(asked: str, table: Mapping[str, Floats], metadata: Mapping[str, Any], where: str) -> list[str]:
    """Return the columns that a strategy, a name or a pattern stands for."""
    if asked == "none":
        return []
    if asked not in STRATEGIES:
        found = [name for name in table if fnmatchcase(name, asked)]
        if not found:
            raise DataError(f"{where}: no column {asked}.{did_you_mean([asked], [*table, *STRATEGIES])}")
        return found
    wanted = _strategy_columns(asked)
    missing = [name for name in wanted if name not in table]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise DataError(
            f"{where}: --confounds {asked} needs {', '.join(missing[:SHOWN])}{more}, which the table lacks. "
            f"Choose another strategy ({', '.join(_served(table, metadata))}), or name columns."
        )
    return wanted + (_combined_components(table, metadata, where) if asked == "compcor" else [])


def _served(table: Mapping[str, Floats], metadata: Mapping[str, Any]) -> list[str]:
    """List the strategies whose columns a table has, or has what they are made of."""
    served = []
    for name in STRATEGIES:
        whole = {**table, **_missing_expansions(table, [name])}
        if name == "compcor" and not _combined(whole, metadata):
            continue
        if all(column in whole for column in _strategy_columns(name)):
            served.append(name)
    return served


def _strategy_columns(asked: str) -> list[str]:
    """Return the columns of motion and tissues that a strategy has; none for names of columns."""
    if asked == "none" or asked not in STRATEGIES:
        return []
    wanted = list(MOTION) if asked == "motion6" else _expand(MOTION, EXPANSIONS)
    return wanted + {"simple": list(TISSUES), "scrubbing": _expand(TISSUES, EXPANSIONS)}.get(asked, [])


def _missing_expansions(table: Mapping[str, Floats], asked: Sequence[str]) -> dict[str, Floats]:
    """Make the derivatives and squares that strategies need and a table lacks (fMRIPrep before 1.5), of its columns."""
    made: dict[str, Floats] = {}
    for name in (name for one in asked for name in _strategy_columns(one) if name not in table):
        base = next((one for one in (*MOTION, *TISSUES) if name.startswith(one)), "")
        if base in table:
            change = np.append(np.nan, np.diff(table[base])) if "derivative1" in name else table[base]
            made[name] = change**2 if name.endswith("power2") else change
    return made


def _expand(names: Sequence[str], endings: Sequence[str]) -> list[str]:
    """Return columns with their derivatives and squares, in the order of nilearn's ``load_confounds``."""
    return [f"{name}{ending}" for name in names for ending in endings]


def _combined_components(table: Mapping[str, Floats], metadata: Mapping[str, Any], where: str) -> list[str]:
    """Return the components of aCompCor in the mask of white matter and CSF together."""
    found = _combined(table, metadata)
    if not found:
        raise DataError(
            f"{where}: --confounds compcor needs aCompCor's components of the combined mask; the JSON beside the table "
            "names none. Name columns instead, e.g. 'a_comp_cor_0[0-4]'."
        )
    return found


def _combined(table: Mapping[str, Floats], metadata: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, words in metadata.items()
        if name in table
        and name.startswith("a_comp_cor_")
        and isinstance(words, Mapping)
        and words.get("Mask") == "combined"
    ]


def high_volumes(table: Mapping[str, Floats], column: str, threshold: float, where: str) -> set[int]:
    """Return the volumes where a column exceeds a threshold."""
    if column not in table:
        raise DataError(f"{where}: scrubbing needs the column {column}, which the table lacks. Leave scrubbing out.")
    return {int(volume) for volume in np.flatnonzero(np.nan_to_num(table[column]) > threshold)}


def _filled(values: Floats, name: str, scrubbed: set[int], where: str) -> Floats:
    """Fill the start of a derivative, which has no value before it, with the next; refuse other gaps.

    Values of volumes that are left out do not matter; they become the mean.
    """
    filled = values.copy()
    if len(filled) > 1 and np.isnan(filled[0]):
        filled[0] = filled[1]
    gaps = np.isnan(filled)
    if gaps.all():
        raise DataError(f"{where}: the column {name} has no number at all. Leave it out of --confounds.")
    unused = [volume for volume in np.flatnonzero(gaps) if volume not in scrubbed]
    if unused:
        raise DataError(
            f"{where}: the column {name} has no number in {len(unused)} volume(s) (the first is volume {unused[0]}). "
            "Leave the column out of --confounds, or complete it."
        )
    filled[gaps] = filled[~gaps].mean()
    return filled
