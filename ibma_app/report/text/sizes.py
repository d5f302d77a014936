"""Methods text on the size of effects: what was standardised, and by what."""

from ibma_app.core.methods import Citation
from ibma_app.core.results import Results

HEDGES_1981 = Citation(
    "hedges1981",
    "Hedges LV",
    1981,
    "Distribution theory for Glass's estimator of effect size and related estimators",
    "Journal of Educational Statistics 6(2), 107-128",
    "10.3102/10769986006002107",
)
STEIGER_2004 = Citation(
    "steiger2004",
    "Steiger JH",
    2004,
    "Beyond the F test: effect size confidence intervals and tests of close fit in the analysis of variance and "
    "contrast analysis",
    "Psychological Methods 9(2), 164-182",
    "10.1037/1082-989X.9.2.164",
)


def size_paragraph(results: Results) -> str:
    """Say how effects were standardised; empty where none were."""
    kinds, parts = _kinds(results), []
    if "g" in kinds:
        which = "their mean" if results.design.one_sample else "the means of their groups"
        parts.append(
            f"Effects were standardised as Hedges' g, by the standard deviation of subjects about {which}, with the "
            "exact small-sample factor (Hedges 1981); the 95 % intervals are those of the population's standardised "
            "effect, by the noncentral t distribution (Steiger 2004), each for one voxel named beforehand."
        )
    if "eta2" in kinds:
        parts.append(
            "The size of F tests is partial eta squared, with 95 % intervals by the noncentral F distribution "
            "(Steiger 2004): the sample's value is larger than the population's on average."
        )
    return " ".join(parts)


def size_citations(results: Results) -> tuple[Citation, ...]:
    """List what that paragraph cites."""
    kinds = _kinds(results)
    hedges = (HEDGES_1981,) if "g" in kinds else ()
    return (*hedges, *((STEIGER_2004,) if kinds & {"g", "eta2"} else ()))


def _kinds(results: Results) -> set[str]:
    return {file.kind for result in results.estimators for file in result.files}
