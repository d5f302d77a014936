"""Warnings and notes of an analysis, each kind once, with what they concern."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ibma_app.core.errors import Note, merge_notes
from ibma_app.core.inference_facts import WarningFact
from ibma_app.core.results import EstimatorResult, Results


@dataclass(frozen=True)
class PageNote:
    """A warning or note in words, and the part of the analysis that it comes from."""

    source: str
    text: str


def notes_of(results: Results) -> tuple[PageNote, ...]:
    """Every warning and note of an analysis, those of its inferences included."""
    return tuple(PageNote(_join_sources(sources, note.words), note.words) for note, sources in _with_sources(results))


def notes_of_several(named: Sequence[tuple[str, Results]]) -> tuple[PageNote, ...]:
    """Notes of analyses on one page: each kind once, with the analyses that it concerns.

    Parameters
    ----------
    named : sequence of (str, Results)
        What the page calls each analysis.
    """
    if len(named) == 1:
        return notes_of(named[0][1])
    found = [
        (note, _join_sources(sources, note.words), title)
        for title, results in named
        for note, sources in _with_sources(results)
    ]
    by_source: dict[str, list[Note]] = {}
    concerned: dict[tuple[str, str], dict[str, None]] = {}
    for note, source, title in found:
        by_source.setdefault(source, []).append(note)
        concerned.setdefault((source, note.text), {})[title] = None
    notes = []
    for source, own in by_source.items():
        for note in merge_notes(own):
            titles = concerned[source, note.text]
            whom = f"all {len(named)} contrasts" if len(titles) == len(named) else "; ".join(titles)
            notes.append(PageNote(f"{whom} ({source})" if source else whom, note.words))
    return tuple(notes)


def _with_sources(results: Results) -> list[tuple[Note, tuple[str, ...]]]:
    """Notes of the parts of an analysis: each kind once, with all its sources."""
    parts: list[tuple[str, Iterable[Note]]] = [("", results.notes), ("", results.analysis.notes)]
    parts.append(("design", map(Note, results.design.notes)))
    for result in results.estimators:
        parts.append((result.estimator.name, map(Note, result.notes)))
        parts += [(source, (Note(text),)) for source, text in _inference_warnings(result)]
    sources: dict[str, dict[str, None]] = {}
    every = []
    for source, notes in parts:
        for note in notes:
            sources.setdefault(note.text, {})[source] = None
            every.append(note)
    return [(note, tuple(sources[note.text])) for note in merge_notes(every)]


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
