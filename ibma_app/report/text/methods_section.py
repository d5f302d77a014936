"""Methods text: what was run, in words that fit exactly, with its references.

Paragraphs are plain text; pages show them as HTML, README.md and CITATION.md
as Markdown.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.block import MIN_COVERAGE
from ibma_app.core.design import Design
from ibma_app.core.methods import Citation
from ibma_app.core.results import EstimatorResult, Results
from ibma_app.core.statmap import Publication
from ibma_app.images.spaces import is_mni, masked_to_mni152
from ibma_app.report.html import format_number
from ibma_app.report.text.grids import grid_sentence, interpolation_sentence
from ibma_app.report.text.inputs_in_words import input_paragraph, noun_of, plural_of
from ibma_app.report.text.regions_in_words import (
    atlases_of,
    naming_citations,
    naming_paragraph,
    tests_citations,
    tests_paragraph,
)
from ibma_app.report.text.significance import decision_paragraph
from ibma_app.report.text.sizes import size_citations, size_paragraph
from ibma_app.report.text.tests import describe_test

BIDS_CITATIONS = (
    Citation(
        key="gorgolewski2016",
        authors="Gorgolewski KJ, Auer T, Calhoun VD, et al.",
        year=2016,
        title="The brain imaging data structure, a format for organizing and describing outputs of "
        "neuroimaging experiments",
        source="Scientific Data 3, 160044",
        doi="10.1038/sdata.2016.44",
    ),
    Citation(
        key="gorgolewski2017",
        authors="Gorgolewski KJ, Alfaro-Almagro F, Auer T, et al.",
        year=2017,
        title="BIDS apps: improving ease of use, accessibility, and reproducibility of neuroimaging data "
        "analysis methods",
        source="PLOS Computational Biology 13(3), e1005209",
        doi="10.1371/journal.pcbi.1005209",
    ),
)


LIN_SULLIVAN = Citation(
    "lin2009",
    "Lin DY, Sullivan PF",
    2009,
    "Meta-analysis of genome-wide association studies with overlapping subjects",
    "American Journal of Human Genetics 85(6), 862-872",
    "10.1016/j.ajhg.2009.11.001",
)


@dataclass(frozen=True)
class MethodsText:
    """Paragraphs to paste, and what each of them cites."""

    paragraphs: tuple[str, ...]
    cited: tuple[tuple[Citation, ...], ...]  # by paragraph
    studies: tuple[tuple[str, Publication], ...] = ()  # that were combined: label, and what to cite

    @property
    def citations(self) -> tuple[Citation, ...]:
        """Every citation once, in the order of use."""
        return tuple({citation.text: citation for cited in self.cited for citation in cited}.values())

    @property
    def references(self) -> tuple[str, ...]:
        """The citations as lines of text, those of the studies last."""
        studies = (f"Study {label}: {publication.text}" for label, publication in self.studies)
        return (*(citation.text for citation in self.citations), *studies)


def methods_text(results: Results, version: str) -> MethodsText:
    """Write the methods of one analysis.

    Parameters
    ----------
    results : Results
    version : str
        Version of ibma-app that ran it.

    Returns
    -------
    MethodsText
        Input, coverage, design, one paragraph per estimator, inference, software.
    """
    findings = (finding for result in results.estimators for finding in result.findings)
    decided = {citation.text: citation for finding in findings for citation in finding.inference.citations}
    written: list[tuple[str, tuple[Citation, ...]]] = [
        (input_paragraph(results), ()),
        (_coverage_paragraph(results), ()),
        (_design_paragraph(results.design, results.analysis.level), ()),
        *((_estimator_paragraph(result, results), _cited_of(result)) for result in results.estimators),
        (size_paragraph(results), size_citations(results)),
        (decision_paragraph(results), tuple(decided.values())),
        (naming_paragraph(results), naming_citations(results)),
        (tests_paragraph(results), tests_citations(results)),
        (_software_paragraph(version), BIDS_CITATIONS),
    ]
    kept = [(text, cited) for text, cited in written if text]
    studies = {o.unit_label: o.publication for o in results.analysis.observations if o.publication is not None}
    return MethodsText(
        tuple(results.grid.speak(text) for text, _ in kept), tuple(cited for _, cited in kept), tuple(studies.items())
    )


def space_of(results: Results) -> str | None:
    """The space of an analysis; where several of the MNI family were pooled, the first of them."""
    if "space" in results.analysis.entities:
        return results.analysis.entities["space"]
    spaces = {row.entities.get("space", "") for row in results.analysis.observations}
    return min(spaces) if spaces and all(is_mni(space) for space in spaces) else None


def readme_intro(version: str, shape: Shape | None = None) -> str:
    """Write the opening of an output dataset's README.md, in the words of what its maps lie on (None: voxels)."""
    text = (
        "# Combined fMRI statistic maps\n\n"
        f"This BIDS derivative dataset was made by ibma-app {version}. It combines statistic maps voxel by voxel. "
        "Files end in `_stat-<kind>_statmap.nii.gz`, where the kind is, for instance, `effect`, `variance` (squared "
        "standard error), `t`, `z`, `p` or `n` (number of maps at the voxel); the JSON file beside each map says how "
        "it was made and from what.\n\n"
        "- `report.html`: index of the report's pages; open it first.\n"
        "- `CITATION.md`: what to cite.\n"
        "- `logs/`: options as resolved, log and versions of each run.\n\n"
        "## Methods\n"
    )
    return text if shape is None else shape.speak(text).replace(".nii.gz", shape.extension)


def citation_intro(version: str) -> str:
    """Write the opening of an output dataset's CITATION.md."""
    return f"# What to cite\n\nMade with ibma-app {version}. The methods that were run come from:\n"


def methods_markdown(results: Results, version: str) -> str:
    """Write the methods of one analysis for README.md.

    At the participant level nothing in it depends on who was analysed, so that
    jobs that run in parallel write the same bytes.
    """
    if results.analysis.level == "participant":
        last = "The numbers of each participant are in the methods text of its report page."
        lines = ["### Participant level", "", *_markdown_paragraphs((*_general_paragraphs(results), last))]
    else:
        name = escape_markdown(results.analysis.name)
        lines = [f"### Group level: {name}", "", *_markdown_paragraphs(methods_text(results, version).paragraphs)]
    return "\n".join(lines)


def references_markdown(results: Results) -> str:
    """Write the references of one analysis for CITATION.md."""
    level = results.analysis.level
    title = "Participant level" if level == "participant" else f"Group level: {escape_markdown(results.analysis.name)}"
    terms = [f"The atlas {atlas.name} is used {atlas.licence}" for atlas in atlases_of(results) if atlas.licence]
    listed = [*methods_text(results, "").references, *terms]
    return "\n".join([f"### {title}", "", *(f"- {escape_markdown(text)}" for text in listed)])


def escape_markdown(text: str) -> str:
    """Keep text from being read as Markdown or HTML; web addresses stay as they are."""
    parts = re.split(r"(https?://\S+)", text)
    return "".join(
        f"<{part}>" if index % 2 else re.sub(r"([\\`*_<>\[\]#|])", r"\\\1", part) for index, part in enumerate(parts)
    )


def _markdown_paragraphs(paragraphs: Iterable[str]) -> list[str]:
    return [line for text in paragraphs for line in (escape_markdown(text), "")]


def _general_paragraphs(results: Results) -> tuple[str, ...]:
    """What holds for every participant alike."""
    words = (_estimator_paragraph(result, results, numbers=False) for result in results.estimators)
    return tuple(results.grid.speak(text) for text in (*words, _coverage_paragraph(results)))


def _coverage_paragraph(results: Results) -> str:
    """State the coverage rule, the mask, the grid and any smoothing."""
    used = any("variance" in result.estimator.needs for result in results.estimators)
    positive = ", and its variance is greater than zero" if used else ""
    text = (
        f"A map was taken to cover a voxel where the values it needs are finite and not background{positive}; each "
        "voxel was fitted with the maps that cover it."
    )
    parts = (
        text,
        _share_sentence(results),
        _mask_sentence(results),
        grid_sentence(results.settings),
        interpolation_sentence(results),
    )
    return " ".join(part for part in parts if part)


def share_of_maps(results: Results) -> float:
    """The share of the maps that must cover a voxel; 0: any map."""
    share = results.settings.get("min_coverage")
    return MIN_COVERAGE[results.analysis.unit] if share is None else float(share)


def _share_sentence(results: Results) -> str:
    """State how many maps must cover a voxel."""
    share = share_of_maps(results)
    if share == 0:
        return "Voxels that at least one map covers were kept."
    if share == 1:
        return "Voxels that not all maps cover were left out."
    return f"Voxels that fewer than {format_number(100 * share)} % of the maps cover were left out."


def _mask_sentence(results: Results) -> str:
    """State what else bounds the analysis than coverage."""
    mask = results.settings.get("mask", "data")
    analysis = results.analysis
    if mask == "auto" and masked_to_mni152(analysis.unit, [row.entities.get("space") for row in analysis.observations]):
        return "The analysis was restricted to nilearn's MNI152 brain mask."
    if mask in ("auto", "data", None, ""):
        return ""
    if mask == "template":
        return f"The analysis was restricted to TemplateFlow's brain mask of {space_of(results)}."
    return f"The analysis was restricted to the mask {Path(str(mask)).name}."


TAILS = {"upper": "upper-tail", "positive": "one-sided, positive", "negative": "one-sided, negative"}


def _design_paragraph(design: Design, level: str) -> str:
    """State formula, columns and tests; nothing where no design was named."""
    if level == "participant":
        return ""
    if design.one_sample:
        if any(test.unsigned for test in design.tests):
            return "The design was an intercept alone: evidence of all maps together, whatever its direction."
        tail = design.tests[0].tail if design.tests else "two-sided"
        words = {"positive": "one-sided, for a positive mean", "negative": "one-sided, for a negative mean"}
        of = (
            f" The {len(design.matrix)} maps are of {design.n_clusters} {design.cluster_plural}."
            if design.dependent
            else ""
        )
        return f"The design was an intercept alone, the mean over all maps; its test was {words.get(tail, tail)}.{of}"
    n_rows, n_columns = design.matrix.shape
    columns = [name for name in design.columns if name not in design.nuisance]
    listed = f": {', '.join(columns)}" if len(columns) <= 12 else ""
    text = f"The design was '{design.formula}' ({n_rows} rows, {n_columns} columns{listed})."
    if design.nuisance:
        text += f" {len(design.nuisance)} subject columns were nuisance and were not tested."
    if design.dependent:
        text += f" Several maps of one {design.cluster_noun} entered as repeated measures of "
        text += f"{design.n_clusters} {design.cluster_plural}."
    tests = [describe_test(test, design.columns) for test in design.tests]
    kinds = {"t": "t contrast", "F": "F contrast"}
    listed_tests = "; ".join(
        f"{row.name} ({kinds.get(row.kind, row.kind)}, {TAILS.get(row.tail, row.tail)}): {', '.join(row.weights)}"
        for row in tests[:12]
    )
    more = f"; and {len(tests) - 12} more" if len(tests) > 12 else ""
    return f"{text} Tests: {listed_tests}{more}."


def _estimator_paragraph(result: EstimatorResult, results: Results, *, numbers: bool = True) -> str:
    """Say what the estimator does, with the settings it ran with."""
    estimator, units = result.estimator, plural_of(noun_of(results))
    settings = {**estimator.defaults(results.design), **result.settings}
    held = [words for words in estimator.words if words.holds(results.analysis.level, settings)]
    text = " ".join([f"Estimator: {estimator.title}.", *(words.text.format(units=units, **settings) for words in held)])
    text = _fit_to_design(text, results.design) + _dependence_sentence(result, results.design, settings)
    in_words = {name for words in estimator.words for name in (*words.when, *words.unless)}
    listed = ", ".join(f"{name} = {value}" for name, value in settings.items() if name not in in_words)
    text += f" Settings: {listed}." if listed else ""
    reason = auto_reason(result)
    if numbers and reason and results.analysis.level == "group":
        text += f" It was chosen automatically: {reason.rstrip('.')}."
    return text


def _fit_to_design(text: str, design: Design) -> str:
    """Leave out of an estimator's words what the design has not: F tests, or regressors."""
    if not any(test.is_f for test in design.tests):
        text = re.sub(r"\bt and F have\b", "t has", text)
        text = re.sub(r"\bt and F\b", "t", text)
    return text.replace("mean (or regression)", "mean" if design.one_sample else "regression")


def _cited_of(result: EstimatorResult) -> tuple[Citation, ...]:
    """List the sources of an estimator, and of correlations that are made of numbers of people."""
    overlap = result.dependence is not None and result.dependence.shared_people
    return (*result.estimator.citations, *((LIN_SULLIVAN,) if overlap else ()))


def _dependence_sentence(result: EstimatorResult, design: Design, settings: Mapping[str, str]) -> str:
    """Say how maps were taken to depend on each other; empty where they are independent or the model has words."""
    known, modelled = result.dependence, result.estimator.clusters
    if known is None or known.correlation is None:
        if not design.dependent or (modelled is not None and modelled(design, settings) is not None):
            return ""
        return f" All maps were taken as independent, those of one {design.cluster_noun} too."
    how = {
        "cluster": "of maps of one cluster were taken as correlated, by one correlation for each pair, estimated over "
        "voxels from the residuals that the design leaves and corrected for their bias",
        "same-data": "of all maps were taken as correlated as the maps are over voxels",
    }.get(known.source, f"of maps were taken as correlated as {known.source} states")
    if known.shared_people:
        how += " (of means of samples that share people, n_shared / sqrt(n_a n_b); Lin and Sullivan 2009)"
    shrunk = f" (shrunken by {known.shrunk:.1%} to be positive definite)" if known.shrunk else ""
    return (
        f" Sampling errors {how}{shrunk}: the largest correlation is {known.largest:.2f}, and the "
        f"{len(known.correlation)} maps amount to {known.effective_maps:.1f} independent ones (K² / 1'R1)."
    )


def auto_reason(result: EstimatorResult) -> str:
    """Why ``auto`` took the estimator; empty when it was asked for by name."""
    return "" if result.reason == "asked for" else result.reason.removeprefix("auto:").strip()


def _software_paragraph(version: str) -> str:
    return (
        f"Computed with ibma-app {version}, a BIDS App that reads and writes the Brain Imaging Data Structure (BIDS)."
    )
