"""Warnings and notes of an analysis, each once, with the parts of it that they concern."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ibma_app.core.inference_facts import WarningFact
from ibma_app.core.results import EstimatorResult, Results


@dataclass(frozen=True)
class Note:
    """A warning or note, and the part of the analysis that it comes from."""

    source: str
    text: str


def collect_notes(parts: Iterable[tuple[str, Sequence[str]]]) -> tuple[Note, ...]:
    """Gather notes of the parts of an analysis: each text once, with all its sources."""
    sources: dict[str, dict[str, None]] = {}
    for source, texts in parts:
        for text in texts:
            sources.setdefault(text, {})[source] = None
    return tuple(Note(_join_sources(named, text), text) for text, named in sources.items())


def notes_of(results: Results) -> tuple[Note, ...]:
    """Every warning and note of an analysis, those of its inferences included."""
    parts: list[tuple[str, Sequence[str]]] = [("", results.notes), ("", results.analysis.notes)]
    parts.append(("design", results.design.notes))
    for result in results.estimators:
        parts.append((result.estimator.name, result.notes))
        parts += [(source, (text,)) for source, text in _inference_warnings(result)]
    return collect_notes(parts)


def notes_of_several(named: Sequence[tuple[str, Results]]) -> tuple[Note, ...]:
    """Notes of analyses on one page: each text once, with the analyses that it concerns.

    Parameters
    ----------
    named : sequence of (str, Results)
        What the page calls each analysis.
    """
    if len(named) == 1:
        return notes_of(named[0][1])
    concerned: dict[Note, list[str]] = {}
    for title, results in named:
        for note in notes_of(results):
            concerned.setdefault(note, []).append(title)
    notes = []
    for note, titles in concerned.items():
        whom = f"all {len(named)} contrasts" if len(titles) == len(named) else "; ".join(titles)
        notes.append(Note(f"{whom} ({note.source})" if note.source else whom, note.text))
    return tuple(notes)


def _inference_warnings(result: EstimatorResult) -> list[tuple[str, str]]:
    """Source and text of what the inferences warn of; inferences and tests that share one are put together."""
    tests: dict[tuple[str, str], list[str]] = {}  # text, inference -> tests
    for finding in result.findings:
        for warning in finding.facts:
            if isinstance(warning, WarningFact):
                tests.setdefault((warning.text, finding.inference.name), []).append(finding.test)
    inferences: dict[tuple[str, tuple[str, ...]], list[str]] = {}  # text, tests -> inferences
    for (text, inference), names in tests.items():
        inferences.setdefault((text, tuple(names)), []).append(inference)
    warnings = []
    for (text, concerned), found in inferences.items():
        which = ", ".join(name for name in concerned if name)  # an intercept alone has no name
        source = f"{result.estimator.name}, {', '.join(found)}"
        warnings.append((f"{source}, test {which}" if which else source, text))
    return warnings


def _join_sources(named: Iterable[str], text: str) -> str:
    """Name all sources; nothing where the text opens with them."""
    sources = [source for source in named if source and not text.startswith(f"{source}:")]
    return "; ".join(sources)
