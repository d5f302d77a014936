"""Methods text on significance: how it was decided, in sentences that fit each inference as it ran."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ibma_app.core.results import EstimatorResult, Finding, Results
from ibma_app.report.html import format_fact, format_number
from ibma_app.report.text.facts import format_fwhm


@dataclass(frozen=True)
class Ran:
    """One inference as it ran on one test of one estimator."""

    result: EstimatorResult
    finding: Finding

    @property
    def facts(self) -> Mapping[str, Any]:
        """What it told."""
        return self.finding.facts

    @property
    def name(self) -> str:
        """The inference's."""
        return self.finding.inference.name


def decision_paragraph(results: Results) -> str:
    """Say how significance was decided; empty where it was not.

    Numbers that differ between tests or estimators are given for each.
    """
    runs = [Ran(result, finding) for result in results.estimators for finding in result.findings]
    if not runs:
        return ""
    parts = [_opening(results, runs)]
    by_field = [run for run in runs if "RandomField" in run.facts]
    if by_field:
        parts.append(_each(by_field, _field_words))
    by_relabelling = [run for run in runs if "Scheme" in run.facts]
    if by_relabelling:
        parts.append(_each(by_relabelling, lambda run: _scheme_words(run, results)))
        parts.append(_each(by_relabelling, _counting_words))
        parts.append(_symmetry_words(by_relabelling))
        parts.append(_tail_words(by_relabelling))
    formed = [run for run in runs if "ClusterFormingP" in run.facts]
    if formed:
        parts.append(_each(formed, _cluster_words))
    worded = [run for run in runs if run.finding.inference.words]
    for name in dict.fromkeys(run.name for run in worded):
        parts.append(_each([run for run in worded if run.name == name], _own_words))
    extent = results.settings.get("min_extent")
    if isinstance(extent, int) and extent > 1:
        parts.append(f"Clusters of fewer than {extent} voxels were left out of tables and thresholded maps.")
    return " ".join(part for part in parts if part)


def _opening(results: Results, runs: Iterable[Ran]) -> str:
    """Name each inference once, with level and tail."""
    titles = {run.name: run.finding.inference.title for run in runs}
    settings = results.settings
    text = "Significance was decided"
    if settings.get("alpha") is not None:
        text += f" at alpha = {format_number(settings['alpha'])}"
    if settings.get("tail"):
        text += f" ({settings['tail']}; F tests are always upper-tail)"
    text += f" by {and_(f'{title} [{name}]' for name, title in titles.items())},"
    return f"{text} separately for each test, over the voxels of the mask where the test can be estimated."


def _each(runs: list[Ran], describe: Callable[[Ran], str]) -> str:
    """Describe runs: one sentence where all are alike, else one for each set of them that are."""
    alike: dict[str, list[Ran]] = {}
    for run in runs:
        alike.setdefault(describe(run), []).append(run)
    if len(alike) == 1:
        return next(iter(alike))
    return " ".join(f"{_whom(group, runs)}, {text[:1].lower()}{text[1:]}" for text, group in alike.items())


def _whom(group: list[Ran], runs: list[Ran]) -> str:
    """Name what tells a group of runs from the others: inferences, estimators, tests."""
    kinds: tuple[tuple[str, Callable[[Ran], str]], ...] = (
        ("", lambda run: run.name),
        ("", lambda run: run.result.estimator.name),
        ("test ", lambda run: run.finding.test),
    )
    told = []
    for word, name_of in kinds:
        names = list(dict.fromkeys(map(name_of, group)))
        if len(names) < len(set(map(name_of, runs))):
            told.append(f"{word}{and_(names)}")
    return f"For {', '.join(told)}" if told else "For others"


def _field_words(run: Ran) -> str:
    """State the null field, the smoothness and the size of the search."""
    facts = run.facts
    resels = facts["Resels"][-1]
    return (
        f"Random field theory took the null for a {facts['RandomField']}. Its smoothness, estimated from "
        f"{facts['SmoothnessFrom']}, was {format_fwhm(facts)} FWHM; the voxels searched hold "
        f"{format_number(resels)} resels."
    )


SCHEMES = (
    ("sign flips of residuals", "flipping the signs of the residuals under the null (Freedman and Lane)"),
    ("permutations (Freedman-Lane)", "permuting the residuals under the null (Freedman and Lane)"),
    (
        "permutations of the tested regressors",
        "permuting the rows of the tested regressors, made orthogonal to the others, so that effect, variance and "
        "coverage of a map stayed together",
    ),
)
"""How a scheme begins -> how it is told."""

REACHES = (
    (" of whole blocks", ", whole exchangeability blocks at a time"),
    (" of whole clusters", ", all maps of a participant (or cluster) at a time"),
    (" within blocks", ", within blocks only"),
)


def _scheme_words(run: Ran, results: Results) -> str:
    """State how maps were relabelled, how often, and what that takes for granted."""
    facts = run.facts
    count = format_number(facts["Resamples"])
    if facts.get("Exhaustive"):
        drawn = f"all {count} distinct ones were used"
    else:
        seed = f" with seed {facts['Seed']}" if facts.get("Seed") is not None else ""
        drawn = f"{count} were used, the unchanged data and others drawn at random{seed}"
    scheme = scheme_words(str(facts["Scheme"]), one_sample=results.design.one_sample)
    taken = f" (under the null, {facts['NullHypothesis']})" if facts.get("NullHypothesis") else ""
    return f"Relabellings were made by {scheme}{taken}; {drawn}."


def _counting_words(run: Ran) -> str:
    """State what a corrected p is, and how small it can be."""
    return (
        "The estimator was fitted anew in each relabelling and the largest score of the mask kept; a corrected p is "
        "the share of relabellings whose largest score reaches the observed one, and the smallest that can be reached "
        f"is {format_number(run.facts['SmallestP'])}."
    )


def scheme_words(scheme: str, *, one_sample: bool) -> str:
    """Tell a resampling scheme in words; one that is not known by its own name."""
    reach = "".join(words for part, words in REACHES if part in scheme)
    for begin, words in SCHEMES:
        if scheme.startswith(begin):
            return words + reach
    if scheme.startswith("sign flips"):
        if one_sample:
            return f"flipping the signs of the maps{reach}"
        return f"flipping the signs of the tested regressors' rows, made orthogonal to the others{reach}"
    return scheme


def _symmetry_words(runs: list[Ran]) -> str:
    """Say what flipping makes of the question of estimators that combine z or p."""
    flipped = [run for run in runs if str(run.facts["Scheme"]).startswith("sign flips")]
    names = dict.fromkeys(run.result.estimator.name for run in flipped if run.result.estimator.fixed_null)
    if not names:
        return ""
    verb = "asks" if len(names) == 1 else "ask"
    return (
        f"With sign flips, {and_(names)} {verb} whether the z values of the maps are symmetric about zero, not "
        "whether each follows the standard normal distribution (a uniform p): a large z of a single map is then no "
        "evidence by itself, agreement in sign is."
    )


def _tail_words(runs: list[Ran]) -> str:
    fitted = and_(dict.fromkeys(run.name for run in runs if run.facts.get("TailFit")))
    if not fitted:
        return ""
    return (
        f"Where counting ends ({fitted}), p was taken from a generalised Pareto distribution fitted to the tail of "
        "the null."
    )


def _cluster_words(run: Ran) -> str:
    """State how clusters were formed, and what is measured of them."""
    facts = run.facts
    height = f" (|z| > {format_number(facts['ClusterFormingZ'])})" if facts.get("ClusterFormingZ") is not None else ""
    neighbours = f" with {facts['Connectivity']} neighbours" if facts.get("Connectivity") is not None else ""
    measure = {
        "cluster-size": "; their size is their number of voxels",
        "cluster-mass": "; their mass is the sum of |z| above that threshold",
    }.get(run.name, "")
    return (
        f"Clusters were formed of voxels of one sign at uncorrected p < {format_fact(facts['ClusterFormingP'])}{height}"
        f"{neighbours}{measure}."
    )


def _own_words(run: Ran) -> str:
    """Fill the facts into an inference's own sentences."""
    told = {key: format_fact(value) for key, value in run.facts.items()}
    if "Alpha" in run.facts:
        told["Confidence"] = format_number(100 * (1 - float(run.facts["Alpha"])))
    return run.finding.inference.words.format_map(told)


def and_(parts: Iterable[str]) -> str:
    """Join as in a sentence: a, b and c."""
    *head, last = list(parts) or [""]
    return f"{', '.join(head)} and {last}" if head else last
