"""Units of AFNI's results, from history and design: scaling to percent, heights of regressors, weights.

A first-level result is in percent signal change when (1) its history says
that the data were scaled to a mean of 100 (afni_proc's scale block), and (2)
the heights of the regressors and (3) the contrast's weights are known: from
the design (X.xmat.1D beside the result), else from the command in the
history. Nothing else is taken for granted.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from ibma_app.core.from_files import number_in, read_text, whole_number_in
from ibma_app.importers.units import Scaling, percent, unknown

LARGEST_DESIGN = 64 * 2**20  # bytes
LONGEST_HISTORY, LONGEST_COMMAND = 2**20, 2**16  # characters of a history that are read, the newest; of a command
MOST_WEIGHTS = 10**5  # of a contrast
# [user@host: date] {AFNI_version:system}; every piece is bounded, so that no text takes long
_ENTRY = re.compile(r"\[([^\[\]\n]{1,500})\]\s*(?:\{[^{}]{0,500}\}\s*)?")
# a / b * 100, 100 * a / b, with or without brackets and limits: afni_proc's and the handbook's expressions
_TO_HUNDRED = re.compile(r"\b[a-z]\s*/\s*\(?[a-z]\)?\s*\)*\s*\*\s*100\b|\b100\s*\*\s*\(*\s*[a-z]\s*/\s*[a-z]\b|"
                         r"\b[a-z]\s*/\s*[a-z]\s*\*\s*\(?\s*100\b")  # fmt: skip
_PERCENT_OF_MEAN = re.compile(
    r"\(\s*([a-z])\s*-\s*([a-z])\s*\)\s*/\s*\2\s*\*\s*100|100\s*\*\s*\(\s*([a-z])\s*-\s*([a-z])\s*\)\s*/\s*\4"
)
_SCALED_NAME = re.compile(r"\bpb\d{1,4}\.\S{0,200}\.scale(?:[+.]|\b)")  # afni_proc's file names after its scale block
_UNIT_BASES = (
    r"d?m?BLOCK[45]?\(\s*[\d.]+\s*,\s*1(?:\.0*)?\s*\)",  # BLOCK(d,1): one event's height is 1
    r"dmBLOCK\(\s*1(?:\.0*)?\s*\)",
    r"GAM",
    r"GAM\(\s*[\d.]+\s*,\s*[\d.]+\s*\)",
    r"(?:TENT|CSPLIN)(?:zero)?\([^()]*\)",
)
_SETS = re.compile(r"(?:SIN|POLY|EXPR)\(")  # sets of functions: no coefficient is the height of the response
_SHAPES = re.compile(r"SPMG[23]?(?:\(|$)")  # a response, then its derivatives
_NUMBERED = re.compile(r"(.+)#(\d+)$")
_TIMES = ("-stim_times", "-stim_times_AM1", "-stim_times_FSL")


@dataclass(frozen=True)
class AfniDesign:
    """Heights of regressors by the name of their column, and weights of contrasts by label."""

    source: str  # the file or command
    heights: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    bases: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # stimulus -> option, basis: -stim_times, GAM

    def why_no_height(self, column: str) -> str:
        """Say why the effect of a column is not the height of a response; "" where it is."""
        found = _NUMBERED.match(column)
        option, basis = self.bases.get(found[1] if found else column, ("", ""))
        if _SETS.match(basis):
            return f"it weighs {column}, and no one function of its basis ({basis}) is the response's height"
        if not found or not found[2].strip("0"):
            return ""
        if option == "-stim_times_AM2":
            return f"it weighs {column}, a parametric modulator, in units of its own"
        return f"it weighs {column}, which is not the response's height but its shape" if _SHAPES.match(basis) else ""


def read_commands(history: str) -> list[str]:
    """Split a HISTORY_NOTE into its commands, oldest first."""
    text = history[-LONGEST_HISTORY:].replace("\\n", "\n").replace("\\'", "'").replace('\\"', '"')
    for sign, letter in (("&quot;", '"'), ("&apos;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(sign, letter)
    pieces, at = [], 0
    for entry in _ENTRY.finditer(text):
        if ":" in entry[1].partition("@")[2]:
            pieces.append(text[at : entry.start()])
            at = entry.end()
    return [command.strip() for command in (*pieces, text[at:]) if command.strip()]


def stated_scaling(commands: list[str]) -> str:
    """Return the words in which the history says that the data were scaled to percent; "" when it does not."""
    for command in (" ".join(one.split()) for one in reversed(commands)):
        if re.search(r"\b3dcalc\b", command):
            found = _PERCENT_OF_MEAN.search(command) or _TO_HUNDRED.search(command)
            if found:
                return f"3dcalc {found[0]}"
        found = _SCALED_NAME.search(command)
        if found:
            return f"input {found[0].rstrip('+.')}"
    return ""


@lru_cache(maxsize=128)
def _words(command: str) -> list[str]:
    """Split a command as a shell would; the list is not to be changed."""
    if len(command) > LONGEST_COMMAND:  # shlex takes the square of a word's length
        return command.split()
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def last_command(commands: list[str], *programs: str) -> list[str]:
    """Return the words of the last command that one of the programs ran; [] when there is none."""
    for command in reversed(commands):
        words = _words(command)
        if words and Path(words[0]).name in programs:
            return words
    return []


def read_design(folder: Path, commands: list[str]) -> AfniDesign | None:
    """Find the design: X.xmat.1D in the result's own folder, else the command in the history."""
    words = last_command(commands, "3dDeconvolve", "3dREMLfit")
    named = [Path(after).name for word, after in pairwise(words) if word in ("-x1D", "-matrix")]
    for name in dict.fromkeys([*named, "X.xmat.1D"]):
        for path in (folder / name, folder / f"{name}.xmat.1D"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST_DESIGN:
                design = _read_matrix(path)
                if design is not None:
                    return design
    return _design_of(words) if words and Path(words[0]).name == "3dDeconvolve" else None


def _read_matrix(path: Path) -> AfniDesign | None:
    """Read a .xmat.1D file: columns, and the contrasts in its header; None when it is something else."""
    text = read_text(path, LARGEST_DESIGN, errors="replace")
    header = dict(re.findall(r'^#\s*(\w+)\s*=\s*"([^"]*)"', text, re.M))
    labels = [label.strip() for label in header.get("ColumnLabels", "").split(";")]
    try:
        lines = [line for line in text.splitlines() if line.strip()[:1] not in ("#", "")]
        matrix = np.array([np.array(line.split(), dtype=np.float64) for line in lines], dtype=np.float64)
    except ValueError:
        return None
    if matrix.ndim != 2 or matrix.shape[1] != len(labels):
        return None
    heights = {label: float(np.ptp(matrix[:, column])) for column, label in enumerate(labels)}
    weights: dict[str, Mapping[str, float]] = {}
    for number, name in enumerate(part.strip() for part in header.get("GltLabels", "").split(";")):
        values = _decoded(header.get(f"GltMatrix_{number:06d}", ""))
        if len(values) == 2 + len(labels) and values[0] == 1 and name:
            weights[name] = {label: value for label, value in zip(labels, values[2:], strict=True) if value}
    return AfniDesign(path.name, heights, weights, _bases_of(header))


def _bases_of(header: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Read each stimulus's option and basis functions: from the header of the matrix, else from its command."""
    numbers = [key.removeprefix("BasisName_") for key in header if key.startswith("BasisName_")]
    stated = {header[f"BasisName_{n}"]: (header.get(f"BasisOption_{n}", ""), header.get(f"BasisFormula_{n}", ""))
              for n in numbers}  # fmt: skip
    return stated or _bases_in(_words(header.get("CommandLine", "")))


def _bases_in(words: list[str]) -> dict[str, tuple[str, str]]:
    """Read each stimulus's option and basis functions from a 3dDeconvolve command."""
    names = {words[at + 1]: words[at + 2] for at, word in enumerate(words[:-2]) if word == "-stim_label"}
    return {
        names[words[at + 1]]: (word, words[at + 3])
        for at, word in enumerate(words[:-3])
        if word.startswith("-stim_times") and words[at + 1] in names
    }


def _decoded(text: str) -> list[float]:
    """Read numbers such as ``1,5,3@0,1,-1`` (3@0: three times 0)."""
    values: list[float] = []
    for word in re.findall(r"[^,\s]+", text):
        times, _, text = word.rpartition("@")
        value, count = number_in(text), whole_number_in(times) if times else 1
        if value is None or count is None or len(values) + count > MOST_WEIGHTS:
            return []
        values.extend([value] * count)
    return values


def _design_of(words: list[str]) -> AfniDesign:
    """Read heights and weights from a 3dDeconvolve command."""
    bases = {words[at + 1]: words[at + 3] for at, word in enumerate(words[:-3]) if word in _TIMES}
    names = {words[at + 1]: words[at + 2] for at, word in enumerate(words[:-2]) if word == "-stim_label"}
    rows = [after for word, after in pairwise(words) if word == "-gltsym"]
    labels = {words[at + 1]: words[at + 2] for at, word in enumerate(words[:-2]) if word == "-glt_label"}
    weights = {label: _symbolic(rows[at - 1]) for number, label in labels.items()
               if 0 < (at := whole_number_in(number) or 0) <= len(rows)}  # fmt: skip
    heights = {
        f"{names[number]}#0": 1.0
        for number, basis in bases.items()
        if number in names and any(re.fullmatch(unit, basis) for unit in _UNIT_BASES)
    }
    known = {name: given for name, given in weights.items() if given}
    return AfniDesign("the command in the history", heights, known, _bases_in(words))


def _symbolic(row: str) -> dict[str, float]:
    """Read the weights of ``SYM: +vis -0.5*aud``; {} when it is a file or more than that."""
    body = row.partition("SYM:")[2].strip()
    weights: dict[str, float] = {}
    for term in body.split():
        match = re.fullmatch(r"([+-]?)(?:([\d.]+)\*)?([A-Za-z_]\w*)(?:\[0\])?", term)
        size = number_in(match[2] or "1") if match else None
        if not match or size is None:
            return {}
        weights[f"{match[3]}#0"] = -size if match[1] == "-" else size
    return weights


def scale(
    name: str, *, is_contrast: bool, stated: str, design: AfniDesign | None
) -> tuple[Scaling, Mapping[str, float] | None]:
    """Find the units of one coefficient or contrast.

    Parameters
    ----------
    name : str
        ``vis#0`` (a coefficient, as its column), or the label of a contrast.
    is_contrast : bool
        Whether it is a general linear test.
    stated : str
        Of `stated_scaling`.
    design : AfniDesign or None

    Returns
    -------
    scaling : Scaling
    weights : mapping or None
        By column of the design; None when they are not known.
    """
    known: Mapping[str, float] | None = {name: 1.0}
    if is_contrast:
        known = design.weights.get(name) if design else None
    if not stated:
        return unknown("AFNI's history does not say that the data were scaled to percent of their mean."), known
    but = f"The data were scaled to percent ({stated}), but"
    if design is None:
        reason = "there is no X.xmat.1D beside the file, and no 3dDeconvolve in its history"
        return unknown(f"{but} the heights of the regressors are not known: {reason}."), known
    if known is None:
        return unknown(f"{but} the weights of this contrast are not in {design.source}."), None
    shape = next(filter(None, (design.why_no_height(column) for column, weight in known.items() if weight)), "")
    if shape:
        return unknown(f"Not percent signal change: {shape}."), known
    source = f"data scaled to a mean of 100: {stated}; heights and weights of {design.source}"
    return percent(100.0, source, known, design.heights), known
