"""Which maps are combined with which: observations are grouped into analyses."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ibma_app.core.errors import DatasetError, NothingSelectedError, UsageError
from ibma_app.core.statmap import Analysis, Observation
from ibma_app.dataset.entities import order_entities, short_name
from ibma_app.images.spaces import is_mni
from ibma_app.workflows.options.table import Options

log = logging.getLogger(__name__)

COMBINED = {"run": "run", "session": "ses", "task": "task"}
UNIT_KEYS = {"subject": "sub", "study": "study"}


def plan_participants(observations: Sequence[Observation], options: Options) -> dict[str, tuple[Analysis, ...]]:
    """Group the maps of each participant that differ only in the entities combined over.

    Raises
    ------
    NothingSelectedError
        No map belongs to a participant.
    DatasetError
        Several spaces, and none named.
    """
    owned = [o for o in observations if "sub" in o.entities]
    if not owned:
        raise NothingSelectedError(
            "No map belongs to a participant: their names have no sub-<label>. Studies are combined at the group level."
        )
    _check_spaces(owned, "sub")
    over = tuple(COMBINED[name] for name in options.combine)
    jobs: dict[str, list[Analysis]] = defaultdict(list)
    for key, rows in _group(owned, leave_out=over).items():
        entities = order_entities(dict(key))
        jobs[entities["sub"]].append(
            Analysis("participant", "run", entities, tuple(rows), options.combine, _sidecar_notes(rows))
        )
    return {label: tuple(jobs[label]) for label in sorted(jobs)}


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
    _check_spaces([o for o in observations if "space" not in pooled and "space" not in repeated], unit_key)
    groups = _group(observations, leave_out=(unit_key, *pooled, *repeated))
    _refuse_scattered_contrasts(groups, unit, observations)
    analyses = []
    for key, rows in groups.items():
        entities, notes = _name_entities(dict(key), rows, pooled, repeated)
        _refuse_duplicates(rows, unit, repeated)
        notes = (*notes, *_sidecar_notes(rows))
        analyses.append(Analysis("group", unit, entities, tuple(rows), tuple(sorted(pooled | repeated)), notes))
    _refuse_collisions(analyses)
    return tuple(sorted(analyses, key=lambda analysis: analysis.name))


def _sidecar_notes(rows: Iterable[Observation]) -> tuple[str, ...]:
    return tuple(note for row in rows for note in row.notes)


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
    for observation in observations:
        if "run" in observation.entities:
            raise DatasetError(
                f"{observation.path} is the map of one run; the group level combines one map per subject. "
                "Run the participant level first (ibma-app BIDS_DIR OUTPUT_DIR participant), then group with the "
                "same OUTPUT_DIR."
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
) -> tuple[dict[str, str], tuple[str, ...]]:
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
            notes.append(f"Maps that differ in {entity}- are pooled: {', '.join(values)}.")
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


def _refuse_duplicates(rows: Sequence[Observation], unit: str, repeated: set[str]) -> None:
    seen: dict[tuple[str, ...], Observation] = {}
    for row in rows:
        key = (row.unit_label, *(row.entities.get(entity, "") for entity in sorted(repeated)))
        if key in seen:
            raise DatasetError(
                f"Two maps of one {unit} ({row.unit_label}) meet in one analysis: {seen[key].path} and {row.path}. "
                "Keep one with --bids-filter-file, keep them apart with --pool, or name what tells them apart in "
                "--formula (repeated measures)."
            )
        seen[key] = row


def _refuse_collisions(analyses: Sequence[Analysis]) -> None:
    names: dict[str, Analysis] = {}
    for analysis in analyses:
        if analysis.name in names:
            first, second = names[analysis.name].observations[0], analysis.observations[0]
            differs = [
                k for k, v in first.entities.items() if second.entities.get(k) != v and k not in ("sub", "study")
            ]
            query = {kind: {key: first.entities[key] for key in differs} for kind in sorted(first.statmaps)}
            raise DatasetError(
                f"Two analyses would be written under one name ({analysis.name}): of {first.path} and of "
                f"{second.path}. Choose one with --bids-filter-file FILE, where FILE holds {json.dumps(query)}."
            )
        names[analysis.name] = analysis
