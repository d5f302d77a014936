"""Whether an image holds the kind of map that its name says."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError
from ibma_app.core.statmap import Observation, StatMap

TAILS = ("two-sided", "positive", "negative")
ONE_MINUS_P = re.compile(
    r"(?<![a-z0-9])(1|one)[-_ ]*(-|minus|m)[-_ ]*p(?![a-z0-9])|oneminusp(?![a-z])|(?<![a-z])corrp(?![a-z])",
    re.IGNORECASE,
)
"""Names of 1 - p in file names and sidecars; FSL's randomise calls it corrp."""


def check_p(observation: Observation, values: NDArray[Any]) -> None:
    """Refuse a p map that is 1 - p by its name or sidecar, has values outside 0 to 1, or an unknown tail."""
    statmap = observation.statmaps["p"]
    texts = [statmap.path.name, *_strings(statmap), str(observation.tail or "")]
    if any(ONE_MINUS_P.search(text) for text in texts):
        raise DataError(
            f"{statmap.path} is a map of 1 - p, by its name or sidecar: its largest values would be taken for the "
            "weakest. Save 1 minus its values as stat-p, or share the z or t map."
        )
    if observation.tail not in (None, *TAILS):
        raise DataError(
            f"{statmap.path}: the Tail {observation.tail!r} of its sidecar is unknown. Choose from: {', '.join(TAILS)}."
        )
    finite = values[np.isfinite(values)]
    if finite.size and (finite.min() < 0 or finite.max() > 1):
        raise DataError(
            f"{statmap.path} is no p map: its values run from {finite.min():.3g} to {finite.max():.3g}. "
            "(-log10 p? Save 10 to the power of minus its values as stat-p, or share the z or t map.)"
        )


def _strings(statmap: StatMap) -> list[str]:
    """Collect the texts that may say what a p map holds."""
    keys = ("Description", "StatisticType", "Statistic", "Tail", "ContrastName", "name")
    texts = [str(statmap.metadata[key]) for key in keys if key in statmap.metadata]
    return texts + [Path(label).name for label in statmap.entities.values()]
