"""The run level: from preprocessed BOLD to statistic maps of each run."""

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ibma_app.core.bold_run import BoldRun
from ibma_app.core.errors import InputError, Note, UsageError, tell
from ibma_app.dataset.datasets import find_table
from ibma_app.dataset.filters import read_labels
from ibma_app.dataset.imported import add_participants
from ibma_app.dataset.output_dir import open_output
from ibma_app.stream.workers.dask_pool import DaskPool
from ibma_app.stream.workers.resources import Resources
from ibma_app.workflows.command.log import as_ibma_error, log_outcome, run_folder
from ibma_app.workflows.command.resources import open_processes, resources_for
from ibma_app.workflows.command.terminal import print_table, progress
from ibma_app.workflows.first_level.model_run import RunJob, RunOutcome, model_elsewhere, model_one_run
from ibma_app.workflows.first_level.plan_runs import PlannedRuns, output_stem, plan_runs
from ibma_app.workflows.options.table import OPTIONS, Options, file_or_word
from ibma_app.workflows.write import reports

log = logging.getLogger(__name__)

OF_OTHER_LEVELS = (
    *("study_label", "exclude_study_label", "dof", "combine", "pool", "compute", "estimator", "dependence", "grid"),
    *("min_coverage", "formula", "covariates", "test", "contrast_file", "space_is"),
)


def run_first_level(options: Options, words: Sequence[str] = ()) -> int:
    """Model every run that is selected; return the exit code."""
    mask = _mask_file(options)
    planned = plan_runs(options)
    _warn_of_others(options)
    if options.dry_run:
        _print_plan(planned)
        return 0
    with open_output(options.output_dir) as output, run_folder(output, options, words) as record:
        reports.begin_dataset(output, planned.datasets)
        resources = resources_for(options, len(planned.runs))
        wanted = None if options.contrast is None else read_labels(options.contrast, "contrast")
        told = _Told()
        example: tuple[str, RunOutcome] | None = None  # the first by name: the same whatever finishes first
        with (
            open_processes(options, resources, __name__) as pool,
            progress(len(planned.runs), "modelling", "runs") as step,
        ):
            log.info("Modelling %d run(s), %d at a time.", len(planned.runs), min(pool.nprocs, len(planned.runs)))
            work, each = model_one_run, resources.split()
            if isinstance(pool, DaskPool) and not pool.local:
                work = model_elsewhere
                limit = int(0.6 * pool.smallest_memory) if pool.smallest_memory else each.memory
                each = Resources(memory=limit, work_dir=options.work_dir)
            jobs = [
                RunJob(
                    output_stem(run), run, planned.settings, planned.contrasts.get(run.entities.get("task", ""), ()),
                    wanted,
                    mask, output, each, not options.no_report, record.folder / "results", planned.node,
                )
                for run in planned.runs
            ]  # fmt: skip
            for job, outcome in pool.run(work, jobs):
                step(job.label)
                if isinstance(outcome, Exception):
                    record.failures[job.label] = as_ibma_error(outcome)
                else:
                    record.done.append(job.label)
                    record.seconds[job.label] = outcome.seconds
                    told.warn(job.label, outcome)
                    example = min(example or (job.label, outcome), (job.label, outcome), key=lambda one: one[0])
                if record.failures and options.stop_on_first_crash:
                    break
        told.finish()
        done = sorted({job.run.entities["sub"] for job in jobs if job.label in record.done})
        add_participants(output, done, find_table(planned.datasets, options.bids_dir, "participants.tsv"))
        if example is not None:
            reports.end_runs(output, example[1].methods, example[1].references, report=not options.no_report)
        log_outcome(record, "runs", len(planned.runs))
    if not options.no_report and record.done:
        log.info("Report: %s", options.output_dir / "report.html")
    return record.exit_code


def _mask_file(options: Options) -> Path | None:
    """Return the file of ``--mask``; the words of other levels mean nothing here.

    Raises
    ------
    UsageError, InputError
        It is another word than auto, or no file.
    """
    named = file_or_word(options.mask)
    if isinstance(named, Path):
        if not named.is_file():
            raise InputError(f"--mask {named}: there is no such file.")
        return named
    if named != "auto":
        raise UsageError(
            f"--mask {named} is not the run level's: give a file, or leave it out for each run's own mask."
        )
    return None


def _warn_of_others(options: Options) -> None:
    """Warn of options that the run level does not use."""
    defaults = {option.dest: option.default for option in OPTIONS}
    ignored = [dest for dest in OF_OTHER_LEVELS if getattr(options, dest) != defaults[dest]]
    if ignored:
        flags = ", ".join(f"--{dest.replace('_', '-')}" for dest in ignored)
        log.warning("The run level does not use these options, which other levels have: %s.", flags)


def _print_plan(planned: PlannedRuns) -> None:
    """Print what would be modelled, a line for each run, and the contrasts."""
    table = Table("run", "events", "confounds", "mask", title="What would be modelled")
    for run in planned.runs:
        table.add_row(output_stem(run), *(_what_differs(path, run) for path in (run.events, run.confounds, run.mask)))
    print_table(table, width=200)
    weights = Table("task", "contrast", "test", "weights", title="Contrasts")
    for task, contrasts in planned.contrasts.items():
        for one in contrasts:
            rows = ("; ".join(f"{weight:+g} {name}" for name, weight in row.items()) for row in one.rows)
            weights.add_row(task, one.name, one.stat, ", ".join(rows))
    print_table(weights, width=200)


def _what_differs(path: Path | None, run: BoldRun) -> str:
    """Return a file's name without what it begins with as its BOLD's does: the column stays narrow."""
    if path is None:
        return "none"
    pieces, others = path.name.split("_"), run.bold.name.split("_")
    shared = next(index for index, one in enumerate(pieces) if index == len(others) or one != others[index])
    return f"…_{'_'.join(pieces[shared:])}" if shared else path.name


class _Told:
    """What runs were warned of: each kind is logged where it first occurs, and at the end with a count."""

    def __init__(self) -> None:
        self._first: set[str] = set()
        self._others: list[Note] = []

    def warn(self, label: str, outcome: RunOutcome) -> None:
        """Log what is new, and keep the others."""
        lacking = [
            Note(f"contrast {name} is missing: {why}", {label: ""}, "run") for name, why in outcome.missing.items()
        ]
        for note in (*lacking, *outcome.notes):
            if note.text in self._first:
                self._others.append(note)
            else:
                log.warning("%s", note.words)
        self._first |= {note.text for note in (*lacking, *outcome.notes)}

    def finish(self) -> None:
        """Log of each kind what else it concerns."""
        for text in tell(self._others):
            log.warning("Likewise %s", text)
