"""Which contrasts are imported, and what each is called in file names: one label for one name."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibma_app.core.errors import DatasetError, NothingSelectedError, UsageError
from ibma_app.core.from_files import read_json, whole_number_in
from ibma_app.core.labels import contrast_label, find_clash, is_label, make_label
from ibma_app.core.study import NATIVE, ImportedContrast, Study
from ibma_app.dataset.entities import fit_labels, output_name
from ibma_app.workflows.importing.make_maps import locate_source
from ibma_app.workflows.importing.settle import settle_contrast
from ibma_app.workflows.options.table import ImportOptions

log = logging.getLogger("ibma_app")

OWNERS = {"study": "--study-label", "sub": "--participant-label"}
ROOM = 255 - len("_stat-variance_statmap.nii.gz")


@dataclass(frozen=True, eq=False)
class Placed:
    """One contrast, and the entities that name its maps."""

    contrast: ImportedContrast
    entities: Mapping[str, str]
    software: str
    source: str
    names: Mapping[str, str] = field(default_factory=dict)  # key -> the source's name, where the label differs

    @property
    def folder(self) -> Path:
        """The folder of its maps, below OUTPUT_DIR."""
        if "study" in self.entities:
            return Path(f"study-{self.entities['study']}")
        session = [f"ses-{self.entities['ses']}"] if "ses" in self.entities else []
        return Path(f"sub-{self.entities['sub']}", *session, "func")

    @property
    def stem(self) -> str:
        """What the names of its maps begin with, before ``_stat-``."""
        return output_name(self.entities, "", "").removesuffix("_")


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A contrast of a source, with the number by which ``--contrast`` may choose it."""

    study: Study
    contrast: ImportedContrast
    number: int

    def is_called(self, name: str) -> bool:
        """Return whether the contrast has this name, or would get this label."""
        same = " ".join(self.contrast.name.split()).casefold() == " ".join(name.split()).casefold()
        return same or contrast_label(self.contrast.name) == name


def place(studies: Sequence[Study], options: ImportOptions) -> list[Placed]:
    """Choose the contrasts, and give each its name.

    Raises
    ------
    NothingSelectedError
        A contrast of ``--contrast`` does not exist.
    DatasetError
        Two contrasts, studies or participants would have one name.
    UsageError
        The subject or study is neither given nor in the source; a label of ``--contrast`` is invalid or stands for
        several contrasts.
    """
    candidates = [
        _Candidate(study, contrast, contrast.number or position)
        for study in studies
        for position, contrast in enumerate(study.contrasts, start=1)
    ]
    chosen = _choose(candidates, options.contrast)
    labels = _number_twins([one for one in candidates if id(one) in chosen], chosen)
    every = [
        _place_one(one.study, one.contrast, labels.get(id(one)), options) for one in candidates if id(one) in chosen
    ]
    _refuse_shared_labels(every)
    placed: dict[str, Placed] = {}
    for one in every:
        twin = placed.setdefault(one.stem.casefold(), one)
        if set(twin.contrast.sources) != set(one.contrast.sources):
            raise DatasetError(_explain_twins(twin, one))
    _warn_of_shared_contrasts(tuple(placed.values()), chosen_labels={label for label in chosen.values() if label})
    return list(placed.values())


def _choose(candidates: Sequence[_Candidate], wanted: Sequence[str]) -> dict[int, str | None]:
    """Return the contrasts that are imported, by identity, with the labels given to them."""
    if not wanted:
        return {id(one): one.contrast.label for one in candidates}
    chosen: dict[int, str | None] = {}
    for text in wanted:
        name, label = _split(text, candidates)
        found = _find(name, candidates)
        if not found:
            there = "; ".join(dict.fromkeys(f"{one.number} {one.contrast.name}" for one in candidates)) or "none"
            raise NothingSelectedError(f"--contrast {text!r}: there is no such contrast. There are: {there}.")
        if label is not None and not is_label(label):
            proposal = contrast_label(label)
            raise UsageError(f"--contrast {text!r}: a label has letters and digits only. Perhaps {proposal}?")
        twins = [one for one in found if one.study is found[0].study]
        if label is not None and len(twins) > 1 and len({one.contrast.name for one in twins}) == 1:
            numbers = [one.number for one in twins]
            advice = " ".join(f"{number}={label}{number}" for number in numbers)
            raise UsageError(
                f"--contrast {text!r}: {len(twins)} contrasts of {twins[0].study.source} have this name (numbers "
                f"{', '.join(map(str, numbers))}). Choose by number: --contrast {advice}."
            )
        chosen |= {id(one): label or one.contrast.label for one in found}
    return chosen


def _find(name: str, candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Find the contrasts of this name, else of this number."""
    called = [one for one in candidates if one.is_called(name)]
    return called or [one for one in candidates if one.number == whole_number_in(name)]


def _split(text: str, candidates: Sequence[_Candidate]) -> tuple[str, str | None]:
    """Take ``NAME=LABEL`` apart; a contrast's name may hold ``=`` itself."""
    name, equals, label = text.rpartition("=")
    if not equals or any(one.is_called(text) for one in candidates):
        return text, None
    return name, label


def _number_twins(candidates: Sequence[_Candidate], chosen: Mapping[int, str | None]) -> dict[int, str | None]:
    """Return the labels given, and numbered ones for contrasts of one source that have one name."""
    labels = dict(chosen)
    twins: dict[tuple[Any, ...], list[_Candidate]] = defaultdict(list)
    for one in candidates:
        if chosen[id(one)] is None:
            owner = tuple(sorted(one.contrast.entities.items()))
            twins[id(one.study), owner, one.contrast.space, one.contrast.name.casefold()].append(one)
    for same in twins.values():
        if len({frozenset(one.contrast.sources) for one in same}) < 2:
            continue
        labels |= {id(one): f"{contrast_label(one.contrast.name)}{one.number}" for one in same}
        called = dict.fromkeys(repr(one.contrast.name) for one in same)
        log.warning(
            "%s: %d contrasts are called %s; their labels get their numbers: %s. Give others by --contrast %s=LABEL.",
            same[0].study.source, len(same), " and ".join(called) + (" (case aside)" if len(called) > 1 else ""),
            ", ".join(str(labels[id(one)]) for one in same), same[0].number,
        )  # fmt: skip
    return labels


def _place_one(study: Study, contrast: ImportedContrast, label: str | None, options: ImportOptions) -> Placed:
    """Choose the entities of one contrast."""
    own = {key: made for key, value in contrast.entities.items() if (made := make_label(value))}
    entities = own | options.entities
    if options.study_label is not None:
        entities.pop("sub", None)
    if options.participant_label is not None:
        entities.pop("study", None)
    if not {"sub", "study"} & set(entities) and not options.dry_run:
        flag = "--study-label" if study.level == "group" else "--participant-label"
        raise UsageError(
            f"{study.source} does not say whose maps these are: give --participant-label LABEL for a subject's, "
            f"or --study-label LABEL for a study's (this looks like {flag})."
        )
    label = label or contrast_label(contrast.name)
    if not label:
        raise DatasetError(
            f"{study.source}: the contrast {contrast.name!r} has no letter or digit to name its files by. "
            f"Give it a label: --contrast {contrast.name!r}=LABEL."
        )
    is_study = "study" in entities or ("sub" not in entities and study.level == "group")
    contrast = settle_contrast(study, contrast, options, is_study=is_study)
    if contrast.space not in ("", NATIVE):
        entities["space"] = contrast.space
    names = {
        key: contrast.entities[key] for key in OWNERS if key in own and key in entities and key not in options.entities
    }
    full = {**entities, "contrast": label}
    fitted = fit_labels(full, ROOM)
    renamed = {key: names.get(key, contrast.entities.get(key, full[key])) for key in full if fitted[key] != full[key]}
    names = {key: name for key, name in names.items() if name != own[key]} | renamed
    return Placed(contrast, fitted, study.software, study.source, names)


def _explain_twins(one: Placed, other: Placed) -> str:
    """Write the message about two contrasts that would have one name."""
    case = "" if one.stem == other.stem else f" and {other.stem}, which differ in case alone"
    text = f"Two contrasts would be named {one.stem}{case}: {one.contrast.name!r} ({one.source}) and "
    text += f"{other.contrast.name!r} ({other.source}). "
    if one.source != other.source and "sub" in one.entities:
        return f"{text}Import runs and sessions one by one, each with its --run N or --session-label L."
    return f"{text}Give them labels of their own: --contrast {other.contrast.name!r}=LABEL, and import one at a time."


def _owners(placed: Sequence[Placed]) -> Iterator[tuple[str, str]]:
    """List the labels of studies and participants with the names that they stand for."""
    for one in placed:
        for key in OWNERS:
            if key in one.entities:
                yield f"{key}-{one.entities[key]}", one.names.get(key, one.entities[key])


def _refuse_shared_labels(placed: Sequence[Placed]) -> None:
    """Refuse two studies or participants of one label: one would replace the other, or both be one."""
    clash = find_clash(_owners(placed))
    if clash:
        label, name, other = clash
        raise DatasetError(
            f"{name!r} and {other!r} would both be {label}. Write them alike if they are one, else rename one (letters "
            "and digits must differ, by more than their case), or import one at a time with "
            f"{OWNERS[label.partition('-')[0]]} LABEL."
        )


def _warn_of_shared_contrasts(placed: Sequence[Placed], chosen_labels: set[str]) -> None:
    """Warn of a label that stands for several names in different studies: they would be combined."""
    names: dict[str, dict[str, str]] = defaultdict(dict)
    for one in placed:
        squeezed = "".join(one.contrast.name.split()).casefold()
        names[one.entities["contrast"]].setdefault(squeezed, one.contrast.name)
    for label, found in names.items():
        if len(found) > 1 and label not in chosen_labels:
            log.warning(
                "contrast-%s stands for several names: %s. Where they are not one question, give each its label: "
                "--contrast NAME=LABEL.", label, "; ".join(found.values()),
            )  # fmt: skip


def refuse_other_names(placed: Sequence[Placed], options: ImportOptions) -> None:
    """Refuse labels under which OUTPUT_DIR holds another name already.

    Raises
    ------
    DatasetError
        An earlier import's study, participant or contrast of another name
        has the label.
    """
    # what comes again from the same files is replaced, whatever it was called
    ours = [[locate_source(source, options.output_dir) for source in one.contrast.sources] for one in placed]
    read: dict[Path, dict[str, dict[str, Any]]] = {}
    for one in placed:
        _refuse_other_case(options.output_dir, one.folder)
        folder = options.output_dir / one.folder
        if folder not in read:
            read[folder] = {path.name: _read_sidecar(path) for path in sorted(folder.glob("*_statmap.json"))}
        others = (sidecar for sidecar in read[folder].values() if sidecar.get("Sources") not in ours)
        _refuse_other_owner(one, others, options)
        for name, earlier in read[folder].items():
            if name.casefold().startswith(f"{one.stem}_stat-".casefold()) and _is_other_contrast(
                one, earlier, options.output_dir
            ):
                raise DatasetError(
                    f"{folder / name}: another contrast has this name (case aside) already, "
                    f"{earlier['ContrastName']!r}, and "
                    f"{one.contrast.name!r} would replace it. Give it a label: --contrast {one.contrast.name!r}=LABEL, "
                    "or remove the earlier maps."
                )


def _refuse_other_case(root: Path, folder: Path) -> None:
    """Refuse a folder whose name differs from an earlier one's in case alone: many file systems take them for one."""
    for part in (folder, *folder.parents[:-1]):
        parent = root / part.parent
        for there in parent.iterdir() if parent.is_dir() else ():
            if there.name != part.name and there.name.casefold() == part.name.casefold():
                raise DatasetError(
                    f"{there} is there already, and {part} differs from it in case alone: many file systems take "
                    "the two for one. Write the label as it is there, or choose another."
                )


def _refuse_other_owner(one: Placed, sidecars: Iterable[Mapping[str, Any]], options: ImportOptions) -> None:
    """Refuse a study or participant whose label another one has in OUTPUT_DIR; labels of the command line are meant."""
    stated = [{} if not isinstance(names := sidecar.get("Names"), dict) else names for sidecar in sidecars if sidecar]
    for key in OWNERS:
        label = one.entities.get(key)
        if label is None or key in options.entities:
            continue
        known = [(label, str(names.get(key, label))) for names in stated]
        clash = find_clash([*known, (label, one.names.get(key, label))])
        if clash:
            raise DatasetError(
                f"{options.output_dir} has {key}-{label} already, of {clash[1]!r}, and {clash[2]!r} would be "
                f"{key}-{label} too. If they are one, say {OWNERS[key]} {label}; else give another label with it."
            )


def _is_other_contrast(one: Placed, earlier: Mapping[str, Any], root: Path) -> bool:
    """Return whether a sidecar is of a contrast of another name that came from other files."""
    name = earlier.get("ContrastName")
    sources = [locate_source(source, root) for source in one.contrast.sources]
    return isinstance(name, str) and name != one.contrast.name and earlier.get("Sources") != sources


def _read_sidecar(path: Path) -> dict[str, Any]:
    """Read a sidecar; {} where it cannot be read."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
