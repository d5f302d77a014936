"""From the options to the observations that are combined."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ibma_app.core.errors import (
    DataError,
    DatasetError,
    IbmaError,
    InputError,
    NothingSelectedError,
    OutputError,
    UsageError,
    tell,
)
from ibma_app.core.labels import is_label
from ibma_app.core.statmap import Dataset, Observation, StatMap
from ibma_app.dataset.datasets import find_datasets, find_own_maps, find_own_runs, find_table
from ibma_app.dataset.description import read_own_description
from ibma_app.dataset.entities import LONG_NAMES
from ibma_app.dataset.filters import BOLD, read_filter_file, read_kept, read_labels
from ibma_app.dataset.observations import observe
from ibma_app.dataset.query import Query, explain_nothing, find_statmaps, tell_unmatched
from ibma_app.dataset.walk import has_maps
from ibma_app.designs.formulas import used_variables
from ibma_app.designs.publications import cite_studies
from ibma_app.designs.tables import Table, check_sample_sizes, read_table, sample_sizes
from ibma_app.workflows.options.table import Options, file_or_word
from ibma_app.workflows.plan.compute_contrasts import compute_effects

log = logging.getLogger(__name__)

LABELS = {
    "sub": "participant_label",
    "ses": "session_label",
    "study": "study_label",
    "task": "task_id",
    "contrast": "contrast",
    "space": "space",
}


@dataclass(frozen=True)
class Gathered:
    """What the options select: maps by observation, where they come from, their table."""

    datasets: tuple[Dataset, ...]
    observations: tuple[Observation, ...]
    table: Table | None = None  # participants.tsv or studies.tsv, or --covariates
    table_path: Path | None = None


def gather(options: Options) -> Gathered:
    """Find the maps that the options select.

    Raises
    ------
    NothingSelectedError
        The message has the query, how many maps each filter left, and the values that exist.
    """
    _check_folders(options)
    datasets = find_datasets(
        options.bids_dir,
        options.derivatives,
        options.output_dir,
        options.analysis_level,
        skip_validation=options.skip_bids_validation,
    )
    query = build_query(options)
    datasets, statmaps = _find_maps(options, query, datasets)
    own = datasets[0] if datasets[0].name == "" else None
    for text in tell_unmatched(datasets, query, statmaps, [options.output_dir / "group"]):
        log.warning("%s", text)
    key = "study_id" if any("study" in statmap.entities for statmap in statmaps) else "participant_id"
    table_path = options.covariates or find_table(datasets, options.bids_dir, _TABLES[key])
    table = _read_table(options, table_path, key) if table_path else None
    observations = observe(
        statmaps,
        "study" if key == "study_id" else "sub",
        dof=options.dof,
        sample_sizes=sample_sizes(table),
    )
    observations = _drop_orphans(observations, options)
    if table is not None and key == "study_id":
        for note in check_sample_sizes(table, observations):
            log.warning("%s", note)
    observations, uncited = cite_studies(observations, table)
    for text in tell(uncited):
        log.warning("%s", text)
    if _computes(options):
        observations = _add_computed(observations, options)
    if own and options.analysis_level == "participant":
        observations = _with_effects(own, observations)
    elif own:
        _warn_of_missing(own, datasets[1:], options, observations)
    return Gathered(datasets, observations, table, table_path)


def _find_maps(
    options: Options, query: Query, datasets: tuple[Dataset, ...]
) -> tuple[tuple[Dataset, ...], tuple[StatMap, ...]]:
    """Find the maps of the level, in OUTPUT_DIR where the level below has written them; it then comes first."""
    own = datasets[0] if datasets[0].name == "" else None
    if own is not None:
        _refuse_studies(own, datasets[1:], options)
    if own is None and not _have_maps(datasets, options):  # -d names what runs were modelled from
        find_own = find_own_maps if options.analysis_level == "group" else find_own_runs
        own = find_own(options.output_dir)
        datasets = datasets if own is None else (own, *datasets)
    statmaps = _search(options, query, datasets if own is None else (own,))
    if own is None and options.analysis_level == "group" and any("run" in one.entities for one in statmaps):
        own = find_own_maps(options.output_dir)  # -d names the first level, as at the participant level
        if own is not None:
            return (own, *datasets), _search(options, query, (own,))
    return datasets, statmaps


def _with_effects(own: Dataset, observations: tuple[Observation, ...]) -> tuple[Observation, ...]:
    """Keep what can be combined of the maps of runs: F tests have no effect."""
    log.info("Using the maps of runs in %s.", own.root)
    kept = tuple(one for one in observations if "effect" in one.statmaps)
    left = sorted({one.entities.get("contrast", "") for one in observations if one not in kept})
    if left and kept:
        log.info("F tests of runs have no effect to combine: %s.", ", ".join(left))
    return kept or observations


def _have_maps(datasets: Sequence[Dataset], options: Options) -> bool:
    """Return whether there is any statistic map in the datasets."""
    if options.bids_filter_file is not None:
        return True  # maps may have any name
    return any(has_maps(one.root, "**/*") for one in datasets)


def _refuse_studies(own: Dataset, datasets: Sequence[Dataset], options: Options) -> None:
    """Refuse studies beside participant maps in OUTPUT_DIR: these would be combined instead, without a word.

    Raises
    ------
    DatasetError
        The input holds studies and no participants.
    """
    studies = [next(one.root.glob("study-*"), None) or one.root.name.startswith("study-") for one in datasets]
    if any(studies) and not any(next(one.root.glob("sub-*"), None) for one in datasets):
        raise DatasetError(
            f"{options.bids_dir} holds studies, but OUTPUT_DIR {own.root} holds participant maps, which the group "
            "level takes first. Give the meta-analysis an OUTPUT_DIR of its own."
        )


def _read_table(options: Options, path: Path, key: str) -> Table | None:
    """Read the table of covariates; a defect of one that nobody needs is only told.

    Needed is what ``--covariates`` names, participants.tsv where the formula
    has more than entities of the maps' names, and studies.tsv for its sample sizes.
    """
    needed = options.covariates is not None or key == "study_id"
    if options.analysis_level == "group":
        known = {*LONG_NAMES, *LONG_NAMES.values(), key, "sample_size"}
        needed = needed or bool(set(used_variables(options.formula, ())) - known)
    try:
        return read_table(path, key, of_maps=options.covariates is not None)
    except IbmaError as error:
        if needed:
            raise
        log.warning("%s The table is not used: nothing of this run needs it.", error.message)
        return None


_TABLES = {"study_id": "studies.tsv", "participant_id": "participants.tsv"}


def _check_folders(options: Options) -> None:
    """Keep OUTPUT_DIR out of the user's data.

    Raises
    ------
    UsageError
        OUTPUT_DIR is BIDS_DIR, or a subject's or study's folder in it; another folder to write lies in BIDS_DIR.
    InputError
        ``--mask`` or ``--grid`` names no file.
    OutputError
        OUTPUT_DIR is another dataset, or holds maps that are not ours: the folders were swapped.
    """
    bids_dir, output = options.bids_dir.resolve(), options.output_dir.resolve()
    inside = output.relative_to(bids_dir).parts if output.is_relative_to(bids_dir) else None
    if inside == () or (inside and inside[0].startswith(("sub-", "study-", "node-"))):
        raise UsageError(
            f"OUTPUT_DIR ({options.output_dir}) is BIDS_DIR or lies among its maps, and BIDS_DIR is never written to. "
            f"Give another folder, e.g. {options.bids_dir / 'derivatives' / 'ibma'}."
        )
    for dest in ("bids_database_dir", "work_dir"):
        folder = getattr(options, dest)
        if (
            folder is not None
            and folder.resolve().is_relative_to(bids_dir)
            and not folder.resolve().is_relative_to(output)
        ):
            flag = f"--{dest.replace('_', '-')}"
            raise UsageError(f"{flag} {folder} lies in BIDS_DIR, which is never written to. Name another folder.")
    for dest, words in (("mask", "auto, data or template"), ("grid", "common or mni2mm")):
        named = file_or_word(getattr(options, dest))
        if isinstance(named, Path) and not named.is_file():
            raise InputError(f"--{dest} {named}: there is no such file. Give a file, or one of the words {words}.")
    if not read_own_description(output) and any(
        has_maps(folder, "**/*") for key in ("sub-*", "study-*") for folder in output.glob(key)
    ):
        raise OutputError(
            f"OUTPUT_DIR {options.output_dir} holds maps that ibma-app did not write. Were BIDS_DIR and OUTPUT_DIR "
            "swapped? Give an empty folder, or one of our own."
        )


def _drop_orphans(observations: tuple[Observation, ...], options: Options) -> tuple[Observation, ...]:
    """Leave out variances and dof whose effect (or t, z, p) was not selected."""
    kept = tuple(o for o in observations if set(o.statmaps) - {"variance", "dof"})
    orphans = [str(o.path) for o in observations if not set(o.statmaps) - {"variance", "dof"}]
    if orphans:
        log.warning("%d map(s) of variance or dof without an effect, t, z or p beside them are left out (e.g. %s).",
                    len(orphans), orphans[0])  # fmt: skip
    if not kept:
        only = f"Only variances or dof were found, no effect, t, z or p (e.g. {orphans[0]})."
        if options.bids_filter_file is not None:
            queries = json.dumps(read_filter_file(options.bids_filter_file))
            raise NothingSelectedError(
                f"{only} Does the filter file {options.bids_filter_file} leave them out? {queries}"
            )
        raise DataError(only)
    return kept


def _computes(options: Options) -> bool:
    """Return whether new contrasts are computed: ``--contrast`` then applies to them as well, afterwards."""
    return bool(options.compute) and options.analysis_level == "group"


def _add_computed(observations: tuple[Observation, ...], options: Options) -> tuple[Observation, ...]:
    """Compute new effect maps, then apply ``--contrast``."""
    every, notes = compute_effects(observations, options.compute or ())
    for note in notes:
        log.warning("%s", note)
    if options.contrast is None:
        return every
    wanted = read_labels(options.contrast, "contrast")
    kept = tuple(o for o in every if o.entities.get("contrast") in wanted)
    if not kept:
        there = sorted({o.entities.get("contrast", "(none)") for o in every})
        raise NothingSelectedError(f"--contrast {' '.join(wanted)} selects nothing. Contrasts: {', '.join(there)}.")
    return kept


def _search(options: Options, query: Query, sources: tuple[Dataset, ...]) -> tuple[StatMap, ...]:
    """Find the maps in these datasets, except those that our own group level wrote."""
    output = options.output_dir
    excluded = (output / "group", output / "logs") if sources[0].name == "" else (output,)
    try:
        statmaps = find_statmaps(sources, query, exclude=excluded)
    except UsageError as error:
        file = options.bids_filter_file
        raise UsageError(f"{file}: {error.message}") if file is not None else error from None
    if not statmaps:
        text = explain_nothing(sources, query, exclude=excluded)
        if options.bids_filter_file is not None:
            text += f"\nDoes the filter file {options.bids_filter_file} leave out what you want?"
        raise NothingSelectedError(text)
    return statmaps


def build_query(options: Options) -> Query:
    """Put the label options, the filter file and ``[inputs]`` into one query."""
    labels = {
        key: read_labels(getattr(options, dest), key)
        for key, dest in LABELS.items()
        if getattr(options, dest) is not None and not (key == "contrast" and _computes(options))
    }
    labels |= read_kept(options.settings.get("inputs", {}).get("keep", {}))
    excluded = {
        key: read_labels(given, key)
        for key, given in (("sub", options.exclude_participant_label), ("study", options.exclude_study_label))
        if given is not None
    }
    if options.space_is is not None and not is_label(options.space_is):
        raise UsageError(
            f"--space-is {options.space_is!r}: a label has letters and digits only, as in MNI152NLin6Asym."
        )
    filters = read_filter_file(options.bids_filter_file) if options.bids_filter_file else {}
    return Query(
        labels=labels,
        excluded=excluded,
        space_is=options.space_is,
        filters={kind: query for kind, query in filters.items() if kind != BOLD},
        contrast_entity=options.settings.get("inputs", {}).get("contrast", "contrast"),
        database_dir=options.bids_database_dir,
        level=options.analysis_level,
    )


def _warn_of_missing(
    own: Dataset, datasets: tuple[Dataset, ...], options: Options, observations: tuple[Observation, ...]
) -> None:
    """Warn of subjects of the input that have no participant-level map."""
    there = {o.entities.get("sub") for o in observations}
    first_level = {
        path.name.removeprefix("sub-")
        for dataset in datasets
        for folder in (dataset.root, *dataset.root.glob("node-*"))
        for path in folder.glob("sub-*")
        if path.is_dir()
    }
    log.info("Using the participant maps in %s.", own.root)
    if options.participant_label is not None:
        first_level &= set(read_labels(options.participant_label, "sub"))
    first_level -= set(read_labels(options.exclude_participant_label or (), "sub"))
    missing = sorted(first_level - there)
    if missing:
        log.warning(
            "%d subject(s) of the input have no selected participant map in %s and are not combined: %s.",
            len(missing),
            own.root,
            ", ".join(missing),
        )
