"""Pictures as the templates draw them, and the colour scales of maps."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.report.html import data_uri, encode_png

Floats = NDArray[np.float64]

SIGNED, ONE_WAY = "RdBu_r", "viridis"
"""Colour maps of values with two directions, and with one."""

PALEST = 0.35
"""Where the colours of a signed scale begin at its threshold, between white (0) and the darkest (1)."""

GAP = 61
"""Entries of a signed colour bar, of 255, between its two thresholds."""

OUTLYING = 3.0
"""Times the 99.9th percentile: a map's largest values are clipped where they lie beyond, and it has no threshold."""


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
        """The colours, (256, 4), from the threshold to the largest value."""
        return _palette_from(self.colours, self._hidden, signed=self.signed)

    @property
    def colour_map(self) -> Any:
        """The colours as a matplotlib colour map from ``low`` to ``high``."""
        from matplotlib.colors import ListedColormap

        return ListedColormap(self.palette[1:] / 255.0)

    @property
    def _hidden(self) -> float:
        """The share of the scale (of a signed one: of each half) that the threshold hides."""
        if self.threshold is None or self.high <= max(self.low, 0.0):
            return 0.0
        base = 0.0 if self.signed else self.low
        return float(np.clip((self.threshold - base) / (self.high - base), 0.0, 0.999))

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
    shift: float = 0.0  # down, of what lies under it


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
    outline: str = ""  # id of the drawing that lies over the panels
    marks: tuple[tuple[float, float, str], ...] = ()  # x, y, text: numbers of clusters


def with_ending(picture: Picture, *parts: str) -> Picture:
    """Return the picture with the ending of its file's name: ``with_ending(picture, "corr-fdr", "stat-z_glass")``."""
    return replace(picture, figure="_".join(part for part in parts if part))


@functools.lru_cache(maxsize=64)
def _palette_from(name: str, hidden: float, *, signed: bool) -> NDArray[np.uint8]:
    """Return a palette whose colours begin where nothing is hidden any more."""
    if hidden == 0.0:
        return palette_of(name)
    import matplotlib

    at = np.linspace(-1.0 if signed else 0.0, 1.0, 255)
    seen = np.clip((np.abs(at) - hidden) / (1.0 - hidden), 0.0, 1.0)
    share = 0.5 + 0.5 * np.sign(at) * (PALEST + (1.0 - PALEST) * seen) if signed else seen
    colours = np.zeros((256, 4), dtype=np.uint8)
    colours[1:] = np.rint(255 * matplotlib.colormaps[name](share)).astype(np.uint8)
    return colours


@functools.cache
def palette_of(name: str) -> NDArray[np.uint8]:
    """Return a matplotlib colour map as a palette (256, 4) whose first entry is transparent."""
    import matplotlib

    colours = np.zeros((256, 4), dtype=np.uint8)
    colours[1:] = np.rint(255 * matplotlib.colormaps[name](np.linspace(0, 1, 255))).astype(np.uint8)
    return colours


def signed_scale(values: Floats, label: str, threshold: float | None = None, *, outliers: bool = False) -> Scale:
    """A scale symmetric about 0, up to the largest absolute value.

    Red and blue can be distinguished with all common forms of colour vision.

    Parameters
    ----------
    values : ndarray
    label : str
        Quantity and units.
    threshold : float, optional
        Of absolute values: colours begin there.
    outliers : bool
        Values may be far beyond all others, as effects are at the edge of a brain: the scale ends at the 99.9th
        percentile then.
    """
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    top = _top(sizes, outliers=outliers) if sizes.size else max(1.0, threshold or 0.0)
    clips = (bool(np.any(values < -top)), bool(np.any(values > top)))
    return Scale(-top, top, SIGNED, label, threshold, clips)


def _top(sizes: Floats, *, outliers: bool) -> float:
    """The largest value; of values with outliers the 99.9th percentile, where the largest is far beyond."""
    largest, high = float(sizes.max()), float(np.percentile(sizes, 99.9))
    return high if outliers and largest > OUTLYING * high > 0 else largest


def positive_scale(values: Floats, label: str, low: float | None = 0.0, high: float | None = None) -> Scale:
    """A scale from ``low`` (None: the smallest value) to ``high`` (None: the largest, outliers aside)."""
    finite = values[np.isfinite(values)]
    smallest, largest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    bottom = smallest if low is None else low
    top = _top(finite, outliers=True) if high is None and finite.size else high
    if top is None or top <= bottom:
        top = largest if largest > bottom else bottom + 1.0
    return Scale(bottom, top, ONE_WAY, label, None, (smallest < bottom, largest > top))


def scale_of_z(values: Floats, threshold: float | None = None, *, signed: bool) -> Scale:
    """A scale of z up to the largest: in two colours, or, for F tests, whose z has no direction, in one."""
    if signed:
        return signed_scale(values, "z", threshold)
    largest = float(values.max(initial=0.0))
    return replace(positive_scale(values, "z of F (no direction)", high=largest or None), threshold=threshold)


def draw_bar(scale: Scale, y: float, width: float) -> ColourBar:
    """Draw the colour bar, from the threshold to the largest value."""
    if scale.threshold is None:
        values = np.linspace(scale.low, scale.high, 255)
        marks = [(0.0, scale.low), (0.5, (scale.low + scale.high) / 2), (1.0, scale.high)]
    elif scale.signed:
        half = np.linspace(scale.threshold, scale.high, (255 - GAP) // 2)
        values = np.concatenate([-half[::-1], np.zeros(GAP), half])
        edge = half.size / 255
        marks = [(0.0, scale.low), (edge, -scale.threshold), (1.0 - edge, scale.threshold), (1.0, scale.high)]
    else:
        values = np.linspace(scale.threshold, scale.high, 255)
        marks = [(0.0, scale.threshold), (0.5, (scale.threshold + scale.high) / 2), (1.0, scale.high)]
    pixels = scale.index(values, scale.passes(values))[None, :]
    length = min(260.0, 0.6 * width)
    ticks = []
    for share, value in marks:
        text = f"{value:.3g}".replace("-", "−")
        text = "≤ " + text if value == scale.low and scale.clips[0] else text
        text = "≥ " + text if value == scale.high and scale.clips[1] else text
        ticks.append((12.0 + share * length, text))
    uri = data_uri(encode_png(pixels, scale.palette))
    return ColourBar(uri, 12.0, y, length, tuple(ticks), f"{scale.label}{_shown_from(scale)}")


def _shown_from(scale: Scale) -> str:
    """The threshold in words."""
    if scale.threshold is None:
        return ""
    quantity = "|z|" if scale.signed else "z"
    return f", shown from {quantity} = {scale.threshold:.3g}"
