"""Plots as shapes and labels, which the templates write as SVG, and axes with round numbers."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ibma_app.report.figures.picture import Panel

MINUS = "\N{MINUS SIGN}"

Writer = Callable[[float], str]


@dataclass(frozen=True)
class Shape:
    """A path; its style is a class of the stylesheet."""

    d: str
    style: str
    title: str = ""  # tooltip


@dataclass(frozen=True)
class Label:
    """Text at a position."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    style: str = "tick"
    title: str = ""


@dataclass(frozen=True)
class Plot:
    """A figure made of shapes and labels."""

    width: float
    height: float
    shapes: tuple[Shape, ...]
    labels: tuple[Label, ...]
    alt: str
    figure: str  # how its file's name ends
    panels: tuple[Panel, ...] = ()  # pictures under the shapes
    caption: str = ""


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` along pixels from ``start`` to ``stop``."""

    low: float
    high: float
    start: float
    stop: float

    def at(self, value: float) -> float:
        """The pixel of a value, whether it is on the axis or not."""
        return self.start + (self.stop - self.start) * (value - self.low) / (self.high - self.low)

    def holds(self, value: float) -> bool:
        """Whether a value is on the axis."""
        return self.low <= value <= self.high

    def clip(self, value: float) -> float:
        """The pixel of a value, at the axis's end where it lies beyond."""
        return self.at(min(max(value, self.low), self.high))

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers on the axis, 0 among them where it is on it."""
        raw = (self.high - self.low) / max(1, most - 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * size for size in (1.0, 2.0, 2.5, 5.0, 10.0) if power * size >= raw * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def span_axis(values: Iterable[float], start: float, stop: float, margin: float = 0.04) -> Axis:
    """Make an axis that holds all values, and a little more."""
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    room = margin * (high - low) or abs(high) * 0.1 or 1.0
    return Axis(low - room, high + room, start, stop)


def writer(values: Iterable[float], digits: int = 3) -> Writer:
    """Choose one format for numbers of a kind: ``digits`` of the largest; powers of ten when extreme."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    if not -4 < power < 6:
        return lambda value: f"{value:.{digits - 1}e}".replace("-", MINUS)
    places = max(0, digits - 1 - power)

    def write(value: float) -> str:
        text = f"{value:,.{places}f}"
        return text.lstrip("-") if not text.strip("-0.,") else text.replace("-", MINUS)

    return write


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    """Path of a line."""
    return f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"


def polyline(points: Iterable[tuple[float, float]], *, closed: bool = False) -> str:
    """Path through points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if closed else "")


def square(x: float, y: float, size: float) -> str:
    """Path of a square around a point."""
    return f"M{x - size / 2:.1f} {y - size / 2:.1f}h{size:.1f}v{size:.1f}h{-size:.1f}Z"


def dots(points: Iterable[tuple[float, float]]) -> str:
    """Path of dots, which are its round line ends: the shortest way to write thousands."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)


def diamond(low: float, middle: float, high: float, y: float, half: float) -> str:
    """Path of a diamond from ``low`` to ``high`` whose height is at ``middle``."""
    return polyline([(low, y), (middle, y - half), (high, y), (middle, y + half)], closed=True)


def draw_axis(axis: Axis, y: float, name: str, most: int = 6) -> tuple[list[Shape], list[Label]]:
    """Draw an axis along x with its ticks, its numbers and its name under them."""
    ticks = axis.ticks(most)
    write = writer(ticks, 2) if len(ticks) < 2 else _tick_writer(ticks)
    path = line(axis.start, y, axis.stop, y) + "".join(line(axis.at(tick), y, axis.at(tick), y + 4) for tick in ticks)
    labels = [Label(axis.at(tick), y + 16, write(tick), "middle") for tick in ticks]
    return [Shape(path, "axis")], [*labels, Label((axis.start + axis.stop) / 2, y + 33, name, "middle")]


def draw_heights(axis: Axis, x: float, most: int = 6) -> tuple[list[Shape], list[Label]]:
    """Draw an axis along y with its ticks and numbers at its left."""
    ticks = axis.ticks(most)
    write = _tick_writer(ticks)
    path = line(x, axis.start, x, axis.stop) + "".join(line(x - 4, axis.at(tick), x, axis.at(tick)) for tick in ticks)
    return [Shape(path, "axis")], [Label(x - 7, axis.at(tick) + 4, write(tick), "end") for tick in ticks]


def _tick_writer(ticks: list[float]) -> Writer:
    """Write ticks with the decimals that their step needs."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=abs(ticks[0]) if ticks else 1.0) or 1.0
    largest = max((abs(tick) for tick in ticks), default=1.0)
    if largest >= 1e6 or step < 1e-4:
        return lambda value: f"{value:.3g}".replace("-", MINUS) if abs(value) > step / 2 else "0"
    places = next(p for p in range(8) if abs(round(step, p) - step) <= 1e-6 * step)
    return lambda value: f"{value if abs(value) > step / 2 else 0.0:,.{places}f}".replace("-", MINUS)
