"""What ``--model`` shows: with ``--dry-run`` the plan of the model in words; ``default``: the model of the options."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ibma_app.core.bold_run import BoldRun
from ibma_app.core.errors import IbmaError, UsageError
from ibma_app.core.labels import contrast_label
from ibma_app.core.system.standard_streams import write_out
from ibma_app.dataset.filters import read_labels
from ibma_app.firstlevel.design import build_design
from ibma_app.firstlevel.model.describe import SeenRun, describe_model
from ibma_app.firstlevel.model.faults import as_error
from ibma_app.firstlevel.model.missing_levels import missing_everywhere
from ibma_app.firstlevel.model.reading.nodes import choose_node
from ibma_app.firstlevel.model.reading.read_model import read_model
from ibma_app.firstlevel.model.run_model import model_of_node
from ibma_app.firstlevel.model.stats_model import Node
from ibma_app.firstlevel.model.write_run_node import run_node
from ibma_app.firstlevel.records import RunSettings
from ibma_app.firstlevel.timing import read_timing
from ibma_app.images.series import read_series_header
from ibma_app.workflows.first_level.model_run import read_tables
from ibma_app.workflows.first_level.plan_runs import output_stem, plan_runs, tables_of_events
from ibma_app.workflows.options.parse import MODEL_OF_OPTIONS
from ibma_app.workflows.options.table import Options
from ibma_app.workflows.options.to_model import model_document, said_to_us, write_software

log = logging.getLogger(__name__)


def show_model(options: Options) -> bool:
    """Print the plan of a model where nothing shall be run, else log its notes; return whether that is all.

    At the run level the events and confounds of every run are read, so that the plan has the columns of their designs.

    Raises
    ------
    DataError
        A contrast of the model is wrong in itself; the rest of the plan is printed.
    """
    if options.model in (None, MODEL_OF_OPTIONS):
        return False
    model = read_model(Path(options.model), to_show=options.dry_run)
    if not options.dry_run:
        for note in model.notes:
            log.warning("%s: %s", options.model, note)
        return False
    of_runs = options.analysis_level == "run"
    runs, nowhere = None, list[str]()
    if of_runs:
        planned = plan_runs(replace(options, model=None, contrasts=()))
        node = choose_node(model.of_level("Run"), options.node, "Run")
        runs = look_at_runs(planned.runs, node, planned.settings)
        nowhere = missing_everywhere(node, tables_of_events(planned.runs))
    write_out(describe_model(model, runs, nowhere))
    if model.faults:
        raise as_error(options.model, model.faults)
    return of_runs


def look_at_runs(runs: Sequence[BoldRun], node: Node, settings: RunSettings) -> list[SeenRun]:
    """Make each run's model; one that cannot be modelled has its fault in words."""
    seen = []
    for run in runs:
        label, subject = output_stem(run), run.entities.get("sub", "")
        try:
            header = read_series_header(run.bold)
            timing, _ = read_timing(run.metadata, header.repetition_time, header.n_volumes, settings, str(run.bold))
            tables = read_tables(run, timing)
            names = {"events": str(run.events), "confounds": str(run.confounds or run.bold)}
            made = model_of_node(node, tables, timing, settings, names)
            design = build_design(made, timing, settings, label)
            made = replace(made, contrasts=design.contrasts, missing=design.missing)
            bare = replace(made, notes=tuple(note.removeprefix(f"{run.events}: ") for note in made.notes))
            seen.append(SeenRun(label, subject, bare))
        except IbmaError as error:
            seen.append(SeenRun(label, subject, None, error.message))
    return seen


def print_model_of_options(options: Options) -> int:
    """Print the model that options mean, as JSON; return the exit code.

    Raises
    ------
    UsageError
        Models cannot say what an option says, or the tasks have contrasts of their own.
    """
    node = None
    if options.analysis_level == "run":
        planned = plan_runs(options)
        listed = list(planned.contrasts.values())
        if any(one != listed[0] for one in listed):
            tasks = ", ".join(planned.contrasts)
            raise UsageError(
                f"The tasks {tasks} have different conditions, so that each has a model: name one with -t."
            )
        wanted = read_labels(options.contrast, "contrast") if options.contrast else None
        kept = [one for one in (listed[0] if listed else ()) if wanted is None or contrast_label(one.name) in wanted]
        node = run_node(planned.settings, kept)
        node["Model"] |= write_software(said_to_us(options, "Run"))
    write_out(json.dumps(model_document(options, node), indent=2) + "\n")
    return 0
