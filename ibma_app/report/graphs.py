"""A plot with its words."""

from dataclasses import dataclass

from ibma_app.report.figures.plot import Plot


@dataclass(frozen=True)
class Graph:
    """A plot, and what stands under it."""

    plot: Plot
    caption: str
