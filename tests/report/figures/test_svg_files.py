"""The files in figures/ are the page's pictures: whole, well-formed, alone, and named like maps."""

import base64
import re
from xml.etree import ElementTree

import pytest

from ibma_app.report.figures.svg_files import save_figures, stand_alone
from ibma_app.report.pages import write_analysis_page, write_participant_page

SVG = "{http://www.w3.org/2000/svg}"


def figures_of(out):
    return {path.name: ElementTree.fromstring(path.read_text(encoding="utf-8")) for path in (out / "figures").iterdir()}


@pytest.fixture(scope="module")
def group(tmp_path_factory, group_results, save):
    results = group_results(tmp_path_factory.mktemp("figures"), moderator=True, estimators=("reml", "stouffer-rfx"))
    page = write_analysis_page(results, "group_faces.html", save).read_text(encoding="utf-8")
    return results, page, figures_of(results.output_dir)


def test_every_picture_of_the_page_is_a_file(group):
    _, page, figures = group
    assert page.count('<svg class="picture') == len(figures) > 10


def test_names_are_those_of_the_maps_drawn(group):
    results, _, figures = group
    for test in ("intercept", "age"):
        stem = f"contrast-faces_test-{test}_desc-reml"
        for ending in ("corr-fdr_stat-z_glass", "corr-fdr_stat-z_slices", "stat-z_slices", "stat-effect_slices"):
            assert f"{stem}_{ending}.svg" in figures
    for kind in ("n", "tau", "i2"):
        assert f"contrast-faces_desc-reml_stat-{kind}_slices.svg" in figures
    assert f"{results.analysis.name}_design.svg" in figures
    assert all(re.fullmatch(r"([a-zA-Z0-9]+-[a-zA-Z0-9+-]+_)*[a-zA-Z0-9]+\.svg", name) for name in figures), figures


def test_files_stand_alone(group):
    for name, figure in group[2].items():
        assert figure.tag == f"{SVG}svg"
        assert figure.get("aria-label"), name
        left, _, width, height = map(float, figure.get("viewBox").split())
        assert (float(figure.get("width")), float(figure.get("height"))) == (width, height)
        (style,) = figure.iter(f"{SVG}style")
        assert "var(" not in style.text
        ground = next(figure.iter(f"{SVG}rect"))
        assert (ground.get("fill"), float(ground.get("x")), float(ground.get("width"))) == ("#ffffff", left, width)
        assert not list(figure.iter(f"{SVG}use")), name
        loads = [one.get(key) for one in figure.iter() for key in ("href", "src") if one.get(key)]
        assert all(uri.startswith("data:image/png;base64,") for uri in loads), name
        assert all(base64.b64decode(uri.partition(",")[2]).startswith(b"\x89PNG") for uri in loads)
        for one in figure.iter():  # each shape and word has a colour of its own in the light
            if one.tag == f"{SVG}text" and one.get("class") == "tick":
                assert ".tick" in style.text


def test_slices_carry_the_brain_behind_them(group):
    figure = group[2]["contrast-faces_test-age_desc-reml_stat-z_slices.svg"]
    assert [image.get("class") for image in figure.iter(f"{SVG}image")][:2] == ["smooth", "voxels"]


def test_participants(tmp_path, participant_results, save):
    results = [participant_results(tmp_path, contrast=name) for name in ("faces", "houses")]
    page = write_participant_page("01", results, save).read_text(encoding="utf-8")
    names = set(figures_of(tmp_path))
    assert page.count('<svg class="picture') == len(names)
    assert {f"{one.analysis.name}_stat-{kind}_slices.svg" for one in results for kind in ("effect", "z", "n")} <= names


def test_names_never_collide_and_hold_no_signs(tmp_path, save):
    picture = (
        '<svg class="picture" role="img" aria-label="A &lt;b&gt; plot/of" viewBox="0 0 9 9"><path d="M0 0"/></svg>'
    )
    page = f'<section data-figures="a/../b">{picture}{picture}</section>{picture}<script>{picture}</script>'
    paths = save_figures(page, "stem", tmp_path, save)
    assert [path.name for path in paths] == ["ab_aBPlotOf.svg", "ab_aBPlotOf2.svg", "stem_aBPlotOf.svg"]
    assert all(path.parent == tmp_path / "figures" for path in paths)


@pytest.mark.parametrize(
    ("description", "names"),
    [
        ("Forest plot: effect of 8 maps", ["a_peak-1_forest.svg", "a_peak-2_forest.svg"]),
        ("Null distribution of max-stat", ["a_corr-maxStat_null.svg", "a_corr-maxStat_null2.svg"]),
        ("Observed against expected p values", ["a_qq.svg", "a_qq2.svg"]),
    ],
)
def test_names_of_charts(tmp_path, save, description, names):
    picture = f'<svg class="picture" role="img" aria-label="{description}" viewBox="0 0 9 9"></svg>'
    assert [path.name for path in save_figures(2 * picture, "a", tmp_path, save)] == names


def test_styles_are_those_of_the_page(tmp_path):
    text = stand_alone('class="picture" viewBox="0 0 10 5" aria-label="x"', '<text class="tick">1</text>', "", "")
    style = ElementTree.fromstring(text).find(f"{SVG}style").text
    assert re.search(r"\.picture \.tick \{ fill: #[0-9a-f]{6}; font-size: 11\.5px \}", style)
    assert "nav" not in style
    assert "table" not in style
