"""Methods text on the input: which maps, of how many, in which units, and what was computed of them first."""

from ibma_app.core.results import INTERPOLATED, Results
from ibma_app.report.html import format_number
from ibma_app.report.text.significance import and_

UNITS_WORDS = {
    "assume-same": ("That all effects are in one unit was taken on the word of the user; it was not checked."),
    "hedges-g": (
        "Effects of unknown or different units were turned into standardised effects (Hedges' g) "
        "from t (or z) and sample size n: g = J t/sqrt(n) with the exact small-sample factor "
        "J = gamma(m/2) / (sqrt(m/2) gamma((m-1)/2)), m the degrees of freedom of the map (where unknown, n-1; for two "
        "groups n = n1 n2/(n1+n2) and m = n1+n2-2), and sampling variance J^2 m/(m-2) (1/n + G^2) - G^2 (Hedges 1981) "
        "with G, the mean of g over the studies weighted by n, for the true effect, so that no weight goes with its "
        "study's error (with fewer than five studies, each one's own g)."
    ),
}
"""What a policy on units means for the reader, by the value of ``--units``."""

KINDS = {"effect": "effect", "variance": "variance", "t": "t", "z": "z", "p": "p", "dof": "degrees of freedom"}
"""Kinds of map in the order in which they are told, and what they are called."""

COMPUTED, TOLD_ELSEWHERE = "effect computed as ", ("effect smoothed", "effect and variance as Hedges' g", INTERPOLATED)
"""How what was derived of a map begins."""


def _kinds(results: Results) -> list[str]:
    """List the kinds of map that were opened; all that there are, where that was not kept."""
    surveys = (results.survey, *(fitted.survey for fitted in results.estimators))
    opened = {uri for survey in surveys for one in survey for uri in one.uris}
    pairs = [(kind, one) for row in results.analysis.observations for kind, one in row.statmaps.items()]
    used = {kind for kind, one in pairs if opened.intersection(one.uris)}
    order, found = list(KINDS), used or {kind for kind, _ in pairs}
    return sorted(found, key=lambda kind: (order.index(kind) if kind in order else len(order), kind))


def input_paragraph(results: Results) -> str:
    """Which maps, of how many, in which units, and what was derived."""
    analysis = results.analysis
    n_maps = len(analysis.observations)
    kinds = and_(KINDS.get(kind, kind) for kind in _kinds(results))
    units = {row.unit_label for row in analysis.observations}
    if analysis.level != "participant":
        noun = noun_of(results)
        count = f"{len(units)} {noun if len(units) == 1 else plural_of(noun)}"
        several = f" ({n_maps} rows of the design)" if n_maps != len(units) else ""
        text = f"Statistic maps ({kinds}) of {count}{several} were combined at each voxel"
        text += _sizes_clause(results)
    elif n_maps > 1:
        over = f" over {and_(analysis.combined)}" if analysis.combined else ""
        text = f"For participant {and_(sorted(units))}, {n_maps} sets of maps ({kinds}) were combined{over}"
    else:
        text = f"For participant {and_(sorted(units))}, one set of maps ({kinds}) was passed on as it is"
    named = ", ".join(f"{key} {label}" for key, label in analysis.entities.items())
    text += f" [{named}]." if named else "."
    return " ".join(part for part in (text, _derived_sentence(results), _units_sentence(results)) if part)


def _sizes_clause(results: Results) -> str:
    """Sample sizes of studies, where all are known."""
    sizes = [row.sample_size for row in results.analysis.observations if row.sample_size]
    if results.analysis.unit != "study" or len(sizes) != len(results.analysis.observations):
        return ""
    low, high = format_number(min(sizes)), format_number(max(sizes))
    return f"; sample sizes were {low} to {high}" if low != high else f"; each sample size was {low}"


def _derived_sentence(results: Results) -> str:
    """Say what was computed from what, for how many maps; smoothing and Hedges' g have sentences of their own."""
    counts: dict[str, int] = {}
    for row in results.survey:
        for derived in dict.fromkeys(part for one in row.derived for part in one.split("; ")):
            counts[derived] = counts.get(derived, 0) + 1
    made = [text.removeprefix(COMPUTED) for text in counts if text.startswith(COMPUTED)]
    told = {text: n for text, n in counts.items() if not text.startswith((COMPUTED, *TOLD_ELSEWHERE))}
    sentences = []
    if made:
        sentences.append(
            f"The effects were computed within each {noun_of(results)} from other contrasts: {and_(made)}."
        )
    if told:
        listed = "; ".join(f"{text} ({n} {'map' if n == 1 else 'maps'})" for text, n in told.items())
        sentences.append(f"What was missing was derived: {listed}.")
    return " ".join(sentences)


def _units_sentence(results: Results) -> str:
    """Say in which units effects were, and on whose word."""
    if not any("effect" in result.estimator.needs for result in results.estimators):
        return "Units of the effects played no part, since z values were combined."
    policy = str(results.settings.get("units_policy", results.settings.get("units", "check")))
    units = sorted({row.units for row in results.survey})
    if policy != "check" and policy in UNITS_WORDS:
        return UNITS_WORDS[policy]
    if units == ["unknown"] or not units:
        return "The maps do not state the units of their effects, which were taken as alike."
    return f"The units of the effects were {and_(units)}."


def noun_of(results: Results) -> str:
    """Name what one of the units is called: run, subject, study or map."""
    return results.analysis.unit if results.analysis.unit in ("run", "subject", "study") else "map"


def plural_of(noun: str) -> str:
    """Give the plural of such a noun."""
    return "studies" if noun == "study" else f"{noun}s"
