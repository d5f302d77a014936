"""From the options to the runs that are modelled, and the contrasts of each task."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ibma_app.core.bold_run import BoldRun
from ibma_app.core.errors import DatasetError, IbmaError, NothingSelectedError
from ibma_app.core.labels import find_clash
from ibma_app.core.statmap import Dataset
from ibma_app.dataset.bold_runs import explain_no_runs, find_runs, spaces_of, tell_unmatched
from ibma_app.dataset.datasets import find_datasets, read_description
from ibma_app.dataset.entities import split_name
from ibma_app.dataset.filters import BOLD, read_filter_file, read_kept, read_labels
from ibma_app.firstlevel.model.missing_levels import missing_everywhere
from ibma_app.firstlevel.model.reading.nodes import choose_node
from ibma_app.firstlevel.model.reading.read_model import read_model
from ibma_app.firstlevel.model.stats_model import Node
from ibma_app.firstlevel.records import RunContrast, RunSettings
from ibma_app.firstlevel.run_tables import read_events
from ibma_app.firstlevel.settings import make_settings
from ibma_app.workflows.first_level.plan_contrasts import plan_contrasts
from ibma_app.workflows.options.parse import MODEL_OF_OPTIONS
from ibma_app.workflows.options.table import Options

log = logging.getLogger(__name__)

RAW = "raw"  # the name of BIDS_DIR in BIDS URIs
LABELS = {"sub": "participant_label", "ses": "session_label", "task": "task_id", "space": "space"}


@dataclass(frozen=True)
class PlannedRuns:
    """What the run level does."""

    runs: tuple[BoldRun, ...]
    datasets: tuple[Dataset, ...]  # of BOLD and of events
    settings: RunSettings
    contrasts: Mapping[str, tuple[RunContrast, ...]]  # by task; {} where a model has them
    node: Node | None = None  # of a Stats Model


def plan_runs(options: Options) -> PlannedRuns:
    """Find the runs that the options select, and read the names of their conditions.

    Raises
    ------
    NothingSelectedError
        The message has what each filter left.
    DatasetError
        There are several spaces and none is named.
    UsageError
        A contrast is not understood.
    """
    settings = settings_of(options)
    datasets = find_datasets(
        options.bids_dir,
        options.derivatives,
        options.output_dir,
        "participant",
        skip_validation=options.skip_bids_validation,
    )
    raw = _raw_datasets(options, datasets)
    labels = {key: read_labels(given, key) for key, dest in LABELS.items() if (given := getattr(options, dest))}
    left_out = options.exclude_participant_label
    labels |= read_kept(options.settings.get("inputs", {}).get("keep", {}))
    excluded = {"sub": read_labels(left_out, "sub")} if left_out else {}
    asked = read_filter_file(options.bids_filter_file).get(BOLD, {}) if options.bids_filter_file else {}
    runs = find_runs(datasets, raw, labels, excluded, asked, [options.output_dir])
    if not runs:
        raise NothingSelectedError(explain_no_runs(datasets, labels, excluded, asked, [options.output_dir]))
    if "task" not in labels:
        runs = _without_rest(runs)
    for text in tell_unmatched(datasets, labels, runs, [options.output_dir]):
        log.warning("%s", text)
    spaces = spaces_of(runs)
    if len(spaces) > 1 and options.space is None and "space" not in asked:
        raise DatasetError(f"There is BOLD in several spaces: {', '.join(spaces)}. Name one: --space {spaces[0]}.")
    _refuse_twins(runs)
    every = (*datasets, *(one for one in raw if one.root not in {other.root for other in datasets}))
    if options.model not in (None, MODEL_OF_OPTIONS):
        model = read_model(Path(options.model))
        node = choose_node(model.of_level("Run"), options.node, "Run")
        for text in missing_everywhere(node, tables_of_events(runs)):
            log.warning("%s: %s", options.model, text)
        return PlannedRuns(runs, every, settings, {}, node)
    if "sub" not in labels and not excluded:
        return PlannedRuns(runs, every, settings, plan_contrasts(runs, settings, options.contrasts))

    def others() -> list[BoldRun]:
        """Find the runs of participants that are not selected."""
        wider = {key: value for key, value in labels.items() if key != "sub"}
        try:
            found = find_runs(datasets, raw, wider, {}, asked, [options.output_dir])
        except IbmaError as error:  # theirs, and none of the selected ones'
            log.debug("Other participants' runs: %s", error.message)
            return []
        return [run for run in found if run.bold not in {one.bold for one in runs}]

    return PlannedRuns(runs, every, settings, plan_contrasts(runs, settings, options.contrasts, others))


def _without_rest(runs: tuple[BoldRun, ...]) -> tuple[BoldRun, ...]:
    """Leave out tasks of which no run has events (resting state), where others have some; they are told."""
    tasks = {run.entities.get("task", "") for run in runs}
    with_events = {run.entities.get("task", "") for run in runs if run.events is not None}
    if not with_events or with_events == tasks:
        return runs
    for task in sorted(tasks - with_events):
        count = sum(run.entities.get("task", "") == task for run in runs)
        log.warning(
            "None of the %d run(s) of task-%s has events: they are left out (-t %s insists).", count, task, task
        )
    return tuple(run for run in runs if run.entities.get("task", "") in with_events)


def tables_of_events(runs: Sequence[BoldRun]) -> Iterator[Mapping[str, Sequence[str]]]:
    """Read the events of runs, once each; a table that cannot be read is its run's own failure, later."""
    for path in dict.fromkeys(run.events for run in runs if run.events is not None):
        try:
            yield read_events(path)
        except IbmaError as error:
            log.debug("%s: %s", path, error.message)


def settings_of(options: Options) -> RunSettings:
    """Make the settings of the run level of the options and the table ``[run]``."""
    where = str(options.config_file or "settings")
    given: dict[str, Any] = {"smoothing": options.smoothing}
    if options.confounds is not None:
        given["confounds"] = options.confounds
    return make_settings(options.settings.get("run", {}), where, **given)


def _raw_datasets(options: Options, datasets: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """List where events may be: BIDS_DIR, and what the datasets of BOLD say they were made from."""
    known = {one.root for one in datasets}
    found = (
        []
        if options.bids_dir in known
        else [Dataset(RAW, options.bids_dir, read_description(options.bids_dir, required=False))]
    )
    for dataset in datasets:
        links = dataset.description.get("DatasetLinks")
        for name, link in links.items() if isinstance(links, Mapping) else ():
            folder = _local_folder(dataset.root, link)
            if folder is not None and folder not in known and folder not in {one.root for one in found}:
                found.append(Dataset(str(name), folder, read_description(folder, required=False)))
        above = dataset.root.parent.parent
        if dataset.root.parent.name == "derivatives" and above not in known | {one.root for one in found}:
            found.append(Dataset(RAW if not found else above.name, above, read_description(above, required=False)))
    return tuple(found)


def _local_folder(root: Path, link: object) -> Path | None:
    """Return the folder of this machine that a dataset link points to."""
    if not isinstance(link, str) or not link:
        return None
    path = unquote(link.removeprefix("file://"))
    folder = (root / path).resolve() if "://" not in path else None
    return folder if folder is not None and folder.is_dir() else None


def _refuse_twins(runs: Sequence[BoldRun]) -> None:
    """Refuse two images of one run."""
    clash = find_clash((output_stem(run), run.bold) for run in runs)
    if clash:
        _, one, other = clash
        raise DatasetError(f"{one} and {other} would have outputs of one name. {_how_to_choose(one, other)}")


def _how_to_choose(one: Path, other: Path) -> str:
    """Say how one of two images of a run is chosen: by what their names differ in, or by its dataset."""
    fewer, more = sorted((split_name(path.name).entities for path in (one, other)), key=len)
    apart = {key: more.get(key) for key in {**more, **fewer} if more.get(key) != fewer.get(key)}
    if not apart:
        return "Choose one, naming its dataset by -d, or remove or rename one."
    return f"Choose one by --bids-filter-file FILE, where FILE holds {json.dumps({'bold': apart})}."


def output_entities(run: BoldRun) -> dict[str, str]:
    """Return the entities of a run's output: always with ``run``, which tells runs from what combines them."""
    return {**run.entities, "run": run.entities.get("run", "1")}


def output_stem(run: BoldRun) -> str:
    """Return the name of a run's output without what tells its files apart."""
    from ibma_app.dataset.entities import output_name

    return output_name(output_entities(run), "", "").removesuffix("_")
