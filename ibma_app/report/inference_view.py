"""What a test's inferences rest on, as the page shows it: thresholds in all units, nulls, and the p values."""

from typing import Any

from ibma_app.report.figures.null_distributions import draw_null
from ibma_app.report.figures.quantiles import draw_quantiles, find_quantiles
from ibma_app.report.graphs import Graph
from ibma_app.report.maps import ResultMaps
from ibma_app.report.text.thresholds import find_thresholds, smoothness_facts


def inference_view(maps: ResultMaps, *, pictured: bool) -> dict[str, Any]:
    """Thresholds and smoothness of one test; with ``pictured`` its nulls and the QQ plot of p too."""
    plots: list[Graph] = []
    if pictured:
        two_sided = maps.test.tail == "two-sided"
        nulls = (draw_null(finding, two_sided=two_sided) for finding in maps.findings)
        found = find_quantiles(maps)
        plots = [plot for plot in (*nulls, draw_quantiles(found) if found else None) if plot is not None]
    resampled = any(finding.null is not None for finding in maps.findings)
    return {
        "thresholds": find_thresholds(maps),
        "smoothness": smoothness_facts(maps),
        "heading": "Null distributions and p values" if resampled else "p values",
        "plots": plots,
    }
