"""The model of one run, made of a model's Run node and the run's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from ibma_app.core.errors import DataError, did_you_mean
from ibma_app.firstlevel.conditions import TRIAL_TYPE, column_names, odd_events
from ibma_app.firstlevel.confounds import (
    FD,
    HIGH_PASS,
    OUTLIERS,
    SHORTEST_SEGMENT,
    complete_columns,
    drop_short_segments,
    high_volumes,
    outlier_volumes,
)
from ibma_app.firstlevel.design import CONSTANT
from ibma_app.firstlevel.model.stats_model import INTERCEPT, Contrast, Node
from ibma_app.firstlevel.model.transformations import apply_instructions
from ibma_app.firstlevel.model.variables import EventVariable, Variables, as_numbers, read_variables
from ibma_app.firstlevel.records import Floats, Regressor, RunContrast, RunModel, RunSettings, RunTables, Timing

PREFIX = "trial_type."
"""What models put before the levels of ``trial_type``; in designs these have the condition's name, as in nilearn."""


def model_of_node(
    node: Node, tables: RunTables, timing: Timing, settings: RunSettings, names: Mapping[str, str]
) -> RunModel:
    """Make a run's model of a Run node.

    Parameters
    ----------
    node : Node
        Of level Run.
    tables : RunTables
    timing : Timing
    settings : RunSettings
        ``scrub_fd`` is used: the rest of the design is the model's.
    names : mapping
        ``events`` and ``confounds``: the files, for messages.

    Raises
    ------
    DataError
        What the tables lack; the message has the path in the model.
    """
    variables = apply_instructions(read_variables(tables, names["events"]), node.instructions, timing)
    variables = _respond(variables, node)
    columns = columns_of(variables)
    chosen, unmatched = _choose(node, columns, variables)
    regressors, notes = _regressors(variables, chosen, node, names["events"])
    scrubbed = _scrubbed(variables, chosen, settings, names.get("confounds", "the confounds"))
    plain, more = _plain_columns(variables, chosen, timing, scrubbed, names)
    short = {name: short_name(name, columns) for name in columns}
    contrasts, missing = _contrasts(node, columns, chosen, short, variables)
    if node.high_pass is None and not any(name.startswith(HIGH_PASS) for name in plain):
        lacking = "neither cosine* in X nor Options.HighPassFilterCutoffHz"
        notes.append(f"{node.path}.Model: the design has no high-pass: {lacking}.")
    named = tuple(_renamed(one, short) for one in regressors)
    return RunModel(
        regressors=named,
        columns=plain,
        contrasts=contrasts,
        missing=missing,
        scrubbed=tuple(sorted(scrubbed)),
        hrf=", ".join(dict.fromkeys(one.hrf or "" for one in named)) or None,
        high_pass=node.high_pass if node.high_pass is not None else 0.0,
        confounds=tuple(name for name in plain if name in variables.confounds),
        notes=(*_lost(variables, names["events"]), *unmatched, *notes, *more, *odd_events(named, timing)),
    )


def columns_of(variables: Variables) -> dict[str, str]:
    """List the columns that a design can have, and the variable that each is of."""
    columns: dict[str, str] = {}
    for name in variables.events:
        hrf, delays = variables.responses.get(name, ("", None))
        columns |= dict.fromkeys(column_names(name, hrf, delays or ()), name)
    return {**{name: name for name in variables.confounds if name not in columns}, **columns}


def short_name(column: str, columns: Mapping[str, str]) -> str:
    """Name a column as designs do: levels of ``trial_type`` by the condition alone, unless another has that name."""
    bare = column.removeprefix(PREFIX)
    return bare if bare and bare not in columns else column


def _respond(variables: Variables, node: Node) -> Variables:
    """Mark the variables of ``Model.HRF`` as convolved."""
    responses = dict(variables.responses)
    events = dict(variables.events)
    for response in node.responses:
        for pattern in response.variables:
            for name in variables.match(pattern):
                if name not in events:
                    raise DataError(f"{response.path}: {name} is a value for each volume; events alone are convolved.")
                events[name] = as_numbers(name, events[name], response.path)
                responses[name] = (response.hrf, response.fir_delays)
    return replace(variables, events=events, responses=responses)


def _choose(node: Node, columns: Mapping[str, str], variables: Variables) -> tuple[list[str], list[str]]:
    """Choose the columns of X, in its order; say what stands for none.

    Raises
    ------
    DataError
        X names a column that there is not.
    """
    chosen: dict[str, None] = {}
    notes = []
    for index, pattern in enumerate(node.x):
        if pattern == INTERCEPT:
            continue
        found = [name for name in columns if name == pattern or fnmatchcase(name, pattern)]
        where = f"{node.path}.Model.X[{index}]"
        if not found and pattern.startswith((HIGH_PASS, *OUTLIERS)):
            continue  # short runs have no cosines, and most have no outliers
        if not found and any(sign in pattern for sign in "*?["):
            notes.append(f"{where}: {pattern} stands for no column of this run.")
        elif not found and variables.is_level(pattern):
            notes.append(f"{where}: the run has no events of {pattern}; it has no such column.")
        elif not found:
            events = ", ".join(variables.events)
            hint = did_you_mean([pattern], columns)
            raise DataError(f"{where}: there is no column {pattern}.{hint} Events give: {events}.")
        chosen |= dict.fromkeys(found)
    return list(chosen), notes


def _regressors(
    variables: Variables, chosen: Sequence[str], node: Node, where: str
) -> tuple[list[Regressor], list[str]]:
    """Make the regressors of the events that are convolved."""
    regressors, notes = [], []
    for name, (hrf, delays) in variables.responses.items():
        made = column_names(name, hrf, delays or ())
        wanted = tuple(column for column in made if column in chosen)
        if name not in variables.events or not wanted:
            continue
        kept, lost = _real_events(name, variables.events[name], variables.durations, where)
        notes += lost
        shortened = _shorten(hrf, made, wanted, node)
        regressors.append(Regressor(name, kept.onsets, kept.durations, kept.values, shortened, delays))
    order = {name: place for place, name in enumerate(chosen)}
    regressors.sort(key=lambda one: min(order.get(column, len(order)) for column in _all_columns(one)))
    return regressors, notes


def _all_columns(regressor: Regressor) -> tuple[str, ...]:
    return column_names(regressor.name, regressor.hrf or "", regressor.fir_delays or ())


def _shorten(hrf: str, made: Sequence[str], wanted: Sequence[str], node: Node) -> str:
    """Return the response whose columns are in X: derivatives may stay out of it.

    Raises
    ------
    DataError
        X has a derivative without the response itself, or some of the delays.
    """
    parts = hrf.split(" + ")
    if tuple(wanted) != tuple(made[: len(wanted)]) or (hrf == "fir" and len(wanted) < len(made)):
        lacking = ", ".join(column for column in made if column not in wanted)
        raise DataError(f"{node.path}.Model.X: has {', '.join(wanted)} without {lacking}. Name all of them.")
    return hrf if hrf == "fir" else " + ".join(parts[: len(wanted)])


def _real_events(name: str, variable: EventVariable, stated: Floats, where: str) -> tuple[EventVariable, list[str]]:
    """Keep the events that have an amplitude and a duration: Factor leaves 0 where an event is of another level.

    Parameters
    ----------
    name : str
    variable : EventVariable
    stated : ndarray, shape (E,)
        Durations of the events table: these must be there, whereas durations of reactions that did not come are not.
    where : str

    Raises
    ------
    DataError
        A duration is negative, or missing in the table.
    """
    numbers = np.asarray(variable.values, dtype=np.float64)
    empty = np.isnan(numbers)
    timeless = np.isnan(variable.durations) & ~empty & (numbers != 0)
    kept = ~empty & (numbers != 0) & ~timeless
    notes = []
    if empty.any():
        notes.append(f"{where}: {int(empty.sum())} event(s) have no value of {name} (n/a) and are left out.")
    if timeless.any() and np.array_equal(variable.durations, stated, equal_nan=True):
        onset = variable.onsets[timeless][0]
        raise DataError(f"{where}: the event at {onset:g} s has no duration (n/a); give a number (0: no duration).")
    if timeless.any():
        notes.append(f"{where}: {int(timeless.sum())} event(s) of {name} have no duration (n/a) and are left out.")
    if (variable.durations[kept] < 0).any():
        raise DataError(
            f"{where}: an event of {name} has a negative duration ({variable.durations[kept].min():g} s); correct it, "
            "or leave the event out."
        )
    return EventVariable(variable.onsets[kept], variable.durations[kept], numbers[kept]), notes


def _lost(variables: Variables, where: str) -> list[str]:
    """Say how many rows of the events are no events, or none of a column."""
    rows = variables.lost.get("onset", 0) + variables.lost.get(TRIAL_TYPE, 0)
    notes = [f"{where}: {rows} row(s) without onset or trial_type (n/a) are no events."] if rows else []
    others = {name: count for name, count in variables.lost.items() if name not in ("onset", TRIAL_TYPE)}
    return notes + [
        f"{where}: {count} row(s) without {name} (n/a) are none of its levels." for name, count in others.items()
    ]


def _scrubbed(variables: Variables, chosen: Sequence[str], settings: RunSettings, where: str) -> set[int]:
    """Return the volumes that are left out: those that columns of X mark, and those of much motion."""
    marked = [variables.confounds[name] for name in chosen if _marks(name, variables)]
    scrubbed = outlier_volumes(marked)
    if settings.scrub_fd is None:
        return scrubbed
    scrubbed |= high_volumes(variables.confounds, FD, settings.scrub_fd, where)
    n_volumes = len(next(iter(variables.confounds.values()), ()))
    return drop_short_segments(scrubbed, n_volumes, SHORTEST_SEGMENT)


def _marks(name: str, variables: Variables) -> bool:
    """Return whether a column marks one volume that is left out."""
    return name in variables.confounds and name.startswith(OUTLIERS)


def _plain_columns(
    variables: Variables, chosen: Sequence[str], timing: Timing, scrubbed: set[int], names: Mapping[str, str]
) -> tuple[dict[str, Floats], list[str]]:
    """Make the columns that are not convolved: confounds, and events as boxcars."""
    plain: dict[str, Floats] = {}
    notes = []
    for name in chosen:
        if name in variables.events and name not in variables.responses:
            variable = as_numbers(name, variables.events[name], "Model.X")
            kept, lost = _real_events(name, variable, variables.durations, names["events"])
            plain[name] = boxcar(kept, timing.frame_times)
            notes += [*lost, f"{name} is not convolved: its events are boxcars in the design."]
    asked = [name for name in chosen if name in variables.confounds and not _marks(name, variables)]
    plain |= complete_columns({name: variables.confounds[name] for name in asked}, scrubbed, names.get("confounds", ""))
    return plain, notes


def boxcar(variable: EventVariable, frame_times: Floats) -> Floats:
    """Return the summed amplitudes of the events that last while a volume is acquired, (T,)."""
    begun = frame_times[:, None] >= variable.onsets
    lasting = begun & (frame_times[:, None] < variable.onsets + variable.durations)
    column: Floats = lasting @ variable.values
    return column


def _contrasts(
    node: Node, columns: Mapping[str, str], chosen: Sequence[str], short: Mapping[str, str], variables: Variables
) -> tuple[tuple[RunContrast, ...], dict[str, str]]:
    """Make the contrasts of a run, and say which it lacks."""
    kept, missing = [], {}
    for contrast in (*_dummies(node, chosen, variables), *node.contrasts):
        lacking = [name for name in contrast.conditions if name != INTERCEPT and name not in chosen]
        for name in lacking:
            hrf, delays = variables.responses.get(name, ("", None))
            if hrf == "fir":
                made = ", ".join(column_names(name, hrf, delays or ()))
                raise DataError(f"{contrast.path}.ConditionList: {name} is convolved with fir: its columns are {made}.")
        if lacking:
            bare = ", ".join(name.removeprefix(PREFIX) for name in lacking)
            missing[contrast.name] = f"the run has no events of {bare}"
            continue
        named = [CONSTANT if name == INTERCEPT else short[name] for name in contrast.conditions]
        rows = tuple(
            {name: weight for name, weight in zip(named, row, strict=True) if weight} for row in contrast.weights
        )
        kept.append(RunContrast(contrast.name, rows, "F" if contrast.test == "F" else "t"))
    return tuple(kept), missing


def _dummies(node: Node, chosen: Sequence[str], variables: Variables) -> list[Contrast]:
    """Write out the dummy contrasts: of the columns that are listed, else of all that come of events."""
    if node.dummies is None:
        return []
    of_events = [name for name in chosen if name not in variables.confounds]
    listed = of_events if node.dummies.conditions is None else list(node.dummies.conditions)
    return [Contrast(name, (name,), ((1.0,),), node.dummies.test, node.dummies.path) for name in listed]


def _renamed(regressor: Regressor, short: Mapping[str, str]) -> Regressor:
    """Give a regressor the name that its columns have in the design."""
    name = short.get(regressor.name, regressor.name)
    if regressor.hrf == "fir":
        first = column_names(regressor.name, "fir", regressor.fir_delays or (0,))[0]
        name = regressor.name.removeprefix(PREFIX) if short.get(first, first) != first else regressor.name
    return Regressor(
        name, regressor.onsets, regressor.durations, regressor.amplitudes, regressor.hrf, regressor.fir_delays
    )
