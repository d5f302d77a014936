"""The likeness of maps on the page: values, names, flags, and thousands of maps on little room."""

import base64
import io
import re
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from ibma_app.core.results import MapFlag, Similarity
from ibma_app.report.figures.picture import palette_of
from ibma_app.report.figures.similarity import draw_matrix, draw_scatter
from ibma_app.report.pages import write_analysis_page


def likeness(correlations, scale=None, *, starts=None, flags=()) -> Similarity:
    n_maps = len(correlations) if scale is None else len(scale)
    return Similarity(
        quantity="effect",
        n_voxels=900,
        correlations=tuple(tuple(None if np.isnan(r) else float(r) for r in row) for row in correlations),
        starts=tuple(range(len(correlations))) if starts is None else starts,
        agreement=tuple(np.linspace(-0.4, 0.8, n_maps).round(4).tolist()),
        scale=tuple(np.geomspace(0.5, 2, n_maps).tolist() if scale is None else scale),
        flags=flags,
    )


def random_correlations(size, seed=0):
    r = np.corrcoef(np.random.default_rng(seed).normal(size=(size, 40))).round(4)
    np.fill_diagonal(r, np.nan)
    return r


def colours(uri: str) -> np.ndarray:
    content = io.BytesIO(base64.b64decode(uri.split(",")[1]))
    return np.rint(255 * matplotlib.image.imread(content, format="png"))


def test_cells_have_the_colour_and_the_number_of_their_correlation():
    r = random_correlations(6)
    matrix = draw_matrix(likeness(r), [f"sub-{i}" for i in range(6)])
    top = np.ceil(10 * np.nanmax(np.abs(r))) / 10
    expected = palette_of("RdBu_r")[
        np.where(np.isnan(r), 0, 1 + np.rint(254 * (np.nan_to_num(r) + top) / (2 * top))).astype(int)
    ]
    np.testing.assert_array_equal(colours(matrix.panel.uri), expected)
    written = [label.text.replace("−", "-") for label in matrix.labels if label.style.startswith("cell")]
    assert written == [f"{value:.2f}" for value in r.ravel() if not np.isnan(value)]


def test_dots_lie_at_scale_and_agreement():
    found = likeness(random_correlations(7), flags=(MapFlag("sign", (0,), "turned"),))
    plot = draw_scatter(found, [f"sub-{i}" for i in range(7)])
    dots = [shape for shape in plot.shapes if shape.style.startswith("dot")]
    named = {shape.title.split(":")[0]: shape for shape in dots}
    places = np.array([[float(v) for v in re.match(r"M(\S+) (\S+)h0", named[f"sub-{i}"].d).groups()] for i in range(7)])
    # pixels are linear in log scale and in agreement; written to a tenth of a pixel
    for column, values in enumerate((np.log(found.scale), found.agreement)):
        slope, start = np.polyfit(values, places[:, column], 1)
        np.testing.assert_allclose(places[:, column], slope * np.asarray(values) + start, atol=0.11)
        assert (slope > 0) == (column == 0), "right is larger, up is more alike"
    assert [name for name, shape in named.items() if shape.style == "dot odd"] == ["sub-0"]
    assert named["sub-3"].title == "sub-3: correlation 0.20, median |effect| 1"
    assert "sub-0" in {label.text for label in plot.labels if label.style == "tick odd"}


def test_two_thousand_maps_take_little_room(tmp_path, group_results, save):
    results = group_results(tmp_path, n_maps=6, unit="subject", space="T1w")
    survey = tuple(replace(results.survey[0], label=f"sub-{i:04d}", uris=(f"bids::{i}",)) for i in range(2000))
    scale = np.random.default_rng(0).lognormal(0, 0.3, 2000).tolist()
    found = likeness(random_correlations(120), scale, starts=tuple(range(0, 2000, 17))[:120])
    results = replace(results, survey=survey, similarity=found)
    page = write_analysis_page(results, "group_many.html", save).read_text(encoding="utf-8")
    part = page.split('id="similarity"')[1].split("</section>")[0]
    assert len(part) < 100_000
    assert "map 1,0" in part
    assert "Each cell is the mean of about 17 × 17 pairs" in part


@pytest.mark.parametrize("flagged", [True, False])
def test_page_tells_flags_and_what_was_compared(tmp_path, group_results, save, flagged):
    results = group_results(tmp_path, space="T1w")
    flags = (MapFlag("duplicate", (0, 2), "study-01 = study-<3>"),) if flagged else ()
    results = replace(results, similarity=likeness(random_correlations(6), flags=flags))
    page = write_analysis_page(results, "group_faces.html", save).read_text(encoding="utf-8")
    assert ("study-01 = study-&lt;3&gt;" in page) == flagged
    assert ("No map looks like a duplicate" in page) != flagged
    assert "The effects of the 6 maps, compared at 900 voxels spread over the mask." in page
    assert "The typical map correlates 0.20 with the mean of the others." in page


def test_page_without_comparison(tmp_path, group_results, save):
    page = write_analysis_page(group_results(tmp_path, space="T1w"), "group_faces.html", save).read_text(
        encoding="utf-8"
    )
    assert "How alike" not in page
