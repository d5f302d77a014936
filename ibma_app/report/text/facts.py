"""Facts of methods in a reader's words: what inferences and settings tell under terse names."""

from collections.abc import Callable, Mapping
from typing import Any

from ibma_app.core.methods import Estimator
from ibma_app.report.html import format_fact, format_number, split_words

Told = tuple[str, str]

WARNINGS = ("Warning", "Note")
"""Facts that are warnings: they stand at the top of the page."""

ELSEWHERE = (
    *WARNINGS,
    "Alpha",
    "Controls",
    "FWHMUnits",
    "ScoreUnits",
    "Exhaustive",
    "Seed",
    "ClusterFormingZ",
)
"""Facts that other columns, other facts or the top of the page tell."""

LABELS = {
    "NumberOfTests": "Voxels tested",
    "PThreshold": "Uncorrected p at the threshold",
    "NumberOfClusters": "Clusters formed",
    "RandomField": "Null",
    "SmoothnessFrom": "Smoothness from",
    "HeightThreshold": "Height that is significant",
    "ClusterFormingHeight": "Cluster-forming height",
    "ExpectedClusters": "Clusters expected by chance",
    "ExpectedVoxelsPerCluster": "Voxels expected in each",
    "Scheme": "Relabelled by",
    "NullHypothesis": "Null hypothesis",
    "SmallestP": "Smallest p that can be reached",
    "ExtentExponent": "Extent exponent E",
    "HeightExponent": "Height exponent H",
    "HommelValue": "Hommel's value",
    "NumberOfVoxelsWithAdjustedP": "Voxels significant by Hommel's p",
    "TailFit": "Tail of the null",
}
"""Fact -> what it is called on a page; others are called by their name's words."""


def describe_facts(facts: Mapping[str, Any]) -> tuple[Told, ...]:
    """Give an inference's facts as label and text, in the order they came.

    Facts that this version does not know keep their own name, so that a new
    method's are shown too.
    """
    told = []
    for key, value in facts.items():
        if key in ELSEWHERE or value is None:
            continue
        if key in COMPOSED:
            told.append(COMPOSED[key](facts))
        else:
            label = LABELS.get(key) or _capital(split_words(key))
            told.append((label, _yes_no(value)))
    return tuple(told)


def describe_control(facts: Mapping[str, Any]) -> str:
    """Say what an inference keeps below which level; empty where it does not tell."""
    control, level = facts.get("Controls"), facts.get("Alpha")
    if not control or level is None:
        return ""
    if str(control).startswith("true-discovery"):  # ari: a bound, not a rate
        return f"{control}, confidence {format_number(100 * (1 - level))} %"
    return f"{control} at most {format_number(level)}"


def format_fwhm(facts: Mapping[str, Any]) -> str:
    """Write the smoothness along the three axes: ``14.2 × 14.2 × 14.5 mm``."""
    widths = " × ".join(f"{float(width):.3g}" for width in facts["FWHM"])
    return f"{widths} {facts.get('FWHMUnits', 'mm')}"


def _resels(facts: Mapping[str, Any]) -> Told:
    """The volume's count; lower dimensions are in the sidecar."""
    counts = facts["Resels"]
    volume = counts[-1] if isinstance(counts, list | tuple) and counts else counts
    return "Resels of the volume", format_number(volume)


def _resamples(facts: Mapping[str, Any]) -> Told:
    if facts.get("Exhaustive"):
        return "Relabellings", f"{format_number(facts['Resamples'])}, all distinct ones"
    seed = f", seed {facts['Seed']}" if facts.get("Seed") is not None else ""
    return "Relabellings", f"{format_number(facts['Resamples'])}, drawn at random{seed}"


def _forming(facts: Mapping[str, Any]) -> Told:
    z = facts.get("ClusterFormingZ")
    height = f" (|z| > {format_number(z)})" if z is not None else ""
    return "Clusters formed at p", f"{format_number(facts['ClusterFormingP'])}{height}"


def _score(facts: Mapping[str, Any]) -> Told:
    units = f" {facts['ScoreUnits']}" if facts.get("ScoreUnits") else ""
    return "Score that is significant", f"above {format_number(facts['ScoreThreshold'])}{units}"


COMPOSED: Mapping[str, Callable[[Mapping[str, Any]], Told]] = {
    "FWHM": lambda facts: ("FWHM", format_fwhm(facts)),
    "Resels": _resels,
    "Resamples": _resamples,
    "ScoreThreshold": _score,
    "ClusterFormingP": _forming,
    "Connectivity": lambda facts: ("Neighbours of a voxel", format_number(facts["Connectivity"])),
    "ExtentThreshold": lambda facts: (
        "Extent that is significant",
        f"{format_number(facts['ExtentThreshold'])} voxels or more",
    ),
    "TrueDiscoveries": lambda facts: (
        "Truly active in the whole mask",
        f"at least {format_number(facts['TrueDiscoveries'])} voxels",
    ),
}
"""Facts that are told together with others, or with their units."""


def describe_settings(estimator: Estimator, settings: Mapping[str, str]) -> tuple[Told, ...]:
    """Give an estimator's settings as label and text, in its record's words; without words by their names."""
    told = []
    for name, value in settings.items():
        setting = estimator.settings.get(name)
        label = (setting.label if setting else "") or _capital(split_words(name))
        told.append((label, setting.words.get(value, str(value)) if setting else str(value)))
    return tuple((label, text) for label, text in told if text)


RUN_SETTINGS = {
    "cluster_p": "Cluster-forming p",
    "min_extent": "Smallest cluster kept (voxels)",
    "min_coverage": "Share of the maps that must cover a voxel",
    "units_policy": "Units, as asked for",
    "units": "Units of the effects",
    "smoothing": "Smoothing of effect maps (FWHM, mm)",
}
"""Option -> what it is called on a page."""


def settings_rows(settings: Mapping[str, Any]) -> list[Told]:
    """The settings of a run as label and text."""
    return [
        (RUN_SETTINGS.get(name) or _capital(split_words(name)), "default" if value is None else _yes_no(value))
        for name, value in settings.items()
    ]


def _yes_no(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else format_fact(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
