"""The files in figures/ are the page's pictures: whole, well-formed, alone, and named like maps."""

import base64
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from ibma_app.report.figures.quantiles import Quantiles, draw_quantiles
from ibma_app.report.figures.svg_files import Figure, draw_file, save_figures
from ibma_app.report.html import LIGHT, environment
from ibma_app.report.pages import write_analysis_page, write_participant_page

SVG = "{http://www.w3.org/2000/svg}"
FALLING = np.array([2.0, 1.0, 0.5])
QUANTILES = Quantiles(3, FALLING, FALLING, FALLING / 2, FALLING * 2, 1 / 3)


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


def test_legend_names_the_regions_of_the_numbers():
    entries = [f"{number} Temporal_Inf_{number}" for number in range(1, 9)]
    figure = ElementTree.fromstring(draw_file(draw_quantiles(QUANTILES), legend=entries))
    texts = [one.text for one in figure.iter(f"{SVG}text") if "Temporal" in (one.text or "")]
    assert len(texts) > 1
    assert " ".join(texts).split() == " ".join(entries).split()  # in lines, in order
    height = float(figure.get("height"))
    assert all(float(one.get("y")) < height - 8 for one in figure.iter(f"{SVG}text") if one.get("y"))
    plain = ElementTree.fromstring(draw_file(draw_quantiles(QUANTILES)))
    assert height > float(plain.get("height"))


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
    assert {f"{one.analysis.name}_stat-{kind}_slices.svg" for one in results for kind in ("effect", "z")} <= names


def test_names_never_collide(tmp_path, save):
    plot = draw_quantiles(QUANTILES)
    figures = [Figure("a_desc-b", "qq", plot), Figure("a_desc-b", "qq", plot), Figure("", "qq", plot)]
    paths = save_figures(figures, (), tmp_path, save)
    assert [path.name for path in paths] == ["a_desc-b_qq.svg", "a_desc-b_qq2.svg", "qq.svg"]
    assert all(path.parent == tmp_path / "figures" for path in paths)


def test_pairs_of_estimators_are_named_by_both(group):
    assert any(name.endswith("_zOfStoufferRfxAgainstZOfReml.svg") for name in group[2])


def test_colours_are_those_of_the_light_page():
    style = ElementTree.fromstring(draw_file(draw_quantiles(QUANTILES))).find(f"{SVG}style").text
    page = environment().globals["stylesheet"]
    for name, colour in LIGHT.items():
        assert f"--{name}: {colour}" in page
    rules = [rule for rule in style.strip().splitlines() if rule.startswith((".picture", ".plot"))]
    assert len(rules) > 20
    for rule in rules:
        for name, colour in LIGHT.items():
            if name != "halo" or "mark-number" in rule:  # white is that of words on dark cells too
                rule = rule.replace(f": {colour};", f": var(--{name});")
        assert rule.replace("var(--ink); font-size: 11px", "#1c2127; font-size: 11px") in page


def test_signs_of_labels_are_escaped():
    drawn = replace(draw_quantiles(QUANTILES), alt='a "<b>" & c')
    assert ElementTree.fromstring(draw_file(drawn)).get("aria-label") == 'a "<b>" & c'
