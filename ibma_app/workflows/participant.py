"""The participant level: a participant's runs (or sessions, tasks) are combined by fixed effects."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ibma_app.core.design import Design
from ibma_app.core.errors import DataError, IbmaError, Note, OutputError, merge_notes, tell
from ibma_app.core.results import NO_FACTS, MapSlices, Results, RunFacts
from ibma_app.core.statmap import Analysis
from ibma_app.dataset.imported import add_participants
from ibma_app.dataset.output_dir import Output, open_output
from ibma_app.dataset.write import MapWriter
from ibma_app.designs.build import one_sample_design
from ibma_app.estimators import PARTICIPANT, PARTICIPANT_SETTINGS, find_estimator
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.prepare import Plan
from ibma_app.stream.similarity import compare_maps
from ibma_app.stream.stack import Stack, stack_maps
from ibma_app.stream.workers.dask_pool import DaskPool
from ibma_app.stream.workers.resources import Resources
from ibma_app.workflows.command.log import as_ibma_error, log_outcome, run_folder
from ibma_app.workflows.command.resources import open_processes, resources_for
from ibma_app.workflows.command.terminal import print_plan, progress
from ibma_app.workflows.options.table import OPTIONS, Options
from ibma_app.workflows.plan.analyses import plan_participants
from ibma_app.workflows.plan.choose_estimators import Choice
from ibma_app.workflows.plan.choose_shape import choose_shape
from ibma_app.workflows.plan.find_inputs import gather
from ibma_app.workflows.write import reports, sidecars
from ibma_app.workflows.write.maps import Target, estimator_result, write_maps
from ibma_app.workflows.write.saved_results import keep_results

log = logging.getLogger(__name__)

GROUP_ONLY = (
    "compute",
    "smoothing",
    "estimator",
    "formula",
    "covariates",
    "test",
    "contrast_file",
    "pool",
    "dependence",
)
NEEDS = ("effect", "variance", "dof")


@dataclass(frozen=True)
class ParticipantJob:
    """One participant's work: picklable, for a process of its own."""

    label: str
    analyses: tuple[Analysis, ...]
    options: Options
    output: Output
    resources: Resources
    records: Path  # where finished analyses are kept, relative to OUTPUT_DIR
    facts: RunFacts = NO_FACTS  # of the run, for the page


@dataclass(frozen=True)
class ParticipantOutcome:
    """The result of a job: errors by analysis, warnings, and one analysis as an example."""

    failures: dict[str, IbmaError]
    notes: tuple[Note, ...]
    example: Results | None  # one finished analysis, for the dataset's methods text
    seconds: float


def run_participant(options: Options, words: Sequence[str] = ()) -> int:
    """Combine the runs of every participant; return the exit code."""
    gathered = gather(options)
    jobs = plan_participants(gathered.observations, options)
    defaults = {option.dest: option.default for option in OPTIONS}
    ignored = [dest for dest in GROUP_ONLY if getattr(options, dest) != defaults[dest]]
    if ignored:
        flags = ", ".join(f"--{dest.replace('_', '-')}" for dest in ignored)
        log.warning(
            "The participant level always combines by fixed effects; these options are the group level's: %s.", flags
        )
    if options.dry_run:
        print_plan([analysis for analyses in jobs.values() for analysis in analyses], PARTICIPANT)
        return 0
    with open_output(options.output_dir) as output, run_folder(output, options, words) as record:
        reports.begin_dataset(output, gathered.datasets)
        resources = resources_for(options, len(jobs))
        kept = record.folder / "results"
        example: Results | None = None
        told, combined = _Told(), list[str]()
        with (
            open_processes(options, resources, __name__) as pool,
            progress(len(jobs), "combining", "participants") as step,
        ):
            log.info("Combining %d participant(s), %d at a time.", len(jobs), min(pool.nprocs, len(jobs)))
            combine, each = combine_participant, resources.split()
            if isinstance(pool, DaskPool) and not pool.local:
                combine = combine_elsewhere
                # a worker's limit includes its libraries, and Dask ends the worker before it is reached
                limit = int(0.6 * pool.smallest_memory) if pool.smallest_memory else each.memory
                each = Resources(memory=limit, work_dir=options.work_dir)
            work = [
                ParticipantJob(label, analyses, options, output, each, kept, record.facts)
                for label, analyses in jobs.items()
            ]
            for job, outcome in pool.run(combine, work):
                step(f"sub-{job.label}")
                name = f"sub-{job.label}"
                if isinstance(outcome, Exception):
                    record.failures[name] = as_ibma_error(outcome)
                else:
                    example = example or outcome.example
                    record.seconds[name] = outcome.seconds
                    told.warn(name, outcome.notes)
                    combined += [job.label] if outcome.example else []
                    if outcome.failures:
                        record.failures[name] = _join(outcome.failures)
                    else:
                        record.done.append(name)
                if record.failures and options.stop_on_first_crash:
                    break
        told.warn_of_others()
        _list_participants(output, combined, None if options.covariates else gathered.table_path)
        reports.end_dataset(output, [example] if example else [], report=not options.no_report)
        log_outcome(record, "participants", len(jobs))
    if not options.no_report and record.done:
        log.info("Report: %s", options.output_dir / "report.html")
    return record.exit_code


def _list_participants(output: Output, labels: Sequence[str], table: Path | None) -> None:
    """Keep participants.tsv of OUTPUT_DIR up to date; what stands there and is no such table is only told."""
    try:
        add_participants(output, labels, table)
    except OutputError as error:
        log.warning("The participants are not listed: %s", error.message)


def combine_participant(job: ParticipantJob) -> ParticipantOutcome:
    """Combine all of one participant's analyses, and write them and the page."""
    start = time.perf_counter()
    failures: dict[str, IbmaError] = {}
    finished: list[Results] = []
    notes: list[Note] = []
    for analysis in job.analyses:
        try:
            results = combine_runs(analysis, job)
        except IbmaError as error:
            failures[analysis.name] = as_ibma_error(error)
        else:
            finished.append(results)
            notes.extend(results.notes)
    ran = replace(job.facts, seconds=round(time.perf_counter() - start, 1))
    for results in finished:
        keep_results(job.output, job.records, results, ran=ran)
    if finished and not job.options.no_report:
        reports.write_subject_page(job.output, job.label, finished, ran=ran)
    example = finished[0] if finished else None
    return ParticipantOutcome(failures, merge_notes(notes), example, time.perf_counter() - start)


def combine_elsewhere(job: ParticipantJob) -> ParticipantOutcome:
    """Combine a participant on another machine, which outlives this run: it tidies its unfinished files itself."""
    with open_output(job.output.root) as output:
        return combine_participant(replace(job, output=output))


def combine_runs(analysis: Analysis, job: ParticipantJob) -> Results:
    """Combine one participant's maps of one contrast by precision-weighted fixed effects."""
    options = job.options
    _check_units(analysis)
    grid, grid_notes = choose_shape(analysis, options, NEEDS)
    plan = Plan(
        grid=grid,
        needs=NEEDS,
        unit="run",
        min_coverage=options.min_coverage,
        regrid=options.grid != "common",
    )
    with stack_maps(analysis.observations, plan, job.resources) as stack:
        kept = replace(analysis, observations=tuple(analysis.observations[index] for index in stack.kept))
        design = one_sample_design(len(kept.observations))
        choice = _choice(options, design)
        estimate = estimate_maps(stack, Model(choice.estimator, design, choice.settings))
        notes = merge_notes((*kept.notes, *map(Note, grid_notes), *stack.notes, *_dof_notes(stack)))
        common = sidecars.analysis_sidecar(kept, design, stack, choice, options.units, tell(notes))
        target = Target(
            output=job.output,
            writer=MapWriter(job.output),
            folder=_folder(kept),
            analysis=kept,
            design=design,
            grid=stack.grid,
            choice=choice,
            common=common,
            units=sidecars.common_units(kept, options.units),
            named_tests=False,
        )
        files = write_maps(target, estimate)
        return Results(
            analysis=kept,
            grid=stack.grid,
            design=design,
            survey=stack.survey,
            estimators=(estimator_result(choice, files),),
            output_dir=options.output_dir,
            settings={"mask": options.mask, "min_coverage": options.min_coverage, "grid": options.grid,
                      "units": target.units, "tail": "two-sided"},
            notes=notes,
            similarity=compare_maps(stack),
            slices=None if options.no_report else _slices(stack),
        )  # fmt: skip


def _slices(stack: Stack) -> MapSlices | None:
    """Keep what the page shows of each run."""
    from ibma_app.report.figures.brains.plans import MOST_ROWS, choose_shown

    if stack.n_maps < 2 or not stack.n_voxels:
        return None
    levels, voxels = choose_shown(stack.grid)
    places = np.cumsum(stack.grid.mask.ravel(), dtype=np.int64)[voxels] - 1
    rows = range(min(stack.n_maps, MOST_ROWS))
    values = np.stack([stack.read_map("effect", row)[places] for row in rows])
    return MapSlices(levels, voxels, np.nan_to_num(values).astype(np.float32))


def _dof_notes(stack: Stack) -> tuple[Note, ...]:
    """Warn where t is taken as z, because its degrees of freedom are unknown, and nothing else says so."""
    told = {label for note in stack.notes if note.text.startswith("dof unknown") for label in note.about}
    unknown = [row.label for row in stack.survey if row.dof == "unknown" and row.label not in told]
    if not unknown:
        return ()
    text = "the degrees of freedom are unknown, so t is taken as z. Give DegreesOfFreedom in the sidecar, or --dof."
    return (Note(text, dict.fromkeys(unknown, "")),)


def _choice(options: Options, design: Design) -> Choice:
    """Fixed effects as one participant's maps are combined, the weights as configured."""
    estimator = find_estimator(PARTICIPANT)
    chosen = options.settings.get("estimator", {}).get(PARTICIPANT, {})
    settings = {**estimator.defaults(design), **chosen, **PARTICIPANT_SETTINGS}
    return Choice(estimator, settings, "the participant level's estimator")


def _check_units(analysis: Analysis) -> None:
    units = {observation.units for observation in analysis.observations} - {"unknown"}
    if len(units) > 1:
        where = "; ".join(f"{o.path}: {o.units}" for o in analysis.observations)
        raise DataError(f"{analysis.name}: effects of several units cannot be combined ({where}). Bring them to one.")


def _folder(analysis: Analysis) -> Path:
    """Name the folder of the maps: ``sub-01/[ses-1/]func``."""
    folder = Path(f"sub-{analysis.entities['sub']}")
    if "ses" in analysis.entities:
        folder /= f"ses-{analysis.entities['ses']}"
    return folder / "func"


class _Told:
    """What participants were warned of: each kind is logged where it first occurs, and at the end with a count."""

    def __init__(self) -> None:
        self.first: set[str] = set()
        self.others: list[Note] = []

    def warn(self, participant: str, notes: Sequence[Note]) -> None:
        """Log what is new, and keep the others."""
        for note in notes:
            named = note if note.about else Note(note.text, {participant: ""}, "participant")
            if note.text in self.first:
                self.others.append(named)
            else:
                log.warning("%s", named.words)
        self.first |= {note.text for note in notes}

    def warn_of_others(self) -> None:
        """Log of each kind what else it concerns."""
        for text in tell(self.others):
            log.warning("Likewise %s", text)


def _join(failures: dict[str, IbmaError]) -> IbmaError:
    """Join a participant's errors into one."""
    errors = list(failures.values())
    if len(errors) == 1:
        return errors[0]
    kind = type(errors[0]) if len({error.code for error in errors}) == 1 else IbmaError
    return kind(" ".join(f"{name}: {error.message}" for name, error in failures.items()))
