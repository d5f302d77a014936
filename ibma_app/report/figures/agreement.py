"""Agreement of several estimators: z against z, and the voxels that both find significant."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.design import Test
from ibma_app.core.labels import camel_case
from ibma_app.core.results import EstimatorResult, Results
from ibma_app.report.figures.picture import Panel, palette_of
from ibma_app.report.figures.plot import Axis, Label, Plot, Shape, draw_axis, draw_heights, line
from ibma_app.report.html import data_uri, encode_png
from ibma_app.report.maps import ResultMaps

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_PAIRS = 10
"""With more pairs, only those with the first estimator."""
MOST_DRAWN = 4
BINS = 90
SIZE, LEFT, TOP = 220.0, 62.0, 12.0


@dataclass(frozen=True)
class Overlap:
    """What one inference finds by two estimators, at the voxels that both analysed."""

    inference: str
    both: int
    first: int  # by the first alone
    second: int

    @property
    def dice(self) -> float | None:
        """Dice coefficient; None where neither finds anything."""
        total = 2 * self.both + self.first + self.second
        return 2 * self.both / total if total else None


@dataclass(frozen=True)
class Pair:
    """Two estimators on one test."""

    first: str
    second: str
    n_voxels: int  # that both analysed
    correlation: float | None  # of z; None where one of them is constant
    overlaps: tuple[Overlap, ...]
    plot: Plot | None


@dataclass(frozen=True)
class Agreement:
    """All pairs of estimators on one test."""

    test: str
    pairs: tuple[Pair, ...]
    left_out: bool  # pairs without the first estimator exist, and are not listed


def view_agreement(results: Results, most_tests: int) -> tuple[Agreement, ...]:
    """Compare the estimators of an analysis on its first tests; () where there is only one."""
    if len(results.estimators) < 2:
        return ()
    return tuple(_compare(results, test) for test in results.design.tests[:most_tests])


def _compare(results: Results, test: Test) -> Agreement:
    everyone = [_maps(result, results, test) for result in results.estimators]
    able = [maps for maps in everyone if maps.path("z") is not None]
    pairs = list(itertools.combinations(able, 2))
    few = pairs if len(pairs) <= MOST_PAIRS else [(able[0], other) for other in able[1:]]
    return Agreement(
        test=test.name,
        pairs=tuple(_pair(first, second, drawn=n < MOST_DRAWN) for n, (first, second) in enumerate(few)),
        left_out=len(few) < len(pairs),
    )


def _maps(result: EstimatorResult, results: Results, test: Test) -> ResultMaps:
    return ResultMaps(result, results.seen_by(result).grid, results.design, test)


def _pair(first: ResultMaps, second: ResultMaps, *, drawn: bool) -> Pair:
    shared = first.grid.mask & second.grid.mask
    one, two = first.volume("z"), second.volume("z")
    assert one is not None  # checked by _compare
    assert two is not None
    a, b = one[shared], two[shared]
    names = first.result.estimator.name, second.result.estimator.name
    varies = a.size > 1 and float(np.ptp(a)) > 0 and float(np.ptp(b)) > 0
    return Pair(
        *names,
        n_voxels=int(a.size),
        correlation=float(np.corrcoef(a, b)[0, 1]) if varies else None,
        overlaps=_overlaps(first, second, shared),
        plot=_draw(a, b, names) if drawn and varies else None,
    )


def _overlaps(first: ResultMaps, second: ResultMaps, shared: Bools) -> tuple[Overlap, ...]:
    """Count significant voxels, by every inference that both had."""
    found = []
    for name in dict.fromkeys(finding.inference.name for finding in first.findings):
        one, two = first.volume("mask", name), second.volume("mask", name)
        if one is None or two is None:
            continue
        a, b = one[shared] > 0, two[shared] > 0
        found.append(
            Overlap(
                inference=name,
                both=int(np.count_nonzero(a & b)),
                first=int(np.count_nonzero(a & ~b)),
                second=int(np.count_nonzero(b & ~a)),
            )
        )
    return tuple(found)


def _draw(a: Floats, b: Floats, names: Sequence[str]) -> Plot:
    """Draw z against z as a cloud whose colour is the number of voxels."""
    low, high = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    across, up = Axis(low, high, LEFT, LEFT + SIZE), Axis(low, high, TOP + SIZE, TOP)
    counts, _, _ = np.histogram2d(b, a, bins=BINS, range=((low, high), (low, high)))
    share = np.log1p(counts) / np.log1p(counts.max())
    pixels = np.where(counts > 0, 1 + np.rint(254 * share), 0).astype(np.uint8)[::-1]
    uri = data_uri(encode_png(np.ascontiguousarray(pixels), palette_of("viridis")))
    shapes, labels = draw_axis(across, TOP + SIZE, f"z of {names[0]}", 5)
    more = draw_heights(up, LEFT, 5)
    # both axes have one scale: equal z lie on the diagonal
    shapes += [*more[0], Shape(line(LEFT, TOP + SIZE, LEFT + SIZE, TOP), "whole")]
    labels += [*more[1], Label(14.0, TOP + SIZE / 2, f"z of {names[1]}", "middle", "upright")]
    return Plot(
        width=LEFT + SIZE + 12.0,
        height=TOP + SIZE + 40.0,
        shapes=tuple(shapes),
        labels=tuple(labels),
        alt=f"z of {names[1]} against z of {names[0]}",
        figure=camel_case(f"z-of-{names[1]}-against-z-of-{names[0]}"),
        panels=(Panel(uri, LEFT, TOP, SIZE, SIZE),),
    )
