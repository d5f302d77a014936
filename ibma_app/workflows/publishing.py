"""The dataset around the maps: description, README, citations, report pages."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ibma_app import __version__
from ibma_app.core.results import Results
from ibma_app.core.statmap import Dataset
from ibma_app.dataset.description import write_bidsignore, write_citation, write_description, write_readme
from ibma_app.dataset.write import Output, save_text
from ibma_app.workflows.running import software_versions


def begin_dataset(output: Output, datasets: Sequence[Dataset]) -> None:
    """Make OUTPUT_DIR a BIDS derivative before any map is written into it."""
    write_description(output, version=__version__, datasets=datasets)
    write_bidsignore(output)


def end_dataset(output: Output, finished: Sequence[Results], *, report: bool) -> None:
    """Write README, CITATION and the report's index, once something is finished.

    One participant's results stand for all: their methods are the same.
    """
    from ibma_app.report import methods

    named = {"participant" if r.analysis.level == "participant" else f"group_{r.analysis.name}": r for r in finished}
    if not named:
        return
    texts = {key: methods.methods_markdown(results, __version__) for key, results in named.items()}
    write_readme(output, methods.readme_intro(__version__), texts)
    references = {key: methods.references_markdown(results) for key, results in named.items()}
    write_citation(output, methods.citation_intro(__version__), references)
    if report:
        from ibma_app.report.pages import write_index

        write_index(output.root, _saver(output), version=__version__)


def _house_matplotlib(output: Output) -> None:
    """Give matplotlib a folder where HOME cannot be written, so that it does not complain."""
    try:
        writable = os.access(Path.home(), os.W_OK)
    except RuntimeError:  # no HOME, and a uid without a name
        writable = False
    if not writable:
        os.environ.setdefault("MPLCONFIGDIR", str(output.temporary / "matplotlib"))


def write_group_page(output: Output, results: Results) -> Path:
    """Write the page of one group analysis."""
    _house_matplotlib(output)
    from ibma_app.report.pages import write_analysis_page

    page = f"group_{results.analysis.name}.html"
    return write_analysis_page(results, page, _saver(output), version=__version__, software=software_versions())


def write_subject_page(output: Output, label: str, finished: Sequence[Results]) -> Path:
    """Write the page of one participant."""
    _house_matplotlib(output)
    from ibma_app.report.pages import write_participant_page

    return write_participant_page(label, finished, _saver(output), version=__version__, software=software_versions())


def _saver(output: Output) -> Callable[[Path, str], Path]:
    return lambda path, text: save_text(output, path, text)
