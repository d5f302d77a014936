"""The sidecars of the files that are written."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.design import Design, Test
from ibma_app.core.estimate import Estimate, Significance
from ibma_app.core.inference_facts import sidecar_of
from ibma_app.core.methods import Citation, Inference
from ibma_app.core.results import MapFlag, MapSurvey
from ibma_app.core.statmap import Analysis, Publication
from ibma_app.dataset.query import SPACE_SOURCE
from ibma_app.workflows.command.log import software_versions

if TYPE_CHECKING:  # the run level plans no estimators, and stacks no maps
    from ibma_app.stream.stack import Stack
    from ibma_app.workflows.plan.choose_estimators import Choice

PREDICTION_HOLDS = (
    "(where effects differ it held 0.86 to 0.95 of new ones with 5 to 20 maps, with test z 0.81 to 0.93; at peaks, "
    "which are chosen for their effect, fewer)"
)
"""Measured by validation/mixed_models.py."""

DESCRIPTIONS = {
    "effect": "Effect (the combined contrast estimate)",
    "variance": "Sampling variance of the effect (squared standard error)",
    "t": "t statistic",
    "F": "F statistic",
    "z": "z statistic",
    "p": "Uncorrected p value",
    "log10p": "Uncorrected -log10 p",
    "n": "Number of maps that cover the voxel",
    "dof": "Degrees of freedom",
    "tau2": "Heterogeneity: variance of the true effects (tau squared), between studies, subjects or clusters",
    "sigma2": "Variance within subjects, studies or clusters (sigma squared)",
    "icc": "Intraclass correlation: share of the variance that lies between subjects, studies or clusters",
    "q": "Cochran's Q statistic of heterogeneity",
    "qlog10p": "-log10 p of Cochran's Q",
    "i2": "I squared: share of the variability that is heterogeneity, in percent",
    "omega2": "Variance of the true effects within clusters (omega squared)",
    "i2between": "I squared between clusters: share of the variability that lies between them, in percent",
    "i2within": "I squared within clusters: share of the variability that is heterogeneity of their maps, in percent",
    "h2": "H squared: total over typical sampling variability",
    "skewness": "Skewness of the residuals (symmetric noise has 0)",
    "pilower": f"Lower bound of the 95 % prediction interval of a new effect {PREDICTION_HOLDS}",
    "piupper": f"Upper bound of the 95 % prediction interval of a new effect {PREDICTION_HOLDS}",
    "g": "Hedges' g: effect over the standard deviation of maps about their means, small-sample factor included",
    "glower": "Lower end of the exact 95 % interval (noncentral t) of the population's standardised effect",
    "gupper": "Upper end of the exact 95 % interval (noncentral t) of the population's standardised effect",
    "lower": "Simultaneous lower bound of the effect",
    "upper": "Simultaneous upper bound of the effect",
    "eta2": "Partial eta squared: share of the variance that the tested columns explain",
    "eta2lower": "Lower end of the exact 95 % interval (noncentral F) of the population's partial eta squared",
    "eta2upper": "Upper end of the exact 95 % interval (noncentral F) of the population's partial eta squared",
    "tau2lower": "Lower bound of the 95 % confidence interval of tau squared (Q-profile)",
    "tau2upper": "Upper bound of the 95 % confidence interval of tau squared (Q-profile)",
}
STANDARD_SPACES = ("MNI", "IXI549Space", "ICBM", "Talairach", "fs", "OASIS", "NIHPD", "UNC", "WHS")  # BIDS knows these
SQUARED = ("variance", "tau2", "sigma2", "omega2", "tau2lower", "tau2upper")
IN_UNITS = ("effect", "pilower", "piupper", "lower", "upper")


def common_units(analysis: Analysis, policy: str) -> str:
    """Return the unit that the effects share, or ``unknown``."""
    if policy == "hedges-g":
        return "Hedges' g"
    found = {observation.units for observation in analysis.observations}
    return found.pop() if len(found) == 1 else "unknown"


def kind_units(kind: str, units: str) -> str:
    """Return the unit of a kind of map, given that of the effects."""
    if kind in IN_UNITS:
        return units
    if kind in SQUARED:
        return units if units == "unknown" else f"({units})^2"
    return "percent" if kind in ("i2", "i2between", "i2within") else "1"


def likely_same_samples(flags: Sequence[MapFlag], labels: Sequence[str]) -> dict[str, Any]:
    """Return the key for studies that look like the same people: a list of labels for each set; {} without any."""
    found = [[labels[row] for row in rows] for flag in flags if flag.kind == "sample" for rows in flag.groups]
    return {"LikelySameSample": found} if found else {}


def analysis_sidecar(
    analysis: Analysis,
    design: Design,
    stack: "Stack",
    choice: "Choice",
    units_policy: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Make the part of the sidecar that all files of one estimator share: where they come from."""
    survey = stack.survey
    sidecar: dict[str, Any] = {
        "Sources": [uri for row in survey for uri in row.uris],
        "Estimator": {
            "Name": choice.estimator.name,
            "Title": choice.estimator.title,
            "Settings": dict(choice.settings),
            "Citation": citations(choice.estimator.citations),
            "Reason": choice.reason,
        },
        "NumberOfMaps": len(survey),
    }
    if "contrast" in analysis.entities:
        sidecar["Contrast"] = analysis.full_labels.get("contrast", analysis.entities["contrast"])
    if analysis.full_labels:
        sidecar["FullLabels"] = dict(analysis.full_labels)
    stated = [o for o in analysis.observations if any(SPACE_SOURCE in m.metadata for m in o.statmaps.values())]
    if stated:
        source = next(m.metadata[SPACE_SOURCE] for m in stated[0].statmaps.values() if SPACE_SOURCE in m.metadata)
        sidecar[SPACE_SOURCE] = f"{source} ({len(stated)} of {len(analysis.observations)} maps state none)"
    names = {str(m.metadata["ContrastName"]) for o in analysis.observations for m in o.statmaps.values()
             if "ContrastName" in m.metadata}  # fmt: skip
    if len(names) == 1:
        sidecar["ContrastName"] = names.pop()
    sidecar["Formula"] = design.formula
    size = sample_size(analysis, design)
    if size is not None:
        sidecar["SampleSize"] = size
    if analysis.unit == "study":
        sidecar["UnitsPolicy"] = units_policy
    cited = {o.unit_label: o.publication for o in analysis.observations if o.publication is not None}
    if cited:
        sidecar["StudyReferences"] = [
            {"Study": label, **{key: value for key, value in _keys(publication).items() if value}}
            for label, publication in cited.items()
        ]
    reference = _spatial_reference(analysis, survey)
    if reference:
        sidecar["SpatialReference"] = reference
    sidecar |= stack.grid.sidecar
    if notes:
        sidecar["Warnings"] = list(dict.fromkeys(notes))
    sidecar["Derived"] = {row.label: list(row.derived) for row in survey if row.derived}
    sidecar["Software"] = software_versions()
    return sidecar


def _keys(publication: Publication) -> dict[str, str]:
    return {"DOI": publication.doi, "Authors": publication.authors, "Title": publication.title}


def _spatial_reference(analysis: Analysis, survey: Sequence[MapSurvey]) -> str | None:
    """Make ``SpatialReference``, which BIDS asks for in other spaces than its own: the inputs', else the first map."""
    stated = {str(m.metadata["SpatialReference"]) for o in analysis.observations for m in o.statmaps.values()
              if "SpatialReference" in m.metadata}  # fmt: skip
    if len(stated) == 1:
        return stated.pop()
    space = analysis.entities.get("space")
    if space is None or space.startswith(STANDARD_SPACES) or not survey[0].uris:
        return None
    return survey[0].uris[0]


def in_words_of(shape: Shape, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sidecar whose descriptions, of columns too, are in the words of a shape."""
    spoken: dict[str, Any] = {}
    for key, value in content.items():
        if key == "Description":
            value = shape.speak(value)
        spoken[key] = in_words_of(shape, value) if isinstance(value, Mapping) and "Description" in value else value
    return spoken


def sample_size(analysis: Analysis, design: Design) -> float | int | None:
    """Count the people behind a result: 1, the number of subjects, or the sum of the studies' sample sizes.

    Studies of one cluster share a sample: the largest of them counts.
    """
    if analysis.level == "participant":
        return 1
    if analysis.unit == "subject":
        return len({observation.unit_label for observation in analysis.observations})
    sizes = [observation.sample_size for observation in analysis.observations]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    labels = [o.unit_label for o in analysis.observations] if design.clusters is None else design.clusters.tolist()
    largest: dict[object, float] = {}
    for label, size in zip(labels, known, strict=True):
        largest[label] = max(size, largest.get(label, 0.0))
    total = sum(largest.values())
    return int(total) if float(total).is_integer() else total


def map_sidecar(common: Mapping[str, Any], kind: str, units: str, *, test: Test | None, design: Design,
                dof: float | str | None, tail: str | None) -> dict[str, Any]:  # fmt: skip
    """Make the sidecar of one map: the common part, and its own."""
    sidecar: dict[str, Any] = {
        "Description": f"{DESCRIPTIONS[kind]}, by {common['Estimator']['Title']}.",
        **common,
    }
    if test is not None:
        sidecar["Test"] = test.name
        if test.title not in ("", test.name):
            sidecar["TestName"] = test.title
        sidecar["TestWeights"] = [
            {column: float(w) for column, w in zip(design.columns, row, strict=True) if w} for row in test.weights
        ]
        sidecar["Tail"] = tail
        if test.of:
            sidecar["ConjunctionOf"] = list(test.of)
    sidecar["Units"] = kind_units(kind, units)
    if dof is not None:
        sidecar["DegreesOfFreedom"] = dof
    return sidecar


def inference_sidecar(inference: Inference, significance: Significance) -> dict[str, Any]:
    """Make the ``Inference`` key: what was corrected for, and how."""
    return {
        "Inference": {
            "Name": inference.name,
            "Title": inference.title,
            **sidecar_of(significance.facts),
            "ZThreshold": significance.z_threshold,
            "Citation": citations(inference.citations),
        }
    }


def citations(sources: Sequence[Citation]) -> list[str]:
    """Write citations as lines."""
    return [source.text for source in sources]


def constant_dof(estimate: Estimate, test: Test | None = None) -> float | str | None:
    """Return the dof of a test (None: of all tests): a number, "voxelwise", or None when there are none."""
    if test is not None and test.of:
        return None  # of the minimum of several statistics
    dof = estimate.dof if test is None else estimate.dof_of(test.name)
    if dof is None:
        return None
    there = np.unique(dof[(estimate.n > 0) & (dof > 0)])
    there = there[np.isfinite(there)]
    if there.size == 0:
        return None
    if there.size > 1:
        return "voxelwise"
    value = float(there[0])
    return int(value) if value.is_integer() else value
