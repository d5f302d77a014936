"""``--reports-only``: pages, figures, README and CITATION again, from the maps in OUTPUT_DIR.

BIDS_DIR is not looked at: it may be gone. Atlases of the configuration name the
regions of cluster tables anew; nothing else is computed.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.errors import InputError, NothingSelectedError
from ibma_app.core.labels import contrast_label
from ibma_app.core.results import Results
from ibma_app.core.system.standard_streams import write_out
from ibma_app.dataset.description import read_own_description
from ibma_app.dataset.entities import same_label
from ibma_app.dataset.filters import read_labels
from ibma_app.dataset.output_dir import Output, open_output
from ibma_app.images.atlas import read_atlases
from ibma_app.images.known_atlases import choose_atlases, find_atlases
from ibma_app.workflows.command.log import as_ibma_error, log_outcome, run_folder
from ibma_app.workflows.command.resources import open_processes, resources_for
from ibma_app.workflows.command.terminal import progress
from ibma_app.workflows.first_level.kept_runs import RunPage, rebuild_run_page
from ibma_app.workflows.options.table import COMBINING, INFERRING, OPTIONS, TESTING, Options
from ibma_app.workflows.plan.find_inputs import LABELS
from ibma_app.workflows.write import reports
from ibma_app.workflows.write.cluster_regions import rename_regions
from ibma_app.workflows.write.saved_results import NAMES, Kept, find_records, keep_results, read_document, read_record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PageJob:
    """One page: picklable, for a process of its own."""

    name: str  # of the page, without ending
    records: tuple[Path, ...]
    output: Output
    kept: Path  # where results whose regions have other names are kept, relative to OUTPUT_DIR
    atlases: tuple[str | Atlas, ...] | None = None  # that name regions anew; None: those of the run


@dataclass(frozen=True)
class PageOutcome:
    """A page made again: its results, the version that computed them, and how long the page took."""

    results: Results
    version: str
    seconds: float


def rebuild_reports(options: Options, words: Sequence[str] = ()) -> int:
    """Make the pages of one level again; return the exit code.

    Raises
    ------
    NothingSelectedError
        No run has kept an analysis of this level that the filters select.
    OutputError
        OUTPUT_DIR is another program's dataset.
    """
    pages = _select_pages(options)
    folder = options.config_file.parent if options.config_file else Path()
    atlases = choose_atlases(options.atlas, read_atlases(options.settings.get("atlas", {}), folder))
    _warn_of_ignored(options)
    if options.dry_run:
        write_out("".join(f"{options.output_dir / name}.html\n" for name in pages))
        return 0
    with open_output(options.output_dir) as output, run_folder(output, options, words) as record:
        reports.mark_ignored(output)
        work = [PageJob(name, records, output, record.folder / "results", atlases) for name, records in pages.items()]
        resources = resources_for(options, len(work))
        made: dict[str, PageOutcome | RunPage] = {}
        with open_processes(options, resources, __name__) as pool, progress(len(work), "drawing", "pages") as step:
            for job, outcome in pool.run(rebuild_page, work):
                step(job.name)
                if isinstance(outcome, Exception):
                    record.failures[job.name] = as_ibma_error(outcome)
                    if options.stop_on_first_crash:
                        break
                else:
                    made[job.name] = outcome
                    record.done.append(job.name)
                    record.seconds[job.name] = outcome.seconds
        _end(output, options.analysis_level, [made[name] for name in pages if name in made])
        log_outcome(record, "pages", len(work))
    if record.done:
        log.info("Report: %s", options.output_dir / "report.html")
    return record.exit_code


def _end(output: Output, level: str, made: Sequence[PageOutcome | RunPage]) -> None:
    """Write README, CITATION and index; all participants have the same methods, and all runs."""
    runs = [one for one in made if isinstance(one, RunPage)]
    for one in runs[:1]:
        reports.end_runs(output, one.methods, one.references, report=True)
    shown = [one for one in made if isinstance(one, PageOutcome)][: 1 if level == "participant" else None]
    reports.end_dataset(output, [one.results for one in shown], report=True, versions=[o.version for o in shown])


def rebuild_page(job: PageJob) -> PageOutcome | RunPage:
    """Make one page from its records and their maps."""
    if fnmatchcase(job.name, NAMES["run"]):
        return rebuild_run_page(job.output, job.records[0])
    start = time.perf_counter()
    kept = [read_record(path, job.output.root) for path in job.records]
    first = kept[0]
    results = first.results
    if first.results.analysis.level == "participant":
        label = first.results.analysis.entities["sub"]
        reports.write_subject_page(job.output, label, [one.results for one in kept], _join_versions(kept), first.ran)
    else:
        if job.atlases is not None:
            found = find_atlases(job.atlases, results.analysis.entities.get("space")) if results.grid.placed else ()
            results = rename_regions(job.output, results, found)
            keep_results(job.output, job.kept, results, first.software, first.ran)
        reports.write_group_page(job.output, results, first.software, first.ran)
    return PageOutcome(results, first.software["ibma-app"], time.perf_counter() - start)


def _join_versions(kept: Sequence[Kept]) -> Mapping[str, str]:
    """List the software of a page; where runs differ, with every version."""
    names = dict.fromkeys(name for one in kept for name in one.software)
    return {
        name: ", ".join(dict.fromkeys(one.software[name] for one in kept if name in one.software)) for name in names
    }


def _select_pages(options: Options) -> dict[str, tuple[Path, ...]]:
    """Find the records that the filters select, by the page they belong to."""
    read_own_description(options.output_dir)
    level, output_dir = options.analysis_level, options.output_dir
    records = find_records(output_dir, level)
    if not records:
        raise NothingSelectedError(
            f"{output_dir / 'logs'} holds no finished analysis of the {level} level, so there is no page to make "
            f"again. Run the level first (ibma-app BIDS_DIR {output_dir} {level}); runs of versions without "
            "--reports-only kept nothing."
        )
    wanted = {key: read_labels(value, key) for key, dest in LABELS.items() if (value := getattr(options, dest))}
    pages: dict[str, list[Path]] = defaultdict(list)
    there: dict[str, set[str]] = {key: set() for key in wanted}
    for name, path in records.items():
        labels = _labels_of(path, wanted) if wanted else {}
        for key, found in labels.items():
            there[key] |= found
        if all(any(same_label(key, a, b) for a in labels[key] for b in wanted[key]) for key in wanted):
            pages[name.partition("_")[0] if level == "participant" else name].append(path)
    if not pages:
        asked = ", ".join(f"{key}- {' '.join(labels)}" for key, labels in wanted.items())
        known = "; ".join(f"{key}- {', '.join(sorted(found)) or '(none)'}" for key, found in there.items())
        raise NothingSelectedError(f"Of {len(records)} finished analyses none has {asked}. There are: {known}.")
    return {name: tuple(paths) for name, paths in pages.items()}


def _labels_of(path: Path, keys: Iterable[str]) -> dict[str, set[str]]:
    """Collect the labels of an analysis and its maps, by key."""
    try:
        content: dict[str, Any] = read_document(path)["Results"]
        if "analysis" in content:
            analysis = content["analysis"]
            rows = [analysis["entities"], *(row["entities"] for row in analysis["observations"])]
        else:
            contrasts = ({"contrast": contrast_label(one["name"])} for one in content["contrasts"])
            rows = [content["entities"], *contrasts]
        return {key: {row[key] for row in rows if key in row} for key in keys}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be used: it lacks {error}. Run the analysis again.") from None


def _warn_of_ignored(options: Options) -> None:
    """Warn of options that have no effect: nothing is computed again."""
    others = ("derivatives", "bids_filter_file", "bids_database_dir", "dof")
    effective = ("atlas",) if options.analysis_level == "group" else ()  # participants have no cluster tables
    ignored = [
        f"--{option.dest.replace('_', '-')}"
        for option in OPTIONS
        if (option.heading in (COMBINING, TESTING, INFERRING) or option.dest in others)
        and getattr(options, option.dest) != option.default
        and option.dest not in effective
    ]
    ignored += [f"[{table}] of the configuration" for table in options.settings if table not in effective]
    if ignored:
        log.warning("--reports-only shows what was computed; these options change nothing: %s.", ", ".join(ignored))
