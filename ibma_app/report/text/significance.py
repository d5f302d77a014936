"""Methods text on significance: how it was decided, in sentences that fit each inference as it ran."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ibma_app.core.design import Test
from ibma_app.core.inference_facts import (
    CalibrationFacts,
    ClusterFacts,
    LevelFacts,
    NeighbourFacts,
    RandomFieldFacts,
    Relabelling,
    ResamplingFacts,
    find_fact,
    sidecar_of,
)
from ibma_app.core.results import EstimatorResult, Finding, Results
from ibma_app.report.html import format_fact, format_number
from ibma_app.report.text.facts import format_fwhm

Record = TypeVar("Record")


@dataclass(frozen=True)
class Ran:
    """One inference as it ran on one test of one estimator."""

    result: EstimatorResult
    finding: Finding
    test: Test
    noun: str  # of what several maps may be: participant, study or cluster

    @property
    def name(self) -> str:
        """The inference, as a sentence calls it."""
        return self.finding.inference.title

    def find(self, kind: type[Record]) -> Record | None:
        """Return its facts of one kind; None where there are none."""
        return find_fact(self.finding.facts, kind)


def decision_paragraph(results: Results) -> str:
    """Say how significance was decided; empty where it was not.

    Numbers that differ between tests or estimators are given for each.
    """
    tests = {test.name: test for test in results.design.tests}
    only = results.design.tests[0]  # an intercept alone has no name in findings
    runs = [
        Ran(result, finding, tests.get(finding.test, only), results.design.cluster_noun)
        for result in results.estimators
        for finding in result.findings
    ]
    if not runs:
        return ""
    parts = [
        _opening(results, runs),
        _describe(runs, RandomFieldFacts, _field_words),
        _describe(runs, ResamplingFacts, _relabelling_words),
        _describe(_in_one_null(runs), ResamplingFacts, _counting_words),
        _symmetry_words(runs),
        _describe(runs, CalibrationFacts, _calibration_words),
        _joint_words(runs),
        _tail_words(runs),
        _describe(runs, ClusterFacts, _cluster_words),
    ]
    worded = [run for run in runs if run.finding.inference.words]
    for name in dict.fromkeys(run.name for run in worded):
        parts.append(_each([(run, _own_words(run)) for run in worded if run.name == name]))
    extent = results.settings.get("min_extent")
    if isinstance(extent, int) and extent > 1:
        parts.append(f"Clusters of fewer than {extent} voxels were left out of tables and thresholded maps.")
        lost = dict.fromkeys(run.name for run in runs if (level := run.find(LevelFacts)) and not level.holds)
        if lost:
            parts.append(
                f"The rate of {and_(lost)} is that of all voxels that passed: it is not controlled among those kept."
            )
    return " ".join(part for part in parts if part)


def _opening(results: Results, runs: Iterable[Ran]) -> str:
    """Name each inference once, with level and tail."""
    by_level: dict[float | None, dict[str, None]] = {}
    for run in runs:
        level = run.find(LevelFacts)
        by_level.setdefault(level.alpha if level else results.settings.get("alpha"), {})[run.name] = None
    parts = [
        f"{'' if alpha is None else f'at alpha = {format_number(alpha)} '}by {and_(titles)}"
        for alpha, titles in by_level.items()
    ]
    tails = _tails_in_words(run.test for run in runs)
    apart = " separately for each test," if len(results.design.tests) > 1 else ""
    where = "over the voxels of the mask where the test can be estimated"
    return f"Significance was decided {and_(parts)} ({tails}),{apart} {where}."


def _tails_in_words(tests: Iterable[Test]) -> str:
    """Say in which tails tests were made: ``two-sided``, ``one-sided, positive effects``."""
    words = {"positive": "one-sided, positive effects", "negative": "one-sided, negative effects"}
    told = dict.fromkeys(
        "F tests upper-tail"
        if test.is_f
        else words.get(test.tail, test.tail)
        if test.signed
        else "evidence whatever its direction"
        for test in tests
    )
    return "; ".join(sorted(told, key=lambda text: text.startswith("F")))


def _describe(runs: Iterable[Ran], kind: type[Record], describe: Callable[[Ran, Record], str]) -> str:
    """Describe the runs that have facts of one kind; empty where none has."""
    return _each([(run, describe(run, facts)) for run in runs if (facts := run.find(kind)) is not None])


def _each(described: Sequence[tuple[Ran, str]]) -> str:
    """Describe runs: one sentence where all are alike, else one for each set of them that are."""
    alike: dict[str, list[Ran]] = {}
    for run, text in described:
        alike.setdefault(text, []).append(run)
    if len(alike) <= 1:
        return next(iter(alike), "")
    runs = [run for run, _ in described]
    told = [(_whom(group, runs), text) for text, group in alike.items()]
    ordered = sorted(told, key=lambda one: one[0] == OTHERWISE)
    return " ".join(f"{whom}, {text[:1].lower()}{text[1:]}" for whom, text in ordered)


OTHERWISE = "In the other cases"


def _whom(group: list[Ran], runs: list[Ran]) -> str:
    """Name what distinguishes a group of runs from the others: inferences, estimators, tests."""
    kinds: tuple[tuple[str, Callable[[Ran], str]], ...] = (
        ("", lambda run: run.name),
        ("", lambda run: run.result.estimator.title),
        ("the test of ", lambda run: run.test.name),
    )
    names_of_group = []
    for word, name_of in kinds:
        names = list(dict.fromkeys(map(name_of, group)))
        if len(names) < len(set(map(name_of, runs))):
            several = word and len(names) > 1
            names_of_group.append(f"{word.replace('test', 'tests') if several else word}{and_(names)}")
    return f"For {', '.join(names_of_group)}" if names_of_group else OTHERWISE


def _field_words(run: Ran, field: RandomFieldFacts) -> str:
    """State the null field, the smoothness and the size of the search."""
    origin = field.origin.replace("map(s)", "maps")
    return (
        f"Random field theory took the null for a {field.name}. Its smoothness, estimated from {origin}, was "
        f"{format_fwhm(field)} FWHM; the voxels searched hold {format_number(field.resels[-1])} resels."
    )


def _relabelling_words(run: Ran, resampling: ResamplingFacts) -> str:
    """State how maps were relabelled, how often, and what that takes for granted."""
    count = format_number(resampling.resamples)
    if resampling.exhaustive:
        drawn = f"all {count} distinct ones were used"
    else:
        seed = f" with seed {resampling.seed}" if resampling.seed is not None else ""
        drawn = f"{count} were used, the unchanged data and others drawn at random{seed}"
    relabelling = resampling.relabelling
    null = relabelling.null_hypothesis.replace("effects (residuals, in designs)", f"the {relabelling.of}")
    null = null.replace("the regressors", "residuals").replace("one of the clusters", f"one {run.noun}")
    way = describe_relabelling(relabelling).replace("participant (or cluster)", run.noun)
    return f"Relabellings were made by {way} (under the null, {null}); {drawn}."


def describe_relabelling(relabelling: Relabelling) -> str:
    """Say what a relabelling does."""
    way = (FLIPS if relabelling.flips else PERMUTATIONS)[relabelling.of]
    return way + WHOLE[relabelling.whole] + (", within blocks only" if relabelling.within else "")


FLIPS = {
    "maps": "flipping the signs of the maps",
    "residuals": "flipping the signs of the residuals under the null (Freedman and Lane)",
    "regressors": "flipping the signs of the tested regressors' rows, made orthogonal to the others",
}
PERMUTATIONS = {
    "residuals": "permuting the residuals under the null (Freedman and Lane)",
    "regressors": (
        "permuting the rows of the tested regressors, made orthogonal to the others, so that effect, variance and "
        "coverage of a map stayed together"
    ),
}
WHOLE = {
    "": "",
    "blocks": ", whole exchangeability blocks at a time",
    "clusters": ", all maps of a participant (or cluster) at a time",
}


def _in_one_null(runs: Sequence[Ran]) -> list[Ran]:
    """Leave out joint scores, whose smallest p `_joint_words` states, unless there are no others."""
    return [run for run in runs if (facts := run.find(ResamplingFacts)) and not facts.joint] or list(runs)


def _counting_words(run: Ran, resampling: ResamplingFacts) -> str:
    """State what a corrected p is, and how small it can be."""
    return (
        "The estimator was fitted anew in each relabelling and the largest score of the mask kept; a corrected p is "
        "the share of relabellings whose largest score reaches the observed one, and the smallest that can be reached "
        f"is {format_number(resampling.smallest_p)}."
    )


def _calibration_words(run: Ran, facts: CalibrationFacts) -> str:
    """State how p were calibrated."""
    return (
        "P values were calibrated by a parametric bootstrap: effects were drawn from normal distributions of mean 0 "
        "with the maps' own sampling variances plus the estimated tau2, variances anew where their dof are known, and "
        f"the model was fitted to them {format_number(facts.refits)} times. How much more often than it says a p "
        "comes up, over all voxels, was fitted by a line in the logarithms, and p were raised by it (never lowered)."
    )


def _symmetry_words(runs: Iterable[Ran]) -> str:
    """Say what flipping makes of the question of estimators with a fixed null."""
    resampled = ((run.result.estimator, run.find(ResamplingFacts)) for run in runs)
    names = list(
        dict.fromkeys(
            estimator.title
            for estimator, facts in resampled
            if estimator.fixed_null and facts is not None and facts.relabelling.flips
        )
    )
    if not names:
        return ""
    verb = "asks" if len(names) == 1 else "ask"
    return (
        f"With sign flips, {and_(names)} {verb} whether the z values of the maps are symmetric about zero, not "
        "whether each follows the standard normal distribution (a uniform p): a large z of a single map is then no "
        "evidence by itself, agreement in sign is."
    )


def _joint_words(runs: Iterable[Ran]) -> str:
    """Say of which scores surfaces and volumes were ranked apart."""
    found = [(run.name, facts) for run in runs if (facts := run.find(ResamplingFacts)) and facts.joint]
    if not found:
        return ""
    joint = and_(dict.fromkeys(name for name, _ in found))
    smallest = and_(dict.fromkeys(format_number(facts.smallest_p) for _, facts in found))
    return (
        f"Areas and volumes do not compare: for {joint} the largest score of surfaces and that of volumes were each "
        "ranked in a null of their own, from the same relabellings, and the smaller p of the two was the score to "
        "correct (Tippett's combination). The smallest p that can be reached whatever the other of the two holds is "
        f"{smallest}."
    )


def _tail_words(runs: Iterable[Ran]) -> str:
    """Say where p were extrapolated."""
    resampled = ((run.name, run.find(ResamplingFacts)) for run in runs)
    fitted = and_(dict.fromkeys(name for name, facts in resampled if facts is not None and facts.tail_fitted))
    if not fitted:
        return ""
    return (
        f"Where counting ends ({fitted}), p was taken from a generalised Pareto distribution fitted to the tail of "
        "the null."
    )


def _cluster_words(run: Ran, clusters: ClusterFacts) -> str:
    """State how clusters were formed, and what is measured of them."""
    height, one_sided = "", run.test.is_f or run.test.tail != "two-sided"
    if clusters.forming_z is not None:
        z = format_number(clusters.forming_z)
        negative = run.test.tail == "negative" and not run.test.is_f
        height = f" (z < −{z})" if negative else f" (z > {z})" if one_sided else f" (|z| > {z})"
    near = run.find(NeighbourFacts)
    neighbours = f" with {near.words} neighbours" if near is not None else ""
    measure = f"; {clusters.measure}" if clusters.measure else ""
    sign = "" if one_sided else " of one sign"
    return (
        f"Clusters were formed of voxels{sign} at uncorrected p < {format_fact(clusters.forming_p)}{height}"
        f"{neighbours}{measure}."
    )


def _own_words(run: Ran) -> str:
    """Fill the facts into an inference's own sentences."""
    facts = {key: format_fact(value) for key, value in sidecar_of(run.finding.facts).items()}
    level = run.find(LevelFacts)
    if level is not None:
        facts["Confidence"] = format_number(level.confidence)
    return run.finding.inference.words.format_map(facts)


def and_(parts: Iterable[str]) -> str:
    """Join as in a sentence: a, b and c."""
    *head, last = list(parts) or [""]
    return f"{', '.join(head)} and {last}" if head else last
