"""The model that options mean: a regressor for each ``trial_type``, confounds, and contrasts by name."""

from collections.abc import Mapping, Sequence

import numpy as np

from ibma_app.core.errors import DataError
from ibma_app.firstlevel.confounds import ChosenConfounds, choose_confounds
from ibma_app.firstlevel.records import Regressor, RunContrast, RunModel, RunSettings, RunTables, Timing
from ibma_app.firstlevel.run_tables import event_numbers

TRIAL_TYPE, MODULATION = "trial_type", "modulation"
ONLY = "event"  # the condition of tables without trial_type
ENDINGS = {"derivative": "_derivative", "dispersion": "_dispersion"}
DEFAULT_HIGH_PASS = RunSettings().high_pass


def list_conditions(events: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """List the conditions of an events table, sorted."""
    if TRIAL_TYPE not in events:
        return (ONLY,)
    return tuple(sorted({name for name in events[TRIAL_TYPE] if name}))


def column_names(name: str, hrf: str, fir_delays: Sequence[int]) -> tuple[str, ...]:
    """Name the columns of a regressor, the response itself first, as nilearn does."""
    if hrf == "fir":
        return tuple(f"{name}_delay_{delay}" for delay in fir_delays)
    return (name, *(name + ending for word, ending in ENDINGS.items() if word in hrf))


def condition_contrast(name: str, settings: RunSettings) -> RunContrast:
    """Make the contrast of one condition: its response, or an F test of all delays of ``fir``."""
    columns = column_names(name, settings.hrf, settings.fir_delays)
    if settings.hrf == "fir":
        return RunContrast(name, tuple({column: 1.0} for column in columns), "F")
    return RunContrast(name, ({columns[0]: 1.0},))


def condition_regressors(events: Mapping[str, Sequence[str]], where: str) -> tuple[tuple[Regressor, ...], list[str]]:
    """Make a regressor of each condition; a column ``modulation`` is the height of its events, as in nilearn.

    Parameters
    ----------
    events : mapping of str to sequence of str
        Column -> cells, "" for ``n/a``.
    where : str
        The table's file, for messages.

    Returns
    -------
    regressors : tuple of Regressor
    notes : list of str
        Rows without an onset or a trial type are no events.

    Raises
    ------
    DataError
        An event has no duration or no number where one is needed.
    """
    types = events.get(TRIAL_TYPE, (ONLY,) * len(events["onset"]))
    notes = [] if TRIAL_TYPE in events else [f"{where} has no column trial_type: all events are one condition, {ONLY}."]
    without = [
        row for row, (onset, name) in enumerate(zip(events["onset"], types, strict=True)) if not (onset and name)
    ]
    if without:
        notes.append(f"{where}: {len(without)} row(s) without onset or trial_type (n/a) are no events.")
    regressors = []
    for name in list_conditions(events):
        rows = [row for row, one in enumerate(types) if one == name and events["onset"][row]]
        heights = np.ones(len(rows)) if MODULATION not in events else event_numbers(events, MODULATION, rows, where)
        onsets, durations = (event_numbers(events, column, rows, where) for column in ("onset", "duration"))
        if (durations < 0).any():
            row = rows[int(durations.argmin())]
            raise DataError(
                f"{where}, line {row + 2}: an event of {name} has a negative duration ({durations.min():g} s); correct "
                "it, or leave the event out."
            )
        regressors.append(Regressor(name, onsets, durations, heights))
    return tuple(regressors), notes


def odd_events(regressors: Sequence[Regressor], timing: Timing) -> list[str]:
    """Say how many events lie outside of the run, where they have little or no effect, or stand twice."""
    first, last = timing.frame_times[0], timing.frame_times[-1] + timing.repetition_time
    late = sum(int((one.onsets >= last).sum()) for one in regressors)
    early = sum(int((one.onsets + one.durations < first - 24).sum()) for one in regressors)
    notes = [f"{late} event(s) begin after the last volume (at {last:g} s) and have no effect."] if late else []
    if early:
        notes.append(f"{early} event(s) end more than 24 s before the first volume used and have no effect.")
    for one in regressors:
        twice = one.onsets.size - len({*zip(one.onsets.tolist(), one.durations.tolist(), strict=True)})
        if twice:
            notes.append(f"{twice} event(s) of {one.name} stand twice, with one onset and duration, and count twice.")
    return notes


def settle_contrasts(
    contrasts: Sequence[RunContrast], columns: Sequence[str]
) -> tuple[tuple[RunContrast, ...], dict[str, str]]:
    """Keep the contrasts whose columns a run has; say of the others what it lacks."""
    kept, missing = [], {}
    for contrast in contrasts:
        lacking = [column for column in contrast.columns if column not in columns]
        if lacking:
            missing[contrast.name] = f"the run has no events of {', '.join(lacking)}"
        else:
            kept.append(contrast)
    return tuple(kept), missing


def model_of_options(
    tables: RunTables,
    timing: Timing,
    settings: RunSettings,
    contrasts: Sequence[RunContrast],
    names: Mapping[str, str],
) -> RunModel:
    """Make a run's model of the options.

    Parameters
    ----------
    tables : RunTables
    timing : Timing
    settings : RunSettings
    contrasts : sequence of RunContrast
        All that are asked for of the task; those that this run cannot have are its ``missing``.
    names : mapping
        ``events`` and ``confounds``: the files, for messages.

    Raises
    ------
    DataError
        What the tables lack.
    """
    regressors, notes = condition_regressors(tables.events, names["events"])
    notes += odd_events(regressors, timing)
    chosen = options_confounds(tables, settings, names.get("confounds", "the confounds"))
    columns = [column for one in regressors for column in column_names(one.name, settings.hrf, settings.fir_delays)]
    kept, missing = settle_contrasts(contrasts, columns)
    return RunModel(
        regressors=regressors,
        columns=chosen.columns,
        contrasts=kept,
        missing=missing,
        scrubbed=chosen.scrubbed,
        confounds=tuple(chosen.columns),
        notes=(*notes, *chosen.notes),
    )


def options_confounds(tables: RunTables, settings: RunSettings, where: str) -> ChosenConfounds:
    """Choose the confounds that the settings ask for; without a table there are none."""
    if not tables.confounds:
        asked = [one for one in settings.confounds if one != "none"]
        if asked or settings.scrub_fd is not None:
            raise DataError(
                f"{where}: there is no confounds table beside the BOLD, and {' '.join(asked) or 'scrub_fd'} needs one. "
                "Say --confounds none, or give fMRIPrep's whole output."
            )
        return ChosenConfounds({})
    own = settings.high_pass not in (0.0, DEFAULT_HIGH_PASS) and "compcor" not in settings.confounds
    return choose_confounds(
        tables.confounds,
        settings.confounds,
        where,
        metadata=tables.confounds_metadata,
        scrub_fd=settings.scrub_fd,
        cosines=not own and settings.high_pass > 0,
    )
