"""The meta-analysis at the peaks: the maps' values, the combined ones, and how much each map matters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ibma_app.core.design import Design, Test, noun_of, plural_of
from ibma_app.core.results import Combined, EstimatorResult, MapAtPeak, PeakEvidence, Results
from ibma_app.report.cluster_tables import relative_to_page
from ibma_app.report.figures.at_peaks.cells import draw_cells, draw_scatter
from ibma_app.report.figures.at_peaks.forest import change, draw_forest, interval, interval_of, rows_shown
from ibma_app.report.figures.at_peaks.funnel import draw_funnel
from ibma_app.report.figures.plot import Plot
from ibma_app.report.html import format_number
from ibma_app.report.inputs import short_labels

Interval = tuple[float, float] | None

LARGEST_LOG10P = 300.0  # beyond, 10**-x underflows


@dataclass(frozen=True)
class EvidenceRow:
    """One map's numbers: a row of the table."""

    name: str
    map: MapAtPeak
    interval: Interval
    left_interval: Interval


@dataclass(frozen=True)
class PeakView:
    """One peak on the page."""

    peak: PeakEvidence
    title: str
    place: str
    interval: Interval
    rows: tuple[EvidenceRow, ...]
    n_folded: int  # maps that are not shown
    influence: tuple[str, Combined] | None  # the map whose absence changes the test most, and the test without it
    z_range: Interval  # of the tests without each map in turn
    q_p: str
    forest: Plot
    funnel: Plot | None
    cells: Plot | None = None

    @property
    def placed(self) -> bool:
        """Whether it is known where it lies, in mm."""
        return all(map(math.isfinite, self.peak.xyz))

    scatter: Plot | None = None


@dataclass(frozen=True)
class EvidenceView:
    """The peaks of one test."""

    peaks: tuple[PeakView, ...]
    quantity: str
    units: str
    forest_words: str
    funnel_words: str
    no_funnel: str
    cells_words: str = ""
    cells_file: str = ""  # the table of the cells' numbers, relative to the page
    unit: str = ""  # "participants": of which the maps may depend on each other; "": each map is alone


def view_evidence(result: EstimatorResult, results: Results, test: Test, units: str) -> EvidenceView | None:
    """Draw the peaks of one test.

    Parameters
    ----------
    result : EstimatorResult
        With its ``peaks``.
    results : Results
        With the grid and maps of this estimator (`Results.seen_by`).
    test : Test
    units : str
        Of the effects, or "".

    Returns
    -------
    EvidenceView or None
        None where no peak has evidence.
    """
    peaks = [peak for peak in result.peaks if peak.test == test.name and peak.maps]
    if not peaks:
        return None
    names = tuple(short_labels([row.label for row in results.survey]))
    of_effects = "effect" in result.estimator.needs
    shown = "" if not of_effects else " (units unknown)" if units in ("", "unknown") else f" ({units})"
    quantity = f"effect{shown}" if of_effects else "z of the map"
    mean = results.design.tests_mean(test)
    views = tuple(_view(peak, names, quantity, results.design, test) for peak in peaks)
    return EvidenceView(
        peaks=views,
        quantity="Effect" if of_effects else "z",
        units=shown,
        forest_words=_forest_words(
            peaks, result, mean=mean, of_effects=of_effects, every=len(peaks) == results.grid.n_voxels
        ),
        funnel_words=_funnel_words(
            peaks,
            hedges=results.settings.get("units_policy") == "hedges-g",
            studies=results.analysis.unit == "study",
        ),
        no_funnel=_no_funnel(views, result, of_effects=of_effects),
        cells_words=_cells_words(results.design),
        cells_file=_cells_file(result, results, test),
        unit="" if results.design.units is None else plural_of(noun_of(results.design.unit_name)),
    )


def _place(peak: PeakEvidence) -> str:
    """Say where a peak is: in mm, and by its name where it is no voxel of a grid."""
    if peak.where and not all(map(math.isfinite, peak.xyz)):
        return peak.where
    place = ", ".join(format_number(round(mm, 1)) for mm in peak.xyz)
    return f"{peak.where}: {place}" if peak.where else place


def _view(peak: PeakEvidence, names: tuple[str, ...], quantity: str, design: Design, test: Test) -> PeakView:
    rows = rows_shown(peak)
    lefts = [row.without.z for row in rows if row.without is not None]
    most = max(rows, key=lambda row: change(peak, row)) if lefts else None
    effects = peak.combined.effect is not None
    return PeakView(
        peak=peak,
        title=peak.name[:1].upper() + peak.name[1:],
        place=_place(peak),
        interval=interval_of(peak.combined),
        rows=tuple(
            EvidenceRow(
                name=names[row.row],
                map=row,
                interval=interval(row.value, row.variance),
                left_interval=interval_of(row.without) if row.without is not None and effects else None,
            )
            for row in rows
        ),
        n_folded=len(peak.maps) - len(rows),
        influence=(names[most.row], most.without) if most is not None and most.without is not None else None,
        z_range=(min(lefts), max(lefts)) if lefts else None,
        q_p=_write_p(peak.q_log10p),
        forest=draw_forest(peak, names, quantity, one_mean=design.tests_mean(test), units=design.units),
        funnel=draw_funnel(peak, names, quantity),
        cells=draw_cells(peak, names, quantity),
        scatter=draw_scatter(peak, names, quantity, design, test),
    )


def _cells_words(design: Design) -> str:
    """Explain the plot of the design's cells."""
    held = " Other covariates are held at their means." if design.covariates else ""
    return (
        "Dots: the maps of each cell. Diamonds and bars: its mean as the model estimates it, with the 95 % interval; "
        "intervals of two cells do not say how sure their difference is: the test does."
        f"{held} The voxel was chosen for being extreme."
    )


def _cells_file(result: EstimatorResult, results: Results, test: Test) -> str:
    """Return the path of the table of cells, relative to the page; "" where there is none."""
    path = result.path("cells", test=test.name)
    return "" if path is None else relative_to_page(path, results.output_dir)


def _write_p(log10_p: float | None) -> str:
    """Write p, given -log10 p."""
    if log10_p is None:
        return ""
    if log10_p > LARGEST_LOG10P:
        return f"p < 1e-{LARGEST_LOG10P:.0f}"
    p = 10.0**-log10_p
    return f"p = {p:.2g}" if p < 0.095 else f"p = {p:.2f}"


def _forest_words(
    peaks: Sequence[PeakEvidence], result: EstimatorResult, *, mean: bool, of_effects: bool, every: bool
) -> str:
    """Explain the forest plot that these peaks get."""
    maps = peaks[0].maps
    words = []
    if any(row.variance is not None for row in maps):
        words.append("Left: each map's effect with the 95 % interval that its sampling variance gives")
    else:
        words.append(f"Left: {'the effect' if of_effects else 'z'} of each map")
    if any(row.weight is not None for row in maps):
        words[0] += "; squares have the area of the map's weight in the fit."
    else:
        words[0] += "; no map has a weight of its own." if result.estimator.weights else "."
    if any(row.fitted is not None for row in maps):
        words.append("Tall ticks: what the design predicts for the map.")
    if mean and peaks[0].combined.effect is not None:
        ends = " with its 95 % interval" if peaks[0].combined.variance is not None else ""
        words.append(f"Diamond: the combined effect{ends}.")
    if any(row.without is not None for row in maps):
        words.append("Right: the test refitted without the map of the row; the full line is the test with all maps.")
    told = (
        "their effects are overestimates" if of_effects else "their z lie further from 0 than new data would put them"
    )
    if any(peak.tau2 is not None for peak in peaks):
        told += ", and how much maps differ there (τ², I², Q) is underestimated"
    some = peaks[0].combined.variance is not None or any(row.variance is not None for row in maps)
    bounds = ", and no interval allows for that choice" if some else ""
    chosen = "The voxels were chosen for being extreme"
    if every:
        chosen = "Every voxel is shown. For those picked out as extreme"
    words.append(f"{chosen}: {told}{bounds}.")
    return " ".join(words)


def _funnel_words(peaks: Sequence[PeakEvidence], *, hedges: bool, studies: bool) -> str:
    """Explain the funnel plot that these peaks get."""
    residual = any(row.fitted is not None for row in peaks[0].maps)
    words = [
        "Each point is a map: its residual, the effect less what the design predicts, by its standard error."
        if residual
        else "Each point is a map: its effect by its standard error."
    ]
    words.append("The shaded triangle holds 95 % of the maps if sampling error alone makes them differ")
    words[-1] += "; the dashed lines add τ²." if any(peak.tau2 for peak in peaks) else "."
    few = "with fewer than 10 maps little can be seen"
    if studies:
        words.append(
            "Small studies on one side only may mean that others were not published; at a voxel chosen for being "
            f"extreme, the choice itself does that, and {few}."
        )
    else:
        words.append(f"At a voxel chosen for being extreme, imprecise maps tend to lie on one side; {few}.")
    if hedges:
        words.append("The variance of Hedges' g grows with g, which tilts a funnel by itself.")
    return " ".join(words)


def _no_funnel(views: Sequence[PeakView], result: EstimatorResult, *, of_effects: bool) -> str:
    """Say why there is no funnel plot, where there is none."""
    if any(view.funnel is not None for view in views):
        return ""
    if "variance" in result.estimator.needs:
        return "No funnel plot: fewer than 3 maps."
    what = "reads no variances" if of_effects else "reads z alone"
    return f"No funnel plot: {result.estimator.name} {what}."
