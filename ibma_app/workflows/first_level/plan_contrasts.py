"""The contrasts of each task: what ``--contrasts`` says, or each condition."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from ibma_app.core.bold_run import BoldRun
from ibma_app.core.errors import IbmaError, UsageError, did_you_mean
from ibma_app.core.from_files import EXPRESSION, show
from ibma_app.core.labels import contrast_label, find_clash
from ibma_app.designs.expressions import UnknownColumnError, parse_rows
from ibma_app.firstlevel.conditions import column_names, condition_contrast, list_conditions
from ibma_app.firstlevel.records import RunContrast, RunSettings
from ibma_app.firstlevel.run_tables import read_events

log = logging.getLogger(__name__)

NUMBERED = "trial_type."  # before conditions whose names are numbers, in expressions


def plan_contrasts(
    runs: Sequence[BoldRun],
    settings: RunSettings,
    texts: Sequence[str] | None,
    others: Callable[[], Sequence[BoldRun]] | None = None,
) -> dict[str, tuple[RunContrast, ...]]:
    """Make the contrasts of each task from the conditions of all its runs.

    A condition that none of the selected participants has may be one that they lack: if others have it, or there are
    no others to ask, that is a warning, and their runs will lack the contrast.

    Parameters
    ----------
    runs : sequence of BoldRun
    settings : RunSettings
    texts : sequence of str, optional
        ``NAME=EXPRESSION``; None: each condition.
    others : callable, optional
        Finds the runs of participants that are not selected; None: all are.

    Raises
    ------
    UsageError
        An expression names what no run of the task has.
    """
    found = conditions_of(runs)
    if texts is None:
        contrasts = {
            task: [condition_contrast(name, settings) for name in sorted(names)] for task, names in found.items()
        }
    else:
        tasks = {task: _columns(names, settings) for task, names in found.items()}
        try:
            contrasts = {task: _parse_all(texts, task, tasks[task], settings, others) for task in tasks}
        except UnknownColumnError as error:
            if len(tasks) == 1:
                raise
            raise UsageError(f"{error.message} There are {len(tasks)} tasks: choose by -t.") from None
    for every in contrasts.values():
        _check_labels(every)
    return {task: tuple(every) for task, every in contrasts.items()}


def conditions_of(runs: Sequence[BoldRun]) -> dict[str, set[str]]:
    """List the conditions of each task; tables that cannot be read are their runs' own failures, later."""
    conditions: dict[str, set[str]] = {}
    for run in runs:
        found = conditions.setdefault(run.entities.get("task", ""), set())
        if run.events is not None:
            try:
                found |= set(list_conditions(read_events(run.events)))
            except IbmaError as error:
                log.debug("%s: %s", run.name, error.message)
    return conditions


def _columns(conditions: set[str], settings: RunSettings) -> list[str]:
    """Name the columns of conditions."""
    return [column for name in sorted(conditions) for column in column_names(name, settings.hrf, settings.fir_delays)]


def _parse_all(
    texts: Sequence[str],
    task: str,
    columns: Sequence[str],
    settings: RunSettings,
    others: Callable[[], Sequence[BoldRun]] | None,
) -> list[RunContrast]:
    """Parse the contrasts of a task; none where it has no conditions."""
    if not columns:
        return []
    try:
        return [_parse(text, task, columns) for text in texts]
    except UnknownColumnError:
        if others is None:
            raise
    there = _columns(conditions_of(others()).get(task, set()), settings)
    known = [*columns, *(one for one in there if one not in columns)]
    contrasts = []
    for text in texts:
        contrast, lacking = _parse_lenient(text, task, known, lenient=not there)
        lacking += [one for one in contrast.columns if one not in [*columns, *lacking]]
        for name in lacking:
            hint = did_you_mean([name], columns) if name not in there else ""
            log.warning(
                "--contrasts %s: no run that is selected has events of %s (there are: %s).%s They lack this contrast.",
                show(text, EXPRESSION), show(name), ", ".join(columns), hint,
            )  # fmt: skip
        contrasts.append(contrast)
    return contrasts


def _parse_lenient(text: str, task: str, columns: Sequence[str], *, lenient: bool) -> tuple[RunContrast, list[str]]:
    """Parse a contrast; return it and the names that are not known, which are refused unless ``lenient``."""
    names: list[str] = []
    while True:
        try:
            return _parse(text, task, [*columns, *names]), names
        except UnknownColumnError as error:
            if not lenient or not error.column or error.column in names:
                raise
            names.append(error.column)


def _parse(text: str, task: str, columns: Sequence[str]) -> RunContrast:
    """Parse ``NAME=EXPRESSION``; commas make an F test."""
    name, _, expression = text.partition("=")
    spelled = [f"{NUMBERED}{column}" if _is_number(column) else column for column in columns]
    try:
        rows = parse_rows(expression, spelled)
    except UsageError as error:
        where = f" of task {task}" if task else ""
        worded = type(error)(f"--contrasts {show(text, EXPRESSION)}{where}: {error.message}")
        if isinstance(error, UnknownColumnError) and isinstance(worded, UnknownColumnError):
            worded.column = error.column
        raise worded from None
    weights = tuple(
        {column: float(weight) for column, weight in zip(columns, row, strict=True) if weight} for row in rows
    )
    if not all(weights):
        raise UsageError(f"--contrasts {show(text, EXPRESSION)}: all weights are zero.")
    if np.linalg.matrix_rank(rows) < len(rows):
        raise UsageError(
            f"--contrasts {show(text, EXPRESSION)}: its rows depend on each other. Leave out those that follow."
        )
    return RunContrast(name.strip(), weights, "F" if len(weights) > 1 else "t")


def _is_number(text: str) -> bool:
    """Return whether the name of a condition would be read as a number in an expression."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_labels(contrasts: Sequence[RunContrast]) -> None:
    """Refuse contrasts that file names cannot tell apart."""
    clash = find_clash((contrast_label(one.name), one.name) for one in contrasts)
    if clash:
        label, one, other = clash
        raise UsageError(
            f"The contrasts {one!r} and {other!r} would both be called contrast-{label} in file names. Rename one."
        )
    bad = [one.name for one in contrasts if not contrast_label(one.name)]
    if bad:
        raise UsageError(f"The contrast {bad[0]!r} has no letter or digit for a file name: give it a name.")
