"""What a page tells the index about itself: what was found, warnings, a small picture, and how maps agree."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.results import Results
from ibma_app.report.figures.brains.plans import draw_thumbnail
from ibma_app.report.figures.picture import SIGNED, Scale
from ibma_app.report.maps import ResultMaps

Floats = NDArray[np.float64]

META = "ibma-app-card"
SCALE = Scale(-10.0, 10.0, SIGNED, "z", threshold=3.1)
"""Of thumbnails: |z| from which they show anything, and that of the darkest colours; one scale for all pages."""


@dataclass(frozen=True)
class Found:
    """What one inference found."""

    estimator: str
    test: str
    inference: str
    n_significant: int
    n_clusters: int | None


@dataclass(frozen=True)
class Card:
    """A page in short."""

    found: tuple[Found, ...] = ()
    n_warnings: int = 0
    thumbnail: tuple[str, ...] = ()  # pictures that lie on each other, as URIs
    agreement: Mapping[str, float] = field(default_factory=dict)  # participant -> correlation with the others' mean
    flagged: tuple[str, ...] = ()  # participants that stand out

    def to_json(self) -> str:
        """Write the card as an attribute of a page."""
        return json.dumps(asdict(self), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def read_card(text: str) -> Card:
    """Read a card; an empty one where the text is none."""
    try:
        content = json.loads(text)
        return Card(
            found=tuple(Found(**row) for row in content["found"]),
            n_warnings=int(content["n_warnings"]),
            thumbnail=tuple(uri for uri in content["thumbnail"] if str(uri).startswith("data:image/png;base64,")),
            agreement={str(key): float(value) for key, value in content["agreement"].items()},
            flagged=tuple(map(str, content["flagged"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Card()


def group_card(results: Results, estimators: Sequence[Mapping[str, Any]], n_warnings: int) -> Card:
    """Sum up a group page from its parts."""
    found = [
        Found(
            part["name"],
            test["label"],
            row.name,
            row.n_significant,
            row.clusters.n_clusters if row.clusters else None,
        )
        for part in estimators
        for test in part["tests"]
        for row in test["inferences"]
    ]
    agreement, flagged = _agreement(results)
    return Card(tuple(found), n_warnings, _first_picture(results), agreement, flagged)


def _first_picture(results: Results) -> tuple[str, ...]:
    """Draw what the first inference found that found something."""
    for result in results.estimators:
        seen = results.seen_by(result)
        for test in seen.design.tests:
            maps = ResultMaps(result, seen.grid, seen.design, test)
            for finding in maps.findings:
                mask = maps.volume("mask", finding.inference.name) if finding.n_significant else None
                z = None if mask is None else maps.volume("z")
                if mask is not None and z is not None:
                    return draw_thumbnail(seen.grid, np.where(mask > 0, z, 0.0), SCALE)
    return ()


def _agreement(results: Results) -> tuple[dict[str, float], tuple[str, ...]]:
    """How far each participant's map agrees with the others, and which stand out."""
    similar, rows = results.similarity, results.analysis.observations
    if similar is None or results.analysis.unit != "subject" or len(similar.agreement) != len(rows):
        return {}, ()
    lowest: dict[str, float] = {}
    for row, value in zip(rows, similar.agreement, strict=True):
        if value is not None:
            label = row.unit_label.removeprefix("sub-")
            lowest[label] = min(float(value), lowest.get(label, 1.0))
    flagged = dict.fromkeys(rows[one].unit_label.removeprefix("sub-") for flag in similar.flags for one in flag.rows)
    return lowest, tuple(flagged)


def participant_card(results: Sequence[Results], n_warnings: int) -> Card:
    """Sum up a participant's page: z of the first contrast."""
    first = results[0]
    maps = ResultMaps(first.estimators[0], first.grid, first.design, first.design.tests[0])
    z = maps.volume("z")
    return Card(n_warnings=n_warnings, thumbnail=() if z is None else draw_thumbnail(first.grid, z, SCALE))


def outliers_first(labels: Iterable[str], cards: Iterable[Card]) -> list[tuple[str, float | None, bool]]:
    """Order participants by how little their maps agree with the others' in any analysis: label, correlation, flagged.

    Those that stand out come first; those of which nothing is known keep their order, at the end.
    """
    lowest: dict[str, float] = {}
    flagged: set[str] = set()
    for card in cards:
        for label, value in card.agreement.items():
            lowest[label] = min(value, lowest.get(label, 1.0))
        flagged.update(card.flagged)
    rows = [(label, lowest.get(label), label in flagged) for label in labels]
    return sorted(rows, key=lambda row: (not row[2], row[1] is None, row[1] if row[1] is not None else 0.0))
