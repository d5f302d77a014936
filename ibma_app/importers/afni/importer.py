"""AFNI: statistics of 3dDeconvolve, 3dREMLfit, 3dttest++, 3dMEMA and their like, in BRIK/HEAD or NIfTI.

Sub-bricks are paired by their labels: ``vis#0_Coef`` with ``vis#0_Tstat``,
``SetA_mean`` with ``SetA_Tstat`` (or ``_Zscr``), ``pain:b`` with ``pain:t``,
``pos-neg`` with ``pos-neg t``. Degrees of freedom are those of the header.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ibma_app.core.errors import DataError, IbmaError, InputError
from ibma_app.core.from_files import read_dof
from ibma_app.core.grid import Grid
from ibma_app.core.study import NATIVE, ImportedContrast, Importer, ImportRequest, Study
from ibma_app.images.read import read_extension, read_header, read_image
from ibma_app.images.spaces import MNI, template_label
from ibma_app.importers.afni import header as headers
from ibma_app.importers.afni.header import Attributes, SubBrick
from ibma_app.importers.afni.scaling import AfniDesign, last_command, read_commands, read_design, scale, stated_scaling
from ibma_app.importers.lazy import LazyMaps

_EFFECT = re.compile(r"(?:[_:](?:Coef|mean|Mean|b|Diff|Contr|Contrast)|[ &]Coef)$")
_STATISTIC = re.compile(r"(?:[_: &](?:Tstat|Zscr|Zscore|Zstat|t-stat|T-stat|t-st|t|T|z|Z))$")
_OTHERS = re.compile(r"(?:_(?:Fstat|F|R\^2)|:(?:Chisq|F)|^tau\^2|^lambda)$")
_BASELINE = re.compile(r"Run#\d+Pol#\d+")
_PROGRAMS = ("3dDeconvolve", "3dREMLfit", "3dttest++", "3dttest", "3dMEMA", "3dMVM", "3dLME", "3dLMEr", "3dANOVA",
             "3dANOVA2", "3dANOVA3", "3dRegAna")  # fmt: skip
_FIRST_LEVEL = ("3dDeconvolve", "3dREMLfit")
_XFORMS = {1: NATIVE, 3: "Talairach", 4: MNI}  # by NIfTI code, where AFNI's own name of the space is missing
Reader = Callable[[int], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class _Bucket:
    """A dataset of sub-bricks, with its header."""

    path: Path
    attributes: Attributes
    bricks: list[SubBrick]
    grid: Grid
    read: Reader


@dataclass(frozen=True)
class _Analysis:
    """What the history of a dataset and the files beside it say about all its contrasts."""

    program: str  # that wrote it; "": not in the history
    commands: list[str]
    stated: str  # the scaling, as a command has it
    design: AfniDesign | None
    space: str
    notes: tuple[str, ...]


def recognises(source: str) -> bool:
    """Return whether a source is an AFNI dataset: a .HEAD or .BRIK (or their prefix), or a NIfTI that AFNI wrote."""
    try:
        path = _find(Path(source))
        return path.name.endswith(".HEAD") or read_extension(path, headers.EXTENSION_CODE) is not None
    except (IbmaError, OSError, ValueError):
        return False


def read(source: str, request: ImportRequest) -> Study:
    """Read what an AFNI dataset holds; the voxels are read when the maps are asked for.

    Parameters
    ----------
    source : str
        ``stats.s1+tlrc.HEAD`` (or .BRIK, .BRIK.gz, or the prefix alone), a
        NIfTI file, or a folder that holds one dataset with statistics.
    request : ImportRequest

    Raises
    ------
    InputError, ReadWriteError
        Missing; truncated or no image.
    DataError
        No sub-brick is a statistic map; the header is damaged; a native map for a study.
    """
    path = _find(Path(source))
    bucket = _open_head(path) if path.name.endswith(".HEAD") else _open_nifti(path)
    commands = read_commands(str(bucket.attributes.get("HISTORY_NOTE", "")))
    program = next((words[0] for words in [last_command(commands, *_PROGRAMS)] if words), "")
    program = Path(program).name
    pairs, listed = _pair(bucket.bricks)
    if not pairs:
        have = ", ".join(f"{brick.index}: {brick.label}" for brick in bucket.bricks[:30])
        raise DataError(
            f"{path} holds no coefficient and no t or z statistic that its header names (sub-bricks: {have}). "
            "Name AFNI's statistics dataset, such as stats.<subject>+tlrc.HEAD, or use `ibma-import table`."
        )
    space, notes = _space(bucket)
    if space == NATIVE and request.for_study and not request.space:  # AFNI says ORIG of warped maps, too
        raise DataError(
            f"{path} lies in the subject's own space (AFNI's {_template(bucket) or 'original view'}), so it cannot be "
            "combined with other studies. Give the map that was warped to a template (view +tlrc), or say --space if "
            "its header is wrong."
        )
    stated = stated_scaling(commands)
    design = read_design(path.parent, commands) if stated else None
    names = _names(list(pairs))
    analysis = _Analysis(program, commands, stated, design, space, tuple(notes))
    contrasts = tuple(_contrast(bucket, base, names[base], bricks, analysis) for base, bricks in pairs.items())
    level = None if not program else "subject" if program in _FIRST_LEVEL else "group"
    return Study(f"AFNI {program}".strip(), source, contrasts, tuple(listed), level)


def _contrast(
    bucket: _Bucket, base: str, name: str, bricks: Mapping[str, SubBrick], analysis: _Analysis
) -> ImportedContrast:
    """Describe one pair (or an effect, t or z alone)."""
    program, design, notes = analysis.program, analysis.design, analysis.notes
    column = re.sub(r"_GLT(#\d+)?$", "", base)
    tested = re.sub(r"#0$", "", column)  # 3dREMLfit may leave _GLT out
    is_contrast = "_GLT" in base or (design is not None and tested in design.weights and tested != column)
    column = tested if is_contrast else column
    column = column if is_contrast or "#" in column else f"{column}#0"
    scaling, weights = scale(column, is_contrast=is_contrast, stated=analysis.stated, design=design)
    statistic = bricks.get("t") or bricks.get("z")
    dof = None
    if "t" in bricks and bricks["t"].parameters:
        dof = read_dof(bricks["t"].parameters[0], bucket.path, f"the dof of {bricks['t'].label}")

    def maps_of(kind: str, brick: SubBrick) -> NDArray[Any]:
        return scaling.apply({kind: bucket.read(brick.index)})[kind]

    if "effect" in bricks and statistic is None:
        notes = (*notes, "No t or z with this label: the effect has no variance.")
    if "effect" not in bricks:
        notes = (*notes, "No coefficient or mean with this label: the statistic stands alone.")
    has_effect = "effect" in bricks
    return ImportedContrast(
        name=name,
        maps=LazyMaps({kind: partial(maps_of, kind, brick) for kind, brick in bricks.items()}),
        grid=bucket.grid,
        dof=dof,
        sample_size=_sample_size(base, dof, bucket.bricks, program, analysis.commands),
        units=scaling.units if has_effect else "unknown",
        units_source=scaling.source if has_effect else "",
        scaling_factor=scaling.median,
        regressor_height=scaling.height,
        contrast_weights=weights if program in _FIRST_LEVEL and (design or not is_contrast) else None,
        space=analysis.space,
        sources=tuple(f"{bucket.path}[{brick.index}]" for brick in bricks.values()),
        notes=notes,
    )


def _sample_size(
    base: str, dof: float | None, bricks: list[SubBrick], program: str, commands: list[str]
) -> float | None:
    """Return the number of subjects of a one-sample test, where that follows: dof + 1."""
    if dof is None or dof != round(dof):
        return None
    endings = [brick.label.removeprefix(base) for brick in bricks[:5]]
    if not program:  # without a history: only 3dttest++ of one set without covariates writes such a pair
        return dof + 1 if endings == ["_mean", "_Tstat"] and "-" not in base else None
    words = last_command(commands, program)
    if program not in ("3dttest++", "3dMEMA") or "-covariates" in words:
        return None
    if "-paired" in words:
        return dof + 1
    two = "-setB" in words or words.count("-set") > 1
    return dof + 1 if not two and len(endings) <= 4 else None


def _pair(bricks: list[SubBrick]) -> tuple[dict[str, dict[str, SubBrick]], list[str]]:
    """Group sub-bricks by label, kind -> sub-brick; and list those left out."""
    pairs: dict[str, dict[str, SubBrick]] = {}
    listed: list[str] = []
    tested = {_STATISTIC.sub("", brick.label) for brick in bricks if _kind(brick) in ("t", "z")}
    for brick in bricks:
        kind, what = _kind(brick), f"sub-brick {brick.index} ({brick.label})"
        base = (_EFFECT if kind == "effect" else _STATISTIC).sub("", brick.label)
        if kind not in ("effect", "t", "z"):
            listed.append(f"{what} is a statistic of another type ({kind}).")
        elif _BASELINE.match(base):
            listed.append(f"{what} is of the baseline.")
        elif kind == "effect" and base == brick.label and base not in tested:
            listed.append(f"{what} is no coefficient or mean by its label, and no t or z has it.")
        elif kind in pairs.get(base, {}):
            raise DataError(
                f"Two sub-bricks are the {kind} of {base}: {pairs[base][kind].index} and {brick.index}. "
                "Give them labels of their own (3drefit -sublabel)."
            )
        else:
            pairs.setdefault(base, {})[kind] = brick
    return pairs, listed


def _kind(brick: SubBrick) -> str:
    """Return what a sub-brick is: "effect", "t", "z" or another statistic's name."""
    if brick.statistic:
        return brick.statistic
    ending = _STATISTIC.search(brick.label)  # labelled as a statistic, but its parameters are lost
    if ending:
        return "z" if ending[0][1] in "zZ" else "t"
    return "by its label" if _OTHERS.search(brick.label) else "effect"


def _names(bases: list[str]) -> dict[str, str]:
    """Shorten labels: ``vis#0`` to ``vis``, ``V-A_GLT#0`` to ``V-A``, where they stay distinct."""
    short = {base: re.sub(r"(_GLT)?(#0)?$", "", base) or base for base in bases}
    several = {re.sub(r"#\d+$", "", base) for base in bases if re.search(r"#[1-9]\d*$", base)}
    taken, count = {}, Counter(short.values())
    for base, name in short.items():
        numbered = re.sub(r"#\d+$", "", base) in several
        taken[base] = base if numbered or count[name] > 1 else name
    return taken


def _template(bucket: _Bucket) -> str:
    """Return AFNI's name of the space, or of the view."""
    named = str(bucket.attributes.get("TEMPLATE_SPACE", "")).strip()
    scene = bucket.attributes.get("SCENE_DATA", [])
    view = {0: "ORIG", 1: "ACPC", 2: "TLRC"}.get(int(scene[0]) if scene else -1, "")
    return named or view


def _space(bucket: _Bucket) -> tuple[str, list[str]]:
    """Return the label of the space, and notes on it."""
    named = _template(bucket)
    is_head = bucket.path.name.endswith(".HEAD")
    if not named and not is_head:
        return _XFORMS.get(bucket.grid.sform_code or bucket.grid.qform_code, ""), []
    label = template_label(named)
    if named.upper() == "MNI_ANAT":
        return "", ["AFNI's MNI_ANAT lies 4 to 5 mm away from MNI: not taken for an MNI space."]
    return label, [f"AFNI calls its space {named}."] if label not in (named, MNI, NATIVE) else []


def _find(path: Path) -> Path:
    """Return the file to read: the .HEAD of a .BRIK or of a prefix, the one dataset of a folder."""
    name = path.name
    for end in (".BRIK.gz", ".BRIK.bz2", ".BRIK", ".HEAD"):
        if name.endswith(end):
            return path.with_name(name.removesuffix(end) + ".HEAD")
    if path.is_dir():
        found = [head for head in sorted(path.glob("*.HEAD")) if _has_statistics(head)]
        if len(found) == 1:
            return found[0]
        what = "several AFNI datasets with statistics" if found else "no AFNI dataset with statistics"
        menu = f": name one of {', '.join(head.name for head in found)}" if found else ""
        raise InputError(f"{path} holds {what}{menu}.")
    if re.search(r"\+(orig|acpc|tlrc)\.?$", name):
        return path.with_name(name.rstrip(".") + ".HEAD")
    return path


def _has_statistics(head: Path) -> bool:
    """Return whether a dataset in a folder has t or z statistics."""
    try:
        attributes = headers.read_head(head)
        count = headers.brick_shape(head, attributes)[3]
        return any(brick.statistic in ("t", "z") for brick in headers.list_bricks(attributes, count))
    except IbmaError:
        return False


def _open_head(path: Path) -> _Bucket:
    """Open BRIK/HEAD without nibabel: it refuses templates, mixed types and more."""
    attributes = headers.read_head(path)
    x, y, z, count = headers.brick_shape(path, attributes)
    headers.brik_file(path)
    code = {NATIVE: 1, "Talairach": 3, "": 2}.get(template_label(str(attributes.get("TEMPLATE_SPACE", ""))), 4)
    grid = Grid.whole(headers.affine_of(path, attributes), (x, y, z), sform_code=code)
    return _Bucket(path, attributes, headers.list_bricks(attributes, count), grid,
                   partial(headers.read_brick, path, attributes))  # fmt: skip


def _open_nifti(path: Path) -> _Bucket:
    """Open a NIfTI file with AFNI's extension (without it there are no labels)."""
    header, extension = read_header(path), read_extension(path, headers.EXTENSION_CODE)
    if extension is None:
        raise DataError(
            f"{path} has no AFNI header extension, so what its volumes are cannot be told. Give the .HEAD file, or "
            "name the maps with `ibma-import table`."
        )
    attributes = headers.parse_extension(extension, str(path))
    if header.n_volumes > headers.MOST_BRICKS:
        raise DataError(f"{path} promises {header.n_volumes} sub-bricks: no statistic is that large.")
    return _Bucket(path, attributes, headers.list_bricks(attributes, header.n_volumes), header.grid,
                   lambda index: read_image(path, index).data)  # fmt: skip


IMPORTER = Importer(
    name="afni",
    title="AFNI: 3dDeconvolve, 3dREMLfit, 3dttest++, 3dMEMA (BRIK/HEAD, NIfTI)",
    recognises=recognises,
    read=read,
    example="stats.s1+tlrc.HEAD",
)
