"""What ``--dependence`` asks for: how the sampling errors of an analysis's maps are correlated."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.design import Dependence, Design
from ibma_app.core.errors import DataError, Note, UsageError
from ibma_app.core.methods import Estimator
from ibma_app.core.statmap import Analysis, Observation
from ibma_app.designs.map_pairs import correlate_pairs, read_map_pairs
from ibma_app.estimators import estimators_that
from ibma_app.stats.dependence import parts_of, shrink
from ibma_app.stream.stack import Stack
from ibma_app.workflows.options.table import Options
from ibma_app.workflows.plan.measure_dependence import measure_dependence

logger = logging.getLogger(__name__)


def plan_dependence(
    estimator: Estimator, analysis: Analysis, design: Design, options: Options, everything: Sequence[Observation]
) -> Dependence | None:
    """Return how maps depend on each other for an estimator; its correlations where a file states them.

    Raises
    ------
    DataError
        No clusters of several maps; a file that does not fit the maps.
    UsageError
        An estimator that takes maps as independent, or models their dependence itself.
    """
    source = options.dependence
    if source == "none":
        source = "same-data" if estimator.same_data else source
        return None if source == "none" else Dependence(source, _together(design))
    if not estimator.takes_dependence:
        able = ", ".join(estimators_that(lambda record: record.takes_dependence))
        own = " on its own" if estimator.models_clusters or estimator.clusters is not None else ""
        why = f"takes care of clusters{own}: leave --dependence out" if own else "takes maps as independent"
        raise UsageError(f"--estimator {estimator.name} {why}. --dependence is for --estimator {able}.")
    if source == "same-data":
        return Dependence(source, _together(design))
    if source == "cluster":
        if estimator.same_data:
            raise UsageError(
                f"--estimator {estimator.name} takes all maps as analyses of one data set, not by clusters: leave "
                "--dependence out."
            )
        if design.clusters is None or not design.dependent:
            raise DataError(
                "--dependence cluster: every study, subject and cluster has one map here, so that all are independent. "
                "Name maps that depend on each other by one label in a column cluster of studies.tsv or "
                "participants.tsv, or leave --dependence out."
            )
        return Dependence(source, design.clusters)
    path = Path(source)
    pairs = read_map_pairs(path)
    matrix = correlate_pairs(pairs, analysis.observations, everything, path)
    return Dependence(path.name, parts_of(matrix), matrix, shared_people=any(pair.shared_people for pair in pairs))


def _together(design: Design) -> NDArray[np.int64]:
    return np.zeros(len(design.matrix), dtype=np.int64)


def settle_dependence(
    stack: Stack, design: Design, estimator: Estimator, settings: Mapping[str, str], told: Sequence[Note]
) -> tuple[Design, tuple[str, ...]]:
    """Estimate correlations where none are stated, and say what they mean for an estimator.

    Returns
    -------
    Design
        With correlations, where it has a dependence.
    tuple of str
        New notes.
    """
    if design.dependence is None:
        return design, ()
    notes: tuple[str, ...] = ()
    if design.dependence.correlation is None:
        found, notes = measure_dependence(stack, design)
        if found.source == "same-data" and "variance" in estimator.needs and found.correlation is not None:
            kept, share = shrink(found.correlation)  # its inverse is needed
            found = replace(found, correlation=kept, shrunk=share)
            notes += () if share == 0.0 else (
                f"{estimator.name} with --dependence same-data: some maps follow from others (the same map twice?), so "
                f"that correlations are shrunken by {share:.1%}.",
            )  # fmt: skip
        design = replace(design, dependence=found)
    logger.info("%s: %s", estimator.name, _in_words(stack, design.dependence))
    if estimator.check is not None:
        known = {note.text for note in told}
        notes += tuple(note for note in estimator.check(design, settings) if note not in known)
    return design, (*notes, *_against_their_sign(stack, design, estimator))


def _in_words(stack: Stack, known: Dependence | None) -> str:
    """Say which maps depend on each other, how much at most, and what they amount to."""
    assert known is not None
    assert known.correlation is not None
    labels = [survey.label for survey in stack.survey]
    groups = [[labels[i] for i in np.flatnonzero(known.parts == part)] for part in np.unique(known.parts)]
    several = [group for group in groups if len(group) > 1]
    listed = "; ".join(", ".join(group[:6]) + (", ..." if len(group) > 6 else "") for group in several[:10])
    more = f"; and {len(several) - 10} more" if len(several) > 10 else ""
    off = np.where(np.eye(len(labels), dtype=bool), -np.inf, known.correlation)
    one, other = np.unravel_index(int(off.argmax()), off.shape)
    return (
        f"--dependence {known.source}: {len(labels)} maps are {len(groups)} independent cluster(s), {len(several)} of "
        f"them of several maps ({listed}{more}); the largest correlation is {known.largest:.2f} ({labels[one]} and "
        f"{labels[other]}), and all amount to {known.effective_maps:.1f} independent maps."
    )


def _against_their_sign(stack: Stack, design: Design, estimator: Estimator) -> tuple[str, ...]:
    """Name maps that weigh against what they show, by their median variances."""
    medians = [survey.median_variance for survey in stack.survey]
    if "variance" not in estimator.needs or not design.one_sample or not all(medians):
        return ()
    errors = np.sqrt(np.array(medians, dtype=np.float64))
    weights = np.linalg.solve(design.error_correlation * np.outer(errors, errors), np.ones(errors.size))
    negative = [survey.label for survey, weight in zip(stack.survey, weights, strict=True) if weight < 0]
    if not negative:
        return ()
    return (
        f"{estimator.name}: {', '.join(negative[:10])} correlate so much with more precise maps that they weigh "
        "against what they show (negative weights where tau2 is 0). Leave them out, unless you trust the correlations.",
    )


def describe_dependence(design: Design) -> dict[str, object]:
    """Return the sidecar's ``Dependence``; empty where maps are independent."""
    known = design.dependence
    if known is None:
        return {}
    words: dict[str, object] = {
        "Source": known.source,
        "LargestCorrelation": round(known.largest, 6),
        "EffectiveNumberOfMaps": round(known.effective_maps, 6),
    }
    return {"Dependence": words | ({"Shrinkage": round(known.shrunk, 6)} if known.shrunk else {})}


def dependence_facts(design: Design) -> tuple[tuple[str, str], ...]:
    """Return the page's lines: labels and texts."""
    known = design.dependence
    if known is None:
        return ()
    return (
        ("Dependence of maps", known.source),
        ("Largest correlation of two maps", f"{known.largest:.3g}"),
        ("Independent maps they amount to", f"{known.effective_maps:.3g}"),
    )
