"""Facts of methods in a reader's words: what inferences and settings state under terse names."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ibma_app.core.inference_facts import (
    CalibrationFacts,
    CaveatFacts,
    ClusterFacts,
    ExtentFacts,
    Fact,
    Facts,
    LevelFacts,
    NeighbourFacts,
    RandomFieldFacts,
    Relabelling,
    ResamplingFacts,
    ThresholdFacts,
    WarningFact,
    find_fact,
)
from ibma_app.core.methods import Estimator
from ibma_app.report.html import format_fact, format_number, split_words

Labelled = tuple[str, str]


def describe_facts(facts: Iterable[Facts]) -> tuple[Labelled, ...]:
    """Give an inference's facts as label and text, in the order they came.

    What stands in other columns or at the top of the page is left out, and what is None.
    """
    return tuple(row for one in facts for row in DESCRIBED[type(one)](one))


def describe_control(facts: Iterable[Facts]) -> str:
    """Say what an inference keeps below which level; empty where it does not say."""
    level = find_fact(facts, LevelFacts)
    if level is None:
        return ""
    if level.is_bound:
        return f"{level.controls}, confidence {format_number(level.confidence)} %"
    return f"{level.controls} at most {format_number(level.alpha)}{level.not_held}"


def format_fwhm(field: RandomFieldFacts) -> str:
    """Write the smoothness along the three axes: ``14.2 × 14.2 × 14.5 mm``."""
    return f"{' × '.join(f'{width:.3g}' for width in field.fwhm)} mm"


def format_score(facts: ResamplingFacts) -> str:
    """Write the score that a significant one exceeds, with its units."""
    return f"{format_number(facts.score_threshold)}{f' {facts.score_units}' if facts.score_units else ''}"


def _level(facts: LevelFacts) -> list[Labelled]:
    tested = ("Voxels tested", format_number(facts.n_tests))
    extent = facts.min_extent
    return [tested, *([("Smallest cluster kept", f"{format_number(extent)} voxels")] if extent > 1 else [])]


def _threshold(facts: ThresholdFacts) -> list[Labelled]:
    p = facts.uncorrected_p
    return [] if p is None else [("Uncorrected p at the threshold", format_number(p))]


def _clusters(facts: ClusterFacts) -> list[Labelled]:
    height = f" ({facts.write_height(format_number(facts.forming_z))})" if facts.forming_z is not None else ""
    return [("Clusters formed at p", f"{format_number(facts.forming_p)}{height}")]


def _neighbours(facts: NeighbourFacts) -> list[Labelled]:
    if not facts.of_meshes:
        return [("Neighbours of a voxel", format_number(facts.neighbours))]
    return [("Neighbours", facts.words)]


def _random_field(facts: RandomFieldFacts) -> list[Labelled]:
    """Of the resels the volume's count: lower dimensions are in the sidecar."""
    rows = [
        ("Null", facts.name),
        ("FWHM", format_fwhm(facts)),
        ("Resels of the volume", format_number(facts.resels[-1])),
        ("Smoothness from", facts.origin),
    ]
    return rows + ([] if facts.height is None else [("Height needed to be significant", format_number(facts.height))])


def _extent(facts: ExtentFacts) -> list[Labelled]:
    rows = [
        ("Cluster-forming height", format_number(facts.forming_height)),
        ("Clusters expected by chance", format_number(facts.expected_clusters)),
        ("Voxels expected in each", format_number(facts.expected_voxels)),
    ]
    if facts.smallest_extent is not None:
        rows.append(("Needed to be significant", f"{format_number(facts.smallest_extent)} voxels or more"))
    return rows


def _relabelling(of: Relabelling) -> str:
    """Say what is relabelled; maps of one cluster (or block) that are relabelled alike are not clusters of voxels."""
    together = f"; all maps of one {of.whole.removesuffix('s')} alike" if of.whole else ""
    return replace(of, whole="").name + together


def _resampling(facts: ResamplingFacts) -> list[Labelled]:
    count = format_number(facts.resamples)
    seed = f", seed {facts.seed}" if facts.seed is not None else ""
    rows = [
        ("Relabellings", f"{count}, all distinct ones" if facts.exhaustive else f"{count}, drawn at random{seed}"),
        ("Relabelled by", _relabelling(facts.relabelling)),
        ("Null hypothesis", facts.relabelling.null_hypothesis),
        ("Smallest p that can be reached", format_number(facts.smallest_p)),
    ]
    if facts.score_threshold is not None:
        rows.append(("Needed to be significant", f"above {format_score(facts)}"))
    if facts.tail_fitted:
        rows.append(("Tail of the null", facts.sidecar()["TailFit"]))
    return rows


def _calibration(facts: CalibrationFacts) -> list[Labelled]:
    line = f"10^({facts.intercept:.3f} {facts.slope:+.3f} × -log10 p)"
    return [
        ("Calibrated by", f"{format_number(facts.refits)} refits of data simulated under the null"),
        ("p raised by", f"{line} times, never lowered"),
    ]


def _fact(fact: Fact) -> list[Labelled]:
    if fact.value is None:
        return []
    return [(fact.label or _capital(split_words(fact.key)), fact.words.format(_yes_no(fact.value)))]


def _caveat(fact: CaveatFacts) -> list[Labelled]:
    return [("Caveat", f"{fact.text[:1].upper()}{fact.text[1:]}.")]


def _warning(fact: WarningFact) -> list[Labelled]:
    """Write nothing: warnings stand at the top of the page."""
    return []


DESCRIBED: Mapping[type, Callable[[Any], list[Labelled]]] = {
    LevelFacts: _level,
    ThresholdFacts: _threshold,
    CaveatFacts: _caveat,
    ClusterFacts: _clusters,
    NeighbourFacts: _neighbours,
    RandomFieldFacts: _random_field,
    ExtentFacts: _extent,
    ResamplingFacts: _resampling,
    CalibrationFacts: _calibration,
    Fact: _fact,
    WarningFact: _warning,
}
"""Kind of facts -> what writes them."""


def describe_settings(estimator: Estimator, settings: Mapping[str, str]) -> tuple[Labelled, ...]:
    """Give an estimator's settings as label and text, in its record's words; without words by their names."""
    rows = []
    for name, value in settings.items():
        setting = estimator.settings.get(name)
        label = (setting.label if setting else "") or _capital(split_words(name))
        rows.append((label, setting.words.get(value, str(value)) if setting else str(value)))
    return tuple((label, text) for label, text in rows if text)


RUN_SETTINGS = {
    "cluster_p": "Cluster-forming p",
    "min_extent": "Smallest cluster kept (voxels)",
    "min_coverage": "Share of the maps that must cover a voxel",
    "units_policy": "Units, as asked for",
    "units": "Units of the effects",
    "smoothing": "Smoothing of effect maps (FWHM, mm)",
}
"""Option -> what it is called on a page."""


def settings_rows(settings: Mapping[str, Any]) -> list[Labelled]:
    """The settings of a run as label and text."""
    return [
        (RUN_SETTINGS.get(name) or _capital(split_words(name)), "default" if value is None else _yes_no(value))
        for name, value in settings.items()
    ]


def _yes_no(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else format_fact(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
