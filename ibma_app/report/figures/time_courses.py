"""What happens over a run: regressors with their events, motion with the volumes that are left out, correlations."""

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.bold_run import RunResults
from ibma_app.report.figures.picture import SIGNED, Panel, Scale, draw_bar
from ibma_app.report.figures.plot import Axis, Label, Plot, Shape, draw_axis, draw_heights, line, polyline
from ibma_app.report.figures.similarity import Matrix
from ibma_app.report.html import data_uri, encode_png

Floats = NDArray[np.float64]

LEFT, RIGHT, ROW, TOP = 150.0, 900.0, 46.0, 12.0
MOST_ROWS = 16  # regressors that are drawn
MOST_NAMES, LONGEST_NAME = 60, 22
MOTION_HEIGHT = 120.0


def draw_regressors(results: RunResults) -> Plot:
    """Draw the regressors of events over time, each with its events under it."""
    shown = results.conditions[:MOST_ROWS]
    times = results.frame_times
    x = _time_axis(times)
    bottom = TOP + ROW * len(shown)
    below, names = draw_axis(x, bottom + 4.0, "Time (s)", most=10)
    shapes, labels = [*below], [*names]
    for index, name in enumerate(shown):
        values = results.matrix[:, results.columns.index(name)]
        low, high = min(0.0, float(values.min())), max(float(values.max()), 1e-12)
        y = Axis(low, high, TOP + ROW * (index + 1) - 12.0, TOP + ROW * index + 4.0)
        shapes.append(Shape(line(x.start, y.at(0), x.stop, y.at(0)), "apart"))
        points = [(x.at(time), y.at(value)) for time, value in zip(times, values, strict=True)]
        shapes.append(Shape(polyline(points), "curve", name))
        shapes += _event_bars(results.events.get(name), x, TOP + ROW * (index + 1) - 9.0)
        labels.append(Label(LEFT - 10.0, (y.start + y.stop) / 2 + 4.0, _shorten(name), "end", title=name))
    more = f" The first {MOST_ROWS} of {len(results.conditions)}." if len(results.conditions) > MOST_ROWS else ""
    return Plot(
        width=RIGHT + 14.0,
        height=bottom + 44.0,
        shapes=tuple(shapes),
        labels=tuple(labels),
        alt="Regressors and events over time",
        figure="regressors",
        caption=f"The regressors of events, each on a scale of its own; bars under them are the events.{more}",
    )


def draw_motion(results: RunResults) -> Plot | None:
    """Draw motion over time, with the volumes that are left out; None where no motion is known."""
    if not results.motion:
        return None
    times = results.frame_times
    x = _time_axis(times)
    values = np.concatenate([np.nan_to_num(one) for one in results.motion.values()])
    y = Axis(min(0.0, float(values.min())), 1.05 * max(float(values.max()), 1e-6), TOP + MOTION_HEIGHT, TOP)
    below, names = draw_axis(x, TOP + MOTION_HEIGHT + 4.0, "Time (s)", most=10)
    beside, heights = draw_heights(y, LEFT, most=4)
    marks = [
        Shape(line(x.at(times[volume]), y.start, x.at(times[volume]), y.stop), "observed", f"volume {volume}: left out")
        for volume in results.scrubbed
    ]
    curves = [
        Shape(polyline([(x.at(t), y.at(v)) for t, v in zip(times, np.nan_to_num(one), strict=True)]), "whole", name)
        for name, one in results.motion.items()
    ]
    what = ", ".join(results.motion)
    count = len(results.scrubbed)
    gone = f" Marked: {count} volume(s) that are left out." if count else " No volume is left out."
    return Plot(
        width=RIGHT + 14.0,
        height=TOP + MOTION_HEIGHT + 44.0,
        shapes=(*below, *beside, *marks, *curves),
        labels=(*names, *heights, Label(LEFT - 60.0, TOP + MOTION_HEIGHT / 2, "mm", "middle", "upright")),
        alt=f"Motion over time: {what}",
        figure="motion",
        caption=f"{what[:1].upper()}{what[1:]} over time.{gone}",
    )


def draw_column_correlations(results: RunResults) -> Matrix:
    """Draw the correlations of the design's regressors: conditions and confounds."""
    names = [*results.conditions, *results.confounds]
    places = [results.columns.index(name) for name in names]
    values = _correlations(results.matrix[:, places])
    size = len(names)
    cell = max(4.0, min(22.0, 560.0 / max(size, 1)))
    scale = Scale(-1.0, 1.0, SIGNED, "correlation")
    every = max(1, -(-size // MOST_NAMES))
    shown = [(row, _shorten(name)) for row, name in enumerate(names) if row % every == 0 and cell >= 8.0]
    left = 14.0 + 6.6 * max((len(name) for _, name in shown), default=2)
    pixels = scale.index(np.nan_to_num(values), np.isfinite(values))
    width = max(left + cell * size + 12.0, 340.0)
    return Matrix(
        width=width,
        height=cell * size + 62.0,
        panel=Panel(data_uri(encode_png(pixels, scale.palette)), left, 8.0, cell * size, cell * size),
        labels=tuple(Label(left - 7.0, 8.0 + (row + 0.5) * cell + 4.0, name, "end") for row, name in shown),
        bar=draw_bar(scale, cell * size + 22.0, width),
        alt=f"Correlations of {size} columns of the design",
        caption="Correlations of the design's columns: the conditions first, then the confounds.",
    )


def _correlations(matrix: Floats) -> Floats:
    """Correlate columns; NaN where one is constant."""
    centred = matrix - matrix.mean(axis=0)
    sizes = np.sqrt((centred**2).sum(axis=0))
    with np.errstate(all="ignore"):
        found: Floats = (centred.T @ centred) / np.outer(sizes, sizes)
    return found


def _event_bars(events: Floats | None, x: Axis, y: float) -> list[Shape]:
    """Draw events as bars as wide as they last, at least a pixel."""
    if events is None or not len(events):
        return []
    parts = []
    for onset, duration in events:
        start, stop = x.clip(float(onset)), x.clip(float(onset + duration))
        if x.low <= onset <= x.high:
            parts.append(f"M{start:.1f} {y:.1f}h{max(stop - start, 1.2):.1f}v5h{-max(stop - start, 1.2):.1f}Z")
    return [Shape("".join(parts), "bars")] if parts else []


def _time_axis(times: Floats) -> Axis:
    return Axis(min(0.0, float(times[0])), float(times[-1]), LEFT, RIGHT)


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
