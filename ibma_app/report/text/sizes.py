"""Methods text on the size of effects: what was standardised, and by what."""

from ibma_app.core.methods import Citation
from ibma_app.core.results import Results
from ibma_app.report.html import format_number
from ibma_app.report.text.significance import and_

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
SCHUIRMANN_1987 = Citation(
    key="schuirmann1987",
    authors="Schuirmann DJ",
    year=1987,
    title="A comparison of the two one-sided tests procedure and the power approach for assessing the equivalence of "
    "average bioavailability",
    source="Journal of Pharmacokinetics and Biopharmaceutics 15(6), 657-680",
    doi="10.1007/BF01068419",
)


NICHOLS_2005 = Citation(
    key="nichols2005",
    authors="Nichols T, Brett M, Andersson J, Wager T, Poline JB",
    year=2005,
    title="Valid conjunction inference with the minimum statistic",
    source="NeuroImage 25(3), 653-660",
    doi="10.1016/j.neuroimage.2004.12.005",
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
    if kinds & {"lower", "upper"}:
        parts.append(
            f"Effects have simultaneous {_level(results)} % bounds: the estimate and its standard error times the "
            "quantile of the largest standardised error of any voxel, over relabellings of the maps less the estimated "
            "effect, in which errors are centred whatever the effects (Telschow and Schwartzman 2022; Bowring et al. "
            "2021). All bounds hold at once, also at voxels that are chosen for what they show."
        )
    absences = [one for result in results.estimators for one in result.absences]
    if absences:
        bound = absences[0].bound.words(str(results.settings.get("units", "")))
        parts.append(
            f"Effects were called absent where they are smaller than {bound} by two one-sided tests (Schuirmann 1987), "
            "against the largest |error| of any voxel in the same relabellings: the family-wise error rate of calling "
            f"an effect of that size or more absent is at most {format_number(absences[0].alpha)}."
        )
    for test in results.design.tests:
        if test.of:
            agree = " in one direction" if test.tail == "two-sided" else ""
            every = "both" if len(test.of) == 2 else "all"
            parts.append(
                f"The conjunction {test.name} asks where {and_(test.of)} {every} have an effect{agree}: the minimum "
                "statistic against the conjunction null, that at least one of them has none (Nichols et al. 2005). Its "
                "p is the largest of theirs, which inferences on p alone correct; of inferences with a null "
                "distribution for each test the largest of the corrected p was taken."
            )
    return " ".join(parts)


def size_citations(results: Results) -> tuple[Citation, ...]:
    """List what that paragraph cites."""
    kinds = _kinds(results)
    hedges = (HEDGES_1981,) if "g" in kinds else ()
    findings = [one.inference for result in results.estimators for one in result.findings]
    bounded = dict.fromkeys(source for one in findings for source in one.bounds_effects)
    absent = any(result.absences for result in results.estimators)
    joined = any(test.of for test in results.design.tests)
    others = (
        *(bounded if kinds & {"lower", "upper"} else ()),
        *((SCHUIRMANN_1987,) if absent else ()),
        *((NICHOLS_2005,) if joined else ()),
    )
    return (*hedges, *((STEIGER_2004,) if kinds & {"g", "eta2"} else ()), *others)


def _level(results: Results) -> str:
    return format_number(100.0 * (1.0 - float(results.settings["alpha"])))


def _kinds(results: Results) -> set[str]:
    return {file.kind for result in results.estimators for file in result.files}
