"""One run: its files are read, modelled, fitted and written; the work of one process."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.bold_run import BoldRun
from ibma_app.core.errors import DataError, Note, ReadWriteError
from ibma_app.core.grid import Grid
from ibma_app.core.system.folders import temporary_folder
from ibma_app.dataset.output_dir import Output, open_output
from ibma_app.firstlevel.conditions import model_of_options
from ibma_app.firstlevel.design import RunDesign, build_design
from ibma_app.firstlevel.fit import RunFit, fit_run
from ibma_app.firstlevel.model.run_model import model_of_node
from ibma_app.firstlevel.model.stats_model import Node
from ibma_app.firstlevel.noise import NoiseModel, choose_noise
from ibma_app.firstlevel.records import RunContrast, RunModel, RunSettings, RunTables, Timing
from ibma_app.firstlevel.run_tables import read_confounds, read_confounds_metadata, read_events
from ibma_app.firstlevel.timing import read_timing
from ibma_app.images.series import SeriesHeader, read_series, read_series_header, read_series_mask, smoother
from ibma_app.stream.workers.resources import Resources

Singles = NDArray[np.float32]
MakeModel = Callable[[RunTables, Timing, dict[str, str]], RunModel]

SHARE = 0.6  # of the memory, for the series; the rest is for blocks and maps


@dataclass(frozen=True)
class RunJob:
    """One run's work: picklable, for a process of its own."""

    label: str
    run: BoldRun
    settings: RunSettings
    contrasts: tuple[RunContrast, ...]
    wanted: tuple[str, ...] | None  # labels of --contrast; None: all
    mask: Path | None  # of --mask
    output: Output
    resources: Resources
    report: bool
    records: Path  # where what pages show is kept, relative to OUTPUT_DIR
    node: Node | None = None  # of a Stats Model, in place of the contrasts


@dataclass(frozen=True)
class RunOutcome:
    """The result of a job."""

    notes: tuple[Note, ...]
    missing: dict[str, str]  # contrasts that the run lacks, and why
    methods: tuple[str, ...]  # paragraphs
    references: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class ModelledRun:
    """A run that was fitted: what its files and its page are made of."""

    run: BoldRun
    settings: RunSettings
    tables: RunTables
    model: RunModel
    design: RunDesign
    noise: NoiseModel
    fit: RunFit
    grid: Grid  # with the mask
    notes: tuple[str, ...]


def model_one_run(job: RunJob) -> RunOutcome:
    """Read, model, fit and write one run."""
    from ibma_app.workflows.first_level.describe_run import methods_of, references_of
    from ibma_app.workflows.first_level.write_run import write_run

    start = time.perf_counter()
    header = read_series_header(job.run.bold)
    timing, notes = read_timing(
        job.run.metadata, header.repetition_time, header.n_volumes, job.settings, str(job.run.bold)
    )
    tables = read_tables(job.run, timing)
    model = make_model(job, tables, timing)
    design = build_design(model, timing, job.settings, job.label)
    design = _keep_wanted(design, job)
    mask, more = _mask(job, header)
    noise = choose_noise(job.settings.noise, timing.repetition_time, timing.n_volumes)
    with _rows(int(mask.sum()), timing.n_volumes, job.resources) as rows:
        smooth = smoother(header.grid, job.settings.smoothing) if job.settings.smoothing else None
        read_series(header, mask, rows, first=timing.dropped, change=smooth)
        fit = fit_run(rows, design, noise, estimates=job.settings.residuals)
        every = (*job.run.notes, *notes, *more, *design.notes, *_voxel_notes(fit))
        modelled = ModelledRun(
            job.run, job.settings, tables, model, design, noise, fit, header.grid.with_mask(mask), every
        )
        write_run(modelled, job.output, rows, job.records, report=job.report)
    told = tuple(Note(text, {job.label: ""}, "run") for text in every)
    seconds = time.perf_counter() - start
    return RunOutcome(told, dict(design.missing), methods_of(modelled), references_of(modelled), seconds)


def model_elsewhere(job: RunJob) -> RunOutcome:
    """Model a run on another machine, which outlives this run: it tidies its unfinished files itself."""
    with open_output(job.output.root) as output:
        return model_one_run(replace(job, output=output))


def read_tables(run: BoldRun, timing: Timing) -> RunTables:
    """Read the tables of a run.

    Raises
    ------
    DataError
        It has no events, or the tables do not fit.
    """
    if run.events is None:
        raise DataError(
            f"{run.bold}: no events.tsv of this run was found beside its raw BOLD or above it. Without events nothing "
            "is modelled: select tasks with -t, or give the raw dataset as BIDS_DIR and that of this image by -d "
            f"{run.dataset.root}"
        )
    confounds, metadata = {}, {}
    if run.confounds is not None:
        confounds = read_confounds(run.confounds, timing.n_volumes, timing.dropped)
        metadata = read_confounds_metadata(run.confounds)
    return RunTables(read_events(run.events), confounds, metadata)


def make_model(job: RunJob, tables: RunTables, timing: Timing) -> RunModel:
    """Make the run's model of the options, or of a Stats Model's node."""
    names = {"events": str(job.run.events), "confounds": str(job.run.confounds or job.run.bold)}
    if job.node is not None:
        return model_of_node(job.node, tables, timing, job.settings, names)
    return model_of_options(tables, timing, job.settings, job.contrasts, names)


def _keep_wanted(design: RunDesign, job: RunJob) -> RunDesign:
    """Keep the contrasts that the options select.

    Raises
    ------
    DataError
        The run has none of the contrasts.
    """
    from ibma_app.core.labels import contrast_label

    kept = tuple(one for one in design.contrasts if job.wanted is None or contrast_label(one.name) in job.wanted)
    if not kept:
        reasons = "; ".join(f"{name}: {why}" for name, why in design.missing.items())
        raise DataError(f"{job.label} has none of the contrasts ({reasons or 'none is asked for'}).")
    return replace(design, contrasts=kept)


def _mask(job: RunJob, header: SeriesHeader) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Read the run's mask; without one every voxel is fitted that varies."""
    path = job.mask or job.run.mask
    if path is not None:
        return read_series_mask(path, header.grid), ()
    text = "There is no brain mask beside the BOLD: every voxel that varies is fitted."
    return np.ones(header.grid.shape, dtype=bool), (text,)


def _voxel_notes(fit: RunFit) -> tuple[str, ...]:
    """Say how many voxels are not fitted.

    Raises
    ------
    DataError
        None is.
    """
    lost = int(np.count_nonzero(~fit.fitted))
    if lost == fit.fitted.size:
        raise DataError("no voxel of the mask varies: is this preprocessed BOLD, and its mask?")
    return (f"{lost} of {fit.fitted.size} voxels do not vary, or are not finite, and are left out.",) if lost else ()


@contextmanager
def _rows(voxels: int, volumes: int, resources: Resources) -> Iterator[Singles]:
    """Make room for a run's series: in memory, or, where it is too large for that, in a file of the work folder."""
    size = voxels * volumes * 4
    if size <= SHARE * resources.bytes_to_use:
        yield np.empty((voxels, volumes), dtype=np.float32)
        return
    try:
        with tempfile.NamedTemporaryFile(prefix="ibma-series-", dir=temporary_folder(resources.work_dir)) as file:
            yield np.memmap(file.name, dtype=np.float32, mode="w+", shape=(voxels, volumes))
    except OSError as error:
        raise ReadWriteError(
            f"The series takes {size / 2**20:.0f} MiB, more than --mem allows, and the work folder has no room for it "
            f"({error.strerror or error}). Give more --mem, fewer --nprocs or another --work-dir."
        ) from None
