"""What surrounds the maps: description of the dataset, README, citations, report pages."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ibma_app import __version__
from ibma_app.core.results import Results, RunFacts
from ibma_app.core.statmap import Dataset
from ibma_app.core.system.folders import home_folder
from ibma_app.dataset.description import write_bidsignore, write_citation, write_description, write_readme
from ibma_app.dataset.output_dir import Output
from ibma_app.dataset.write import save_text
from ibma_app.workflows.command.log import software_versions


def begin_dataset(output: Output, datasets: Sequence[Dataset]) -> None:
    """Make OUTPUT_DIR a BIDS derivative before any map is written into it."""
    write_description(output, version=__version__, datasets=datasets)
    write_bidsignore(output)


def mark_ignored(output: Output) -> None:
    """Add to .bidsignore what an earlier version did not list."""
    write_bidsignore(output)


def end_dataset(
    output: Output, finished: Sequence[Results], *, report: bool, versions: Sequence[str] | None = None
) -> None:
    """Write README, CITATION and the report's index, where an analysis was finished.

    Of participants one is enough: the methods of all are the same.
    ``versions`` are those of ibma-app that computed each; None: this one.
    """
    from ibma_app.report.text import methods_section

    named = {"participant" if r.analysis.level == "participant" else f"group_{r.analysis.name}": r for r in finished}
    if not named:
        return
    computed_by = versions or [__version__] * len(named)
    texts = {
        key: methods_section.methods_markdown(results, version)
        for (key, results), version in zip(named.items(), computed_by, strict=True)
    }
    write_readme(output, methods_section.readme_intro(__version__, next(iter(named.values())).grid), texts)
    references = {key: methods_section.references_markdown(results) for key, results in named.items()}
    write_citation(output, methods_section.citation_intro(__version__), references)
    if report:
        from ibma_app.report.index.index_page import write_index

        write_index(output.root, _saver(output), version=__version__)


def end_runs(output: Output, methods: Sequence[str], references: Sequence[str], *, report: bool) -> None:
    """Write README, CITATION and the report's index after the run level; the methods are those of one run."""
    from ibma_app.report.text import methods_section

    paragraphs = "\n\n".join(methods_section.escape_markdown(text) for text in methods)
    listed = "\n".join(f"- {methods_section.escape_markdown(text)}" for text in references)
    write_readme(output, methods_section.readme_intro(__version__), {"run": f"### Run level\n\n{paragraphs}"})
    write_citation(output, methods_section.citation_intro(__version__), {"run": f"### Run level\n\n{listed}"})
    if report:
        from ibma_app.report.index.index_page import write_index

        write_index(output.root, _saver(output), version=__version__)


def set_matplotlib_folder(output: Output) -> None:
    """Give matplotlib a folder for its cache where HOME cannot be written: it would warn."""
    home = home_folder()
    if home is None or not os.access(home, os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", str(output.temporary / "matplotlib"))


def write_group_page(
    output: Output, results: Results, software: Mapping[str, str] | None = None, ran: RunFacts | None = None
) -> Path:
    """Write the page of one group analysis, computed by ``software`` (None: the versions that run now)."""
    set_matplotlib_folder(output)
    from ibma_app.report.pages import write_analysis_page

    page = f"group_{results.analysis.name}.html"
    used = software or software_versions()
    return write_analysis_page(results, page, _saver(output), version=used["ibma-app"], software=used, ran=ran)


def write_subject_page(
    output: Output,
    label: str,
    finished: Sequence[Results],
    software: Mapping[str, str] | None = None,
    ran: RunFacts | None = None,
) -> Path:
    """Write the page of one participant; ``software`` as for `write_group_page`."""
    set_matplotlib_folder(output)
    from ibma_app.report.pages import write_participant_page

    used = software or software_versions()
    return write_participant_page(label, finished, _saver(output), version=used["ibma-app"], software=used, ran=ran)


def _saver(output: Output) -> Callable[[Path, str], Path]:
    return lambda path, text: save_text(output, path, text)
