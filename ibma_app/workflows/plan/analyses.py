"""Which maps are combined with which: observations are grouped into analyses."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ibma_app.core.errors import DatasetError, Note, NothingSelectedError, UsageError, merge_notes
from ibma_app.core.statmap import Analysis, Observation
from ibma_app.dataset.entities import fit_labels, long_name, order_entities, short_name
from ibma_app.estimators import AUTO, estimators_that, find_estimator
from ibma_app.images.spaces import is_mni
from ibma_app.stream.convert import can_give
from ibma_app.workflows.options.table import Options
from ibma_app.workflows.plan.splits import ACQUIRED, tell_group_splits, tell_participant_splits

log = logging.getLogger(__name__)

NEVER_COMBINED = ("sub", "study", "contrast", "space", "stat")
ROOM = {"participant": 220, "mean": 165, "tests": 100}
"""Characters of an analysis's name: what estimators, inferences and tests add fits beside them into 255 bytes."""
PLACES = frozenset({"space", "res"})
"""Entities that do not make two maps of one subject or study two measurements."""
UNIT_KEYS = {"subject": "sub", "study": "study"}


def plan_participants(observations: Sequence[Observation], options: Options) -> dict[str, tuple[Analysis, ...]]:
    """Group the maps of each participant that differ only in the entities combined over.

    Raises
    ------
    NothingSelectedError
        No map belongs to a participant.
    DatasetError
        Several spaces, and none named.
    UsageError
        ``--combine`` names an entity that no map carries.
    """
    owned = [o for o in observations if "sub" in o.entities]
    if not owned:
        raise NothingSelectedError(
            "No map belongs to a participant: their names have no sub-<label>. Studies are combined at the group level."
        )
    _check_spaces(owned, "sub")
    over = _combined_over(owned, options)
    carried = {"run", *(key for one in owned for key in one.entities)}
    jobs: dict[str, list[Analysis]] = defaultdict(list)
    for key, rows in _group(owned, leave_out=over).items():
        entities = order_entities(dict(key))
        words = tuple(long_name(key) for key in over if key in carried)
        analysis = Analysis("participant", "run", entities, tuple(rows), words, _sidecar_notes(rows))
        jobs[entities["sub"]].append(_fit_name(analysis, ROOM["participant"]))
    _refuse_collisions([one for analyses in jobs.values() for one in analyses])
    for text in tell_participant_splits([one for analyses in jobs.values() for one in analyses], over):
        log.warning("%s", text)
    return {label: tuple(jobs[label]) for label in sorted(jobs)}


def _combined_over(observations: Sequence[Observation], options: Options) -> tuple[str, ...]:
    """Return the entities of ``--combine`` by their short keys."""
    over = tuple(dict.fromkeys(short_name(name) for name in options.combine))
    known = {key for o in observations for key in o.entities} | {"run", "ses", "task"}
    menu = sorted(known - set(NEVER_COMBINED))
    for name, key in zip(options.combine, map(short_name, options.combine), strict=True):
        if key in NEVER_COMBINED:
            raise UsageError(
                f"--combine {name}: maps that differ in it are not repetitions. Choose from: {', '.join(menu)}."
            )
        if key not in known:
            raise UsageError(f"--combine {name}: no map carries this entity. They carry: {', '.join(menu)}.")
    return over


def plan_group(observations: Sequence[Observation], options: Options, formula_names: set[str]) -> tuple[Analysis, ...]:
    """Group the maps of subjects (or studies) into analyses: one for each combination of the other entities.

    Parameters
    ----------
    observations : sequence of Observation
        Without ``run``, ``desc`` and ``test`` of earlier analyses.
    options : Options
        ``pool`` is used.
    formula_names : set of str
        Variables of the formula, and entities that its variables tell apart:
        entities among them are pooled as repeated measures.

    Raises
    ------
    DatasetError
        Runs, spaces, contrast names or duplicates that do not fit.
    """
    unit = _unit(observations)
    unit_key = UNIT_KEYS[unit]
    carried = {key for o in observations for key in o.entities}
    repeated = ({short_name(name) for name in formula_names} & carried) - {unit_key}
    if "run" not in repeated:
        _refuse_runs(observations)
    pooled = _pooled(observations, unit, options)
    _refuse_own_surfaces(observations)
    _check_spaces([o for o in observations if "space" not in pooled and "space" not in repeated], unit_key)
    groups = _group(observations, leave_out=(unit_key, *pooled, *repeated))
    _refuse_scattered_contrasts(groups, unit, observations)
    for text in tell_group_splits(groups, unit):
        log.warning("%s", text)
    stated = options.dependence != "none"
    several = all(
        name != "auto" and (find_estimator(name).takes_repeated or (stated and find_estimator(name).takes_dependence))
        for name in options.estimator
    )
    analyses = []
    for key, rows in groups.items():
        entities, notes = _name_entities(dict(key), rows, pooled, repeated)
        _refuse_duplicates(rows, unit, repeated | (pooled - PLACES if several else set()))
        notes = (*notes, *_sidecar_notes(rows))
        analyses.append(Analysis("group", unit, entities, tuple(rows), tuple(sorted(pooled | repeated)), notes))
    one_mean = options.formula == "1" and not options.test and options.contrast_file is None
    analyses = [_fit_name(analysis, ROOM["mean" if one_mean else "tests"]) for analysis in analyses]
    _refuse_collisions(analyses)
    return tuple(sorted(analyses, key=lambda analysis: analysis.name))


def _fit_name(analysis: Analysis, room: int) -> Analysis:
    """Shorten the labels of an analysis whose files' names a file system would not take."""
    fitted = fit_labels(analysis.entities, room)
    full = {key: label for key, label in analysis.entities.items() if fitted[key] != label}
    return replace(analysis, entities=order_entities(fitted), full_labels=full) if full else analysis


def _sidecar_notes(rows: Iterable[Observation]) -> tuple[Note, ...]:
    return merge_notes(note for row in rows for note in row.notes)


def _unit(observations: Sequence[Observation]) -> str:
    studies = [o for o in observations if "study" in o.entities]
    if studies and len(studies) < len(observations):
        other = next(o for o in observations if "study" not in o.entities)
        raise DatasetError(
            f"Maps of studies ({studies[0].path}) and of subjects ({other.path}) cannot enter one analysis. "
            "Choose one kind: --study-label or --participant-label, or -d the dataset that holds it."
        )
    return "study" if studies else "subject"


def _refuse_runs(observations: Iterable[Observation]) -> None:
    of_runs = [o for o in observations if "run" in o.entities]
    if of_runs:
        raise DatasetError(
            f"{of_runs[0].path} is the map of one run; the group level combines one map per subject. "
            f"{_combine_first(of_runs)}."
        )


def _combine_first(rows: Sequence[Observation]) -> str:
    """Write how the participant level makes one map of these: of runs, and of what else tells them apart."""
    by_unit: dict[tuple[str, ...], list[Observation]] = defaultdict(list)
    for row in rows:
        by_unit[row.unit_label, *(row.entities.get(key, "") for key in ("ses", "task", "contrast"))].append(row)
    differ = [
        key
        for key in ACQUIRED
        if key != "run" and any(len({row.entities.get(key) for row in same}) > 1 for same in by_unit.values())
    ]
    combine = f" --combine run {' '.join(differ)}" if differ else ""
    return (
        f"Run the participant level first (ibma-app BIDS_DIR OUTPUT_DIR participant{combine}), then group with the "
        "same OUTPUT_DIR"
    )


def _pooled(observations: Sequence[Observation], unit: str, options: Options) -> set[str]:
    """Return the entities that do not keep maps apart: those of ``--pool``, and the defaults."""
    asked = {short_name(name) for name in options.pool or ()}
    known = {key for o in observations for key in o.entities} | {"task", "space", "contrast", "ses", "res"}
    for name in sorted(asked - known):
        raise UsageError(f"--pool {name}: no map carries this entity. They carry: {', '.join(sorted(known))}.")
    if "space" in asked:
        asked.add("res")
    if unit == "subject":
        return asked
    spaces = {o.entities.get("space", "") for o in observations}
    within_mni = len(spaces) > 1 and all(is_mni(space) for space in spaces)
    return asked | {"task", "res"} | ({"space"} if within_mni else set())


def _check_spaces(observations: Sequence[Observation], unit_key: str) -> None:
    """Refuse several spaces: a result lies in one."""
    spaces: dict[str, Observation] = {}
    for observation in observations:
        spaces.setdefault(observation.entities.get("space", "(none)"), observation)
    if len(spaces) > 1:
        listed = "; ".join(f"{space} (e.g. {o.path})" for space, o in sorted(spaces.items()))
        remedy = "--space LABEL" if unit_key == "sub" else "--space LABEL, or --pool space where they are one space"
        raise DatasetError(f"The maps lie in {len(spaces)} spaces: {listed}. Choose with {remedy}.")
    densities: dict[str, Observation] = {}
    for observation in observations:
        densities.setdefault(observation.entities.get("den", "(none)"), observation)
    if len(densities) > 1:
        listed = "; ".join(f"{density} (e.g. {o.path})" for density, o in sorted(densities.items()))
        label = next(one for one in sorted(densities) if one != "(none)")
        raise DatasetError(
            f"The maps lie on meshes of {len(densities)} densities: {listed}. Vertices of different meshes do not "
            f'match. Choose one: in the configuration, [inputs] keep = {{ density = ["{label}"] }}; or resample the '
            "others (wb_command -metric-resample, mri_surf2surf)."
        )


def _refuse_own_surfaces(observations: Sequence[Observation]) -> None:
    """Refuse surfaces of participants' own: a vertex is another place in each of them."""
    own = next((one for one in observations if one.entities.get("space") == "fsnative"), None)
    if own is not None:
        raise DatasetError(
            f"{own.path} lies on the participant's own surface (fsnative), where a vertex is another place in each "
            "brain. Bring the maps to a template first: fMRIPrep's --output-spaces fsaverage5, or mri_surf2surf."
        )


def _group(
    observations: Iterable[Observation], leave_out: Iterable[str]
) -> dict[tuple[tuple[str, str], ...], list[Observation]]:
    left_out = set(leave_out) | {"node"}
    groups: dict[tuple[tuple[str, str], ...], list[Observation]] = defaultdict(list)
    for observation in observations:
        key = tuple(sorted((k, v) for k, v in observation.entities.items() if k not in left_out))
        groups[key].append(observation)
    return dict(sorted(groups.items()))


def _name_entities(
    key: Mapping[str, str], rows: Sequence[Observation], pooled: set[str], repeated: set[str]
) -> tuple[dict[str, str], tuple[Note, ...]]:
    """Name the output by what its maps share; a pooled space or resolution stays where all maps have the same."""
    entities = {k: v for k, v in key.items() if k not in ("desc", "test", "corr")}
    notes = []
    for entity in ("space", "res"):
        labels = {row.entities.get(entity) for row in rows}
        if entity in pooled and entity not in repeated and len(labels) == 1 and None not in labels:
            entities[entity] = next(label for label in labels if label)
    for entity in sorted(pooled - {"res"}):
        values = sorted({row.entities.get(entity, "(none)") for row in rows})
        if len(values) > 1:
            notes.append(Note(f"Maps that differ in {entity}- are pooled: {', '.join(values)}."))
    return order_entities(entities), tuple(notes)


def _refuse_scattered_contrasts(
    groups: Mapping[tuple[tuple[str, str], ...], list[Observation]],
    unit: str,
    observations: Sequence[Observation],
) -> None:
    contrasts = {o.entities.get("contrast", "") for o in observations}
    if unit == "study" and len(groups) > 1 and len(contrasts) > 1 and all(len(r) == 1 for r in groups.values()):
        raise DatasetError(
            f"Every study has a contrast name of its own ({', '.join(sorted(contrasts))}), so nothing can be combined. "
            "If they ask the same question, say so with --pool contrast."
        )


def _refuse_duplicates(rows: Sequence[Observation], unit: str, apart: set[str]) -> None:
    """Refuse two maps of one subject or study that no entity of ``apart`` tells apart."""
    seen: dict[tuple[str, ...], Observation] = {}
    for row in rows:
        key = (row.unit_label, *(row.entities.get(entity, "") for entity in sorted(apart)))
        if key in seen:
            raise DatasetError(
                f"Two maps of one {unit} ({row.unit_label}) meet in one analysis: {seen[key].path} and {row.path}. "
                f"{_part_duplicates(seen[key], row, rows, unit)}"
            )
        seen[key] = row


def _part_duplicates(one: Observation, other: Observation, rows: Sequence[Observation], unit: str) -> str:
    """Say what helps where two maps of one subject or study meet in an analysis."""
    differ = sorted(k for k in {*one.entities, *other.entities} if one.entities.get(k) != other.entities.get(k))
    query = {kind: {key: one.entities.get(key) for key in differ} for kind in sorted(one.statmaps)}
    others = f"Keep one with --bids-filter-file FILE, where FILE holds {json.dumps(query)}"
    others += f", or name what tells them apart in --formula (repeated measures){_modelled(one, other, differ, unit)}."
    if set(differ) - PLACES - {"desc"}:
        others += _several(differ, rows, unit)
    has_variance = all("variance" in row.statmaps or {"effect", "t"} <= set(row.statmaps) for row in (one, other))
    if unit == "subject" and has_variance and set(differ) <= {*ACQUIRED, "ses", "task"}:
        combine = " ".join(dict.fromkeys(("run", *differ)))
        return (
            f"Combine each subject's first (ibma-app BIDS_DIR OUTPUT_DIR participant --combine {combine}), then group "
            f"with the same OUTPUT_DIR. Or: {others[0].lower()}{others[1:]}"
        )
    return others


def _modelled(one: Observation, other: Observation, differ: Sequence[str], unit: str) -> str:
    """Write the options that model two maps as repeated measures, where one entity tells them apart."""
    key = differ[0] if len(differ) == 1 else ""
    levels = sorted(label for label in (one.entities.get(key), other.entities.get(key)) if label)
    if key in PLACES or len(levels) < 2:
        return ""
    name, row = long_name(key), "study_id" if unit == "study" else "participant_id"
    return f': --formula "1 + {name} + C({row})" --test "other={name}[T.{levels[1]}]" --estimator {AUTO["effect"]}'


def _several(differ: Sequence[str], rows: Sequence[Observation], unit: str) -> str:
    """Name the estimators that take several maps of one subject or study, and how they are pooled."""
    able = estimators_that(
        lambda record: (
            record.takes_repeated
            and not record.same_data
            and all(can_give(row, need) for row in rows for need in record.needs)
        )
    )  # none of them needs sample sizes
    if not able:
        return ""
    pool = " ".join(long_name(key) for key in differ)
    return f" All maps of one {unit} enter an analysis with --estimator {' or '.join(able)}, and --pool {pool}."


def _refuse_collisions(analyses: Sequence[Analysis]) -> None:
    """Refuse names that are one, or differ in case alone, which many file systems take for one."""
    names: dict[str, Analysis] = {}
    for analysis in analyses:
        name = analysis.name.casefold()
        if name in names and names[name].name != analysis.name:
            raise DatasetError(_explain_case(names[name], analysis))
        if name in names:
            first, second = names[name].observations[0], analysis.observations[0]
            differs = [
                k for k, v in first.entities.items() if second.entities.get(k) != v and k not in ("sub", "study")
            ]
            query = {kind: {key: first.entities[key] for key in differs} for kind in sorted(first.statmaps)}
            raise DatasetError(
                f"Two analyses would be written under one name ({analysis.name}): of {first.path} and of "
                f"{second.path}. Choose one with --bids-filter-file FILE, where FILE holds {json.dumps(query)}."
            )
        names[name] = analysis


_OPTIONS = {"sub": "--participant-label", "ses": "--session-label", "task": "--task-id", "contrast": "--contrast"}


def _explain_case(one: Analysis, other: Analysis) -> str:
    """Word the error about two names that differ in case alone, and what to do."""
    apart = [key for key, label in one.entities.items() if other.entities.get(key) != label]
    options = [_OPTIONS.get(key, "") for key in apart]
    text = (
        f"The results {one.name} and {other.name} have names that differ in case alone ({one.observations[0].path} and "
        f"{other.observations[0].path}), and many file systems take these for one. Rename the maps of one"
    )
    if not all(options):
        return f"{text}."
    chosen = [" ".join(f"{_OPTIONS[key]} {which.entities[key]}" for key in apart) for which in (one, other)]
    return f"{text}, or combine them apart, each with an OUTPUT_DIR of its own: {chosen[0]}, then {chosen[1]}."
