"""Plots of null distributions: the largest score of each relabelling, the observed score, and the threshold."""

import numpy as np

from ibma_app.core.inference_facts import ResamplingFacts, find_fact
from ibma_app.core.labels import camel_case
from ibma_app.core.results import Finding, NullShape
from ibma_app.report.figures.plot import Axis, Label, Plot, Shape, draw_axis, draw_heights, line, polyline
from ibma_app.report.html import format_number

FAR = 1.6
"""The axis is broken where the observed score exceeds the range of all others by this factor."""

LEFT, RIGHT, TOP, BOTTOM = 62.0, 420.0, 40.0, 208.0


def draw_null(finding: Finding, *, two_sided: bool) -> Plot | None:
    """Draw the null of one inference; None where it did not resample."""
    null = finding.null
    if null is None:
        return None
    inference = finding.inference
    resampling = find_fact(finding.facts, ResamplingFacts)
    own = resampling.score_label if resampling else ""
    name = own or inference.score_label or f"Largest score of {inference.name}"
    name = name if two_sided else name.replace("|z|", "z")
    end = max(null.high, null.threshold or 0.0)
    cut = null.observed > null.low + FAR * (end - null.low)
    stop = RIGHT - (54.0 if cut else 0.0)
    pad = 0.04 * ((end if cut else max(end, null.observed)) - null.low)
    x = Axis(null.low - pad, (end if cut else max(end, null.observed)) + pad, LEFT, stop)
    y = Axis(0.0, 1.06 * max(max(null.counts), 1), BOTTOM, TOP)
    below, names = draw_axis(x, BOTTOM, name)
    beside, heights = draw_heights(y, LEFT)
    observed = RIGHT - 14.0 if cut else x.at(null.observed)
    shapes = [Shape(_bars(null, x, y), "bars"), Shape(line(observed, BOTTOM, observed, TOP - 16.0), "observed")]
    labels = [_mark(observed, TOP - 21.0, f"observed {format_number(null.observed)}", "observed")]
    if null.threshold is not None:
        place = x.at(null.threshold)
        shapes.append(Shape(line(place, BOTTOM, place, TOP - 2.0), "expected"))
        labels.append(_mark(place, TOP - 6.0, f"significant above {format_number(null.threshold)}", "limit"))
    if cut:  # two strokes mark the break of the axis
        strokes = (line(stop + at, BOTTOM + 5.0, stop + at + 5.0, BOTTOM - 5.0) for at in (13.0, 19.0))
        shapes.append(Shape("".join(strokes) + line(stop + 30.0, BOTTOM, RIGHT, BOTTOM), "axis"))
    return Plot(
        width=RIGHT + 12.0,
        height=BOTTOM + 46.0,
        shapes=(*below, *beside, *shapes),
        labels=(*names, *heights, *labels, Label(LEFT - 42.0, (TOP + BOTTOM) / 2, "Relabellings", "middle", "upright")),
        alt=f"Null distribution of {inference.name}",
        figure=f"corr-{camel_case(inference.name)}_null",
        caption=_words(finding, null),
    )


def _bars(null: NullShape, x: Axis, y: Axis) -> str:
    """Outline of the histogram."""
    edges = [x.at(value) for value in np.linspace(null.low, null.high, len(null.counts) + 1)]
    corners = [(edges[0], BOTTOM)]
    for left, right, count in zip(edges[:-1], edges[1:], null.counts, strict=True):
        corners += [(left, y.at(count)), (right, y.at(count))]
    return polyline([*corners, (edges[-1], BOTTOM)], closed=True)


def _mark(x: float, y: float, text: str, style: str) -> Label:
    """Name a mark above the plot, on the side where there is room."""
    return Label(min(x, RIGHT), y, text, "end" if x > (LEFT + RIGHT) / 2 else "start", f"tick {style}-word")


def _words(finding: Finding, null: NullShape) -> str:
    """Write the caption, with the corrected p where it was counted (a fitted tail gives another)."""
    title = finding.inference.title[:1].upper() + finding.inference.title[1:]
    reached, total = format_number(null.reached), format_number(null.resamples)
    resampling = find_fact(finding.facts, ResamplingFacts)
    fitted = resampling is not None and resampling.tail_fitted
    p = "" if fitted else f": corrected p = {format_number(null.reached / null.resamples)}"
    beyond = null.resamples - sum(null.counts)
    tail = f" {format_number(beyond)} {'lies' if beyond == 1 else 'lie'} beyond the bars." if beyond else ""
    return (
        f"{title}: {reached} of {total} relabellings, the unchanged data included, reach the observed score{p}.{tail}"
    )
