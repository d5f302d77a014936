"""New effect maps from a subject's contrasts (``--compute LABEL=EXPR``)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.from_files import EXPRESSION, show
from ibma_app.core.labels import is_label
from ibma_app.core.statmap import Observation, StatMap
from ibma_app.designs.expressions import parse_rows


def compute_effects(
    observations: Sequence[Observation], expressions: Sequence[str]
) -> tuple[tuple[Observation, ...], tuple[str, ...]]:
    """Add new effect maps to each subject's (or study's), computed from its contrasts.

    Only effects are computed: the covariance of one subject's contrasts,
    which a variance would need, is not shared.

    Parameters
    ----------
    observations : sequence of Observation
    expressions : sequence of str
        ``LABEL=EXPR``, linear in contrast labels; a later one may use an
        earlier one's label.

    Returns
    -------
    observations : tuple of Observation
        The given ones and the new ones.
    notes : tuple of str
        Subjects or studies for which a new map could not be computed.

    Raises
    ------
    UsageError
        A label that is not alphanumeric or exists, or an expression that is not linear.
    DataError
        Nobody has all the contrasts of an expression, or their units differ.
    """
    every = list(observations)
    notes: list[str] = []
    for text in expressions:
        label, _, expression = text.partition("=")
        contrasts = sorted({o.entities["contrast"] for o in every if "contrast" in o.entities})
        _check_label(label.strip(), contrasts, text)
        weights = _parse(expression, contrasts, text)
        needed = {c: float(w) for c, w in zip(contrasts, weights[0], strict=True) if w}
        made, lacking = _compute(every, label.strip(), needed)
        if not made:
            raise DataError(
                f"--compute {show(text, EXPRESSION)}: nobody has effect maps of all of {', '.join(needed)}."
            )
        if lacking:
            notes.append(
                f"--compute {label}: not computed for {', '.join(lacking)}, who lack a contrast that it needs."
            )
        every += made
    return tuple(every), tuple(notes)


def _parse(expression: str, contrasts: Sequence[str], text: str) -> NDArray[np.float64]:
    """Read one linear expression of contrast labels."""
    try:
        weights = parse_rows(expression, contrasts)
    except UsageError:
        raise UsageError(
            f"--compute {show(text, EXPRESSION)} is not a linear expression of contrasts. There are: "
            f"{', '.join(contrasts)}."
        ) from None
    if len(weights) != 1:
        raise UsageError(
            f"--compute {show(text, EXPRESSION)}: a comma makes several expressions; give each its own LABEL=."
        )
    return weights


def _check_label(label: str, contrasts: Sequence[str], text: str) -> None:
    if not is_label(label):
        raise UsageError(
            f"--compute {show(text, EXPRESSION)}: the label {label!r} is not alphanumeric, as BIDS labels are."
        )
    if label in contrasts:
        raise UsageError(
            f"--compute {show(text, EXPRESSION)}: there is a contrast {label} already. Choose another label."
        )


def _compute(
    observations: Sequence[Observation], label: str, needed: dict[str, float]
) -> tuple[list[Observation], list[str]]:
    """Compute one new map from each set of maps that differ in their contrast alone."""
    siblings: dict[tuple[tuple[str, str], ...], dict[str, Observation]] = defaultdict(dict)
    for observation in observations:
        contrast = observation.entities.get("contrast")
        if contrast in needed and "effect" in observation.statmaps:
            key = tuple((k, v) for k, v in observation.entities.items() if k != "contrast")
            siblings[key][str(contrast)] = observation
    made: list[Observation] = []
    lacking: list[str] = []
    for found in siblings.values():
        first = next(iter(found.values()))
        if len(found) < len(needed):
            lacking.append(first.unit_label)
            continue
        units = {o.units for o in found.values()}
        if len(units) > 1:
            raise DataError(f"--compute {label}: the contrasts of {first.path} and others differ in units: "
                            f"{', '.join(sorted(units))}.")  # fmt: skip
        terms = tuple((weight, found[contrast].statmaps["effect"]) for contrast, weight in needed.items())
        made.append(_observation(first, label, terms))
    return made, sorted(set(lacking))


def _observation(like: Observation, label: str, terms: tuple[tuple[float, StatMap], ...]) -> Observation:
    entities = {**like.entities, "contrast": label}
    effect = replace(terms[0][1], entities=entities, metadata={}, terms=terms)
    return replace(like, entities=entities, statmaps={"effect": effect}, dof=None, dof_source="unknown", tail=None)
