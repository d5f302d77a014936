"""Pictures as the templates draw them, and the colour scales of maps."""

import functools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.report.html import data_uri, encode_png

Floats = NDArray[np.float64]

SIGNED, ONE_WAY = "RdBu_r", "viridis"
"""Colour maps of values with two directions, and with one."""


@dataclass(frozen=True, eq=False)
class Scale:
    """How values become colours: entries 1 to 255 of a palette; 0 is transparent."""

    low: float
    high: float
    colours: str  # matplotlib's name of the colour map
    label: str  # quantity and units
    threshold: float | None = None  # values below it (of a signed scale: |values|) are not shown
    clips: tuple[bool, bool] = (False, False)  # values lie below low, above high

    @property
    def palette(self) -> NDArray[np.uint8]:
        """The colours, (256, 4)."""
        return palette_of(self.colours)

    @property
    def signed(self) -> bool:
        """Whether values have two directions, each with its colour."""
        return self.low < 0 < self.high and self.colours == SIGNED

    def passes(self, values: Floats) -> NDArray[np.bool_]:
        """Where values reach the threshold."""
        if self.threshold is None:
            return np.ones(values.shape, dtype=np.bool_)
        return (np.abs(values) if self.signed else values) >= self.threshold

    def index(self, values: Floats, shown: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Palette entries of values; 0 where they are not shown."""
        share = np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)
        return np.where(shown, 1 + np.rint(254 * share), 0).astype(np.uint8)


@dataclass(frozen=True)
class Panel:
    """One embedded picture and where it lies."""

    uri: str
    x: float
    y: float
    width: float
    height: float
    backdrop: str = ""  # id of the picture that lies under it


@dataclass(frozen=True)
class ColourBar:
    """The colour scale under a picture."""

    uri: str
    x: float
    y: float
    width: float
    ticks: tuple[tuple[float, str], ...]  # x, text
    label: str


@dataclass(frozen=True)
class Picture:
    """A figure as the templates draw it (SVG; text takes the page's colour)."""

    width: float
    height: float
    panels: tuple[Panel, ...]
    labels: tuple[tuple[float, float, str], ...]  # x, y, text
    bar: ColourBar | None
    alt: str
    caption: str
    figure: str = ""  # how its file's name ends (see `with_ending`)


def with_ending(picture: Picture, *parts: str) -> Picture:
    """Return the picture with the ending of its file's name: ``with_ending(picture, "corr-fdr", "stat-z_glass")``."""
    return replace(picture, figure="_".join(part for part in parts if part))


@functools.cache
def palette_of(name: str) -> NDArray[np.uint8]:
    """Return a matplotlib colour map as a palette (256, 4) whose first entry is transparent."""
    import matplotlib

    colours = np.zeros((256, 4), dtype=np.uint8)
    colours[1:] = np.rint(255 * matplotlib.colormaps[name](np.linspace(0, 1, 255))).astype(np.uint8)
    return colours


def signed_scale(values: Floats, label: str, threshold: float | None = None) -> Scale:
    """A scale symmetric about 0, up to the 98th percentile of absolute values.

    Red and blue can be distinguished with all common forms of colour vision.
    """
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    top = float(np.percentile(sizes, 98)) if sizes.size else 1.0
    if threshold is not None:
        top = max(top, 1.5 * threshold)
    largest = float(sizes.max()) if sizes.size else top
    # nothing is clipped where the largest value is hardly larger
    top = largest if largest <= 1.05 * top or top <= 0 else top
    clips = (bool(np.any(values < -top)), bool(np.any(values > top)))
    return Scale(-top, top, SIGNED, label, threshold, clips)


def positive_scale(values: Floats, label: str, low: float | None = 0.0, high: float | None = None) -> Scale:
    """A scale from ``low`` (None: the smallest value) to ``high`` (None: the 98th percentile)."""
    finite = values[np.isfinite(values)]
    smallest, largest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    bottom = smallest if low is None else low
    top = float(np.percentile(finite, 98)) if high is None and finite.size else high
    if top is None or top <= bottom:
        top = largest if largest > bottom else bottom + 1.0
    return Scale(bottom, top, ONE_WAY, label, None, (smallest < bottom, largest > top))


def scale_of_z(values: Floats, threshold: float | None = None, *, signed: bool) -> Scale:
    """A scale of z: in two colours, or, for F tests, whose z has no direction, in one from 0 on."""
    if signed:
        return signed_scale(values, "z", threshold)
    scale = positive_scale(values, "z of F (no direction)")
    if threshold is None or scale.high >= 1.5 * threshold:
        return replace(scale, threshold=threshold)
    return replace(
        scale, high=1.5 * threshold, threshold=threshold, clips=(scale.clips[0], bool(np.any(values > 1.5 * threshold)))
    )


def draw_bar(scale: Scale, y: float, width: float) -> ColourBar:
    """Draw the colour bar, without the values that the threshold hides."""
    values = np.linspace(scale.low, scale.high, 255)
    pixels = scale.index(values, scale.passes(values))[None, :]
    length = min(260.0, 0.6 * width)
    marks = [(0.0, scale.low), (0.5, (scale.low + scale.high) / 2), (1.0, scale.high)]
    ticks = []
    for share, value in marks:
        text = f"{value:.3g}".replace("-", "−")
        text = "≤ " + text if share == 0.0 and scale.clips[0] else text
        text = "≥ " + text if share == 1.0 and scale.clips[1] else text
        ticks.append((12.0 + share * length, text))
    uri = data_uri(encode_png(pixels, scale.palette))
    return ColourBar(uri, 12.0, y, length, tuple(ticks), scale.label)
