"""The pages of the report: one per group analysis, one per participant, and their index.

Each is one self-contained HTML file whose bytes depend on the results alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ibma_app import __version__
from ibma_app.core.results import Results, RunFacts
from ibma_app.report.cluster_tables import ClusterTable, relative_to_page
from ibma_app.report.figures.agreement import view_agreement
from ibma_app.report.figures.brains.glass import glass_outline
from ibma_app.report.figures.brains.plans import Sheet
from ibma_app.report.figures.charts import draw_design
from ibma_app.report.figures.picture import Picture
from ibma_app.report.figures.plot import Plot
from ibma_app.report.figures.similarity import similarity_view
from ibma_app.report.figures.svg_files import Figure, save_figures
from ibma_app.report.html import format_number, render, reword, sort_key
from ibma_app.report.index.cards import group_card, participant_card
from ibma_app.report.inputs import maps_table
from ibma_app.report.text.citations import merge_texts, paste_texts
from ibma_app.report.text.facts import settings_rows
from ibma_app.report.text.methods_section import methods_text
from ibma_app.report.text.notes import notes_of, notes_of_several
from ibma_app.report.text.tests import describe_test
from ibma_app.report.views import (
    Fact,
    estimator_view,
    found_matrix,
    grid_facts,
    participant_view,
    reference_rows,
    title_of,
)

Save = Callable[[Path, str], object]

PICTURED_TESTS = 8
"""Tests of a group page (of all estimators together) that get pictures: a second and half a megabyte each."""

COMPARED_TESTS = 4
"""Tests on which the estimators are compared."""

PICTURED_CONTRASTS = 20
"""Contrasts of a participant's page that get pictures."""


def write_analysis_page(
    results: Results,
    page: str,
    save: Save,
    version: str = __version__,
    software: Mapping[str, str] | None = None,
    ran: RunFacts | None = None,
) -> Path:
    """Write the page of one group analysis.

    Parameters
    ----------
    results : Results
        The finished analysis; numbers are read from its files.
    page : str
        File name of the page, ``group_<analysis name>.html``.
    save : callable
        ``save(path, text)`` writes a text file atomically.
    version : str
        Version of ibma-app, for the methods text.
    software : mapping, optional
        Names and versions of other software to list.
    ran : RunFacts, optional
        When, how and how long it ran.

    Returns
    -------
    Path
        The page.
    """
    sheet, budget, estimators = Sheet(), PICTURED_TESTS, []
    for number, result in enumerate(results.estimators):
        estimators.append(estimator_view(result, results, sheet, number, budget))
        budget = max(0, budget - len(results.design.tests))
    text, notes = methods_text(results, version), notes_of(results)
    path = results.output_dir / page
    view = {
        "kicker": "Group analysis",
        "title": title_of(results.analysis.entities),
        "description": _describe_group(results),
        "contents": _group_contents(estimators),
        "version": version,
        "plans": sheet.plans,
        "blocks": sheet.embedded.blocks,
        "card": group_card(results, estimators, len(notes)),
        "ran": ran,
        "summary": [*_count_facts(results), *grid_facts(results)],
        "notes": notes,
        "found": found_matrix(estimators),
        "outline": glass_outline() if any(_glasses(estimators)) else None,
        **_input_view(results),
        "estimators": estimators,
        "agreement": view_agreement(results, COMPARED_TESTS),
        "methods": text.paragraphs,
        "paste": paste_texts(text, Path(page).stem),
        "references": reference_rows(text.references),
        "settings": settings_rows(results.settings),
        "software": list({"ibma-app": version, **(software or {})}.items()),
    }
    content = render("analysis.html.j2", **view)
    save(path, content if results.grid.box else reword(content, results.grid.speak))
    save_figures(_group_figures(view, results.analysis.name), sheet.plans, results.output_dir, save)
    return path


def write_participant_page(
    label: str,
    results: Sequence[Results],
    save: Save,
    version: str = __version__,
    software: Mapping[str, str] | None = None,
    ran: RunFacts | None = None,
) -> Path:
    """Write ``sub-<label>.html``: all analyses of one participant.

    Parameters
    ----------
    label : str
        Participant label, without prefix.
    results : sequence of Results
        At least one, all with the same ``output_dir``.
    save, version, software, ran
        As for `write_analysis_page`.

    Returns
    -------
    Path
        The page.
    """
    sheet = Sheet()
    ordered = sorted(results, key=lambda one: sort_key(one.analysis.name))
    analyses = [
        participant_view(one, sheet, number, pictured=number < PICTURED_CONTRASTS) for number, one in enumerate(ordered)
    ]
    text = merge_texts([methods_text(one, version) for one in ordered])
    path = ordered[0].output_dir / f"sub-{label}.html"
    n_maps = sum(len(one.analysis.observations) for one in ordered)
    notes = notes_of_several([(view["title"], one) for view, one in zip(analyses, ordered, strict=True)])
    content = render(
        "participant.html.j2",
        kicker="Participant level",
        title=f"Participant {label}",
        description=f"{count_words(len(ordered), 'combined contrast')} from {count_words(n_maps, 'map')}.",
        contents=_participant_contents(analyses),
        version=version,
        plans=sheet.plans,
        blocks=sheet.embedded.blocks,
        summary=[("Combined contrasts", len(ordered)), ("Maps read", n_maps)],
        notes=notes,
        card=participant_card(ordered, len(notes)),
        ran=ran,
        analyses=analyses,
        methods=text.paragraphs,
        paste=paste_texts(text, path.stem),
        references=reference_rows(text.references),
        settings=settings_rows(ordered[0].settings),
        software=list({"ibma-app": version, **(software or {})}.items()),
    )
    shape = ordered[0].grid
    save(path, content if shape.box else reword(content, shape.speak))
    save_figures(_participant_figures(analyses), sheet.plans, path.parent, save)
    return path


def _group_figures(view: Mapping[str, Any], stem: str) -> Iterator[Figure]:
    """List the pictures of a group page; names of those that belong to no estimator begin with ``stem``."""
    if view["similarity"]:
        yield Figure(stem, "correlations", view["similarity"].matrix)
        yield from _plots(stem, [view["similarity"].scatter])
    yield Figure(stem, "design", view["design"])
    for part in view["estimators"]:
        own = part["stem"] or stem
        for test in part["tests"]:
            yield from _test_figures(test, test["stem"] or own)
        yield from _plots(own, part["pictures"])
    for test in view["agreement"]:
        yield from _plots(stem, [pair.plot for pair in test.pairs])


def _glasses(estimators: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """List the outlines that the pictures of a group page have."""
    for part in estimators:
        for test in part["tests"]:
            yield from (one["pictures"].overview.outline for one in test["found"] if one["pictures"])


def _test_figures(test: Mapping[str, Any], stem: str) -> Iterator[Figure]:
    """List the pictures of one test."""
    for one in test["found"]:
        if one["pictures"]:
            overview = one["pictures"].overview
            yield Figure(stem, overview.figure, overview, _legend(one["row"].clusters))
            yield from _plots(stem, [one["pictures"].slices])
    sizes = [one["pictures"] for one in (test["least"], test["absence"]) if one]
    yield from _plots(stem, [test["surface"], *test["whole"], *(picture for of in sizes for picture in of)])
    for number, peak in enumerate(test["evidence"].peaks if test["evidence"] else (), start=1):
        yield from _plots(stem, [peak.cells, peak.scatter, peak.forest, peak.funnel], f"peak-{number}_")
    if test["regions"]:
        yield from _plots(stem, test["regions"].plots)
    yield from _plots(stem, test["inference"]["plots"])


def _legend(table: ClusterTable | None) -> tuple[str, ...]:
    """Name the regions of the clusters whose numbers a picture shows."""
    return tuple(f"{one.number} {one.region}" for one in (table.largest if table else ()) if one.region)


def _participant_figures(analyses: Iterable[Mapping[str, Any]]) -> Iterator[Figure]:
    """List the pictures of a participant's page."""
    for part in analyses:
        yield from _plots(part["name"], part["pictures"])


def _plots(stem: str, drawings: Iterable[Picture | Plot | None], opening: str = "") -> Iterator[Figure]:
    """Name pictures by what they show."""
    return (Figure(stem, opening + drawing.figure, drawing) for drawing in drawings if drawing is not None)


def entry(anchor: str, title: str, children: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Make an entry of a page's contents."""
    return {"anchor": anchor, "title": title, "children": list(children)}


def _closing() -> list[dict[str, Any]]:
    return [
        entry("methods", "Methods"),
        entry("references", "References"),
        entry("software", "Settings and software"),
    ]


def _group_contents(estimators: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    entries = [
        entry("notes", "Warnings and notes"),
        *([entry("found", "What was found")] if found_matrix(estimators)["rows"] else []),
    ]
    for part in estimators:
        children = [entry(test["anchor"], test["label"]) for test in part["tests"]]
        children.append(entry(f"{part['anchor']}-coverage", part["coverage_title"] if part["pictures"] else "The fit"))
        entries.append(entry(part["anchor"], f"Results: {part['name']}", children))
    if len(estimators) > 1:
        entries.append(entry("agreement", "Agreement of the estimators"))
    entries += [entry("maps", "What was combined"), entry("design", "Design")]
    return entries + _closing()


def _participant_contents(analyses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    entries = [entry(part["anchor"], part["title"]) for part in analyses]
    return [entry("notes", "Warnings and notes"), *entries, *_closing()]


def count_words(number: int, one: str, many: str = "") -> str:
    """Write a number of things: ``1 study``, ``1,200 studies``."""
    return f"{format_number(number)} {one if number == 1 else many or one + 's'}"


def _units_of(results: Results) -> str:
    """How many subjects or studies there are, in words."""
    unit = results.analysis.unit
    number = len({row.unit_label for row in results.analysis.observations})
    return count_words(number, unit, "studies" if unit == "study" else "")


def _describe_group(results: Results) -> str:
    names = ", ".join(result.estimator.name for result in results.estimators)
    voxels = format_number(results.grid.n_voxels)
    return results.grid.speak(f"{_units_of(results)} combined by {names} at {voxels} voxels.")


def _count_facts(results: Results) -> list[Fact]:
    """Subjects or studies, and maps where these are more."""
    analysis = results.analysis
    name = {"study": "Studies", "subject": "Subjects"}.get(analysis.unit, "Units")
    number = len({row.unit_label for row in analysis.observations})
    facts: list[Fact] = [(name, number)]
    if len(analysis.observations) != number:
        facts.append(("Maps", len(analysis.observations)))
    names = {
        str(statmap.metadata["ContrastName"])
        for row in analysis.observations
        for statmap in row.statmaps.values()
        if statmap.metadata.get("ContrastName")
    }
    return [*facts, ("Original contrast name", names.pop())] if len(names) == 1 else facts


def _input_view(results: Results) -> dict[str, Any]:
    """The table of maps and the design, as the group page shows them."""
    table = maps_table(results)
    return {
        "maps": table,
        "similarity": similarity_view(results),
        "formula": results.design.formula,
        "design": draw_design(results.design, tuple(row.label for row in table.rows)),
        "design_caption": (
            "The design matrix, one row per map, and under it the weights of each test. Colours: blue is "
            "negative, red positive, each column by its own largest value (tests: by theirs)."
        ),
        "tests": [describe_test(test, results.design.columns) for test in results.design.tests],
        **_design_file(results),
    }


def _design_file(results: Results) -> dict[str, str]:
    """Path of the design table relative to the page, and words on what it tells; "" when there is none."""
    for result in results.estimators:
        path = result.path("design")
        if path is not None:
            weights = ", with what its weight rests on" if result.estimator.weights else ""
            return {"design_file": relative_to_page(path, results.output_dir), "design_words": weights}
    return {"design_file": "", "design_words": ""}
