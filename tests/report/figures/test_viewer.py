"""The viewer: what lies in the page is what lies on disk, within the error that is promised."""

import base64
import csv
import hashlib
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ibma_app.report.figures.embed import (
    LARGEST,
    NONE,
    STEPS,
    EmbeddedBlocks,
    pack_bits,
    pack_codes,
    quantise,
    quantise_logs,
)
from ibma_app.report.figures.viewer import Limits, view_maps
from ibma_app.report.maps import ResultMaps
from ibma_app.report.numbers import count_significant
from ibma_app.report.pages import write_analysis_page, write_participant_page

ATTACK = "'\"></script><script>alert(1)</script>"


class Embedded(HTMLParser):
    """Configurations and blocks of a page, read as its script reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.configs, self.blocks, self.scripts, self.rows, self._block = [], {}, [], [], None
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "data-config" in attrs:
            self.configs.append(json.loads(attrs["data-config"]))
        if tag == "script":
            self._block = attrs.get("id", "")
        if "data-at" in attrs:
            self.rows.append(tuple(map(float, attrs["data-at"].split())))
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]

    def handle_data(self, data):
        if self._block:
            self.blocks[self._block] = data
        elif self._block == "":
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self._block = None

    def unpack(self, key: str) -> bytes:
        return zlib.decompress(base64.b64decode(self.blocks[key], validate=True))

    def codes(self, key: str) -> np.ndarray:
        return read_codes(self.unpack(key))

    def flags(self, key: str, n: int) -> np.ndarray:
        return np.unpackbits(np.frombuffer(self.unpack(key), np.uint8))[:n].astype(bool)


def read_codes(content: bytes) -> np.ndarray:
    """The inverse of pack_codes, written from its description."""
    planes = np.frombuffer(content, np.uint8).astype(np.int64).reshape(2, -1)
    zigzag = 256 * planes[0] + planes[1]
    steps = np.where(zigzag % 2, -(zigzag + 1) // 2, zigzag // 2)
    return (np.cumsum(steps) + 32768) % 65536 - 32768


def on_disk(path, grid):
    return np.asarray(nibabel.load(path).dataobj, dtype=float)[grid.mask]


@pytest.fixture(scope="module")
def group(tmp_path_factory, group_results, save):
    results = group_results(tmp_path_factory.mktemp("viewer"), estimators=("reml", "stouffer-rfx"), moderator=True)
    path = write_analysis_page(results, "group_faces.html", save)
    return results, path, Embedded(path.read_text(encoding="utf-8"))


def test_each_estimator_and_test_has_a_viewer(group):
    results, _, page = group
    assert len(page.configs) == len(results.estimators) * len(results.design.tests)


def test_numbers_in_the_page_are_those_of_the_maps(group):
    results, _, page = group
    grid = results.grid
    for config, (result, test) in zip(
        page.configs, ((one, test) for one in results.estimators for test in results.design.tests), strict=True
    ):
        assert np.array_equal(page.flags(config["mask"], grid.mask.size).reshape(grid.shape), grid.mask)
        assert np.array_equal(config["affine"], grid.affine[:3])
        for part in config["maps"]:
            owner = "" if part["key"] == "n" else test.name
            values = on_disk(result.path(part["key"], test=owner), grid)
            got = part["step"] * page.codes(part["block"])
            # half a step, and the rounding of a product of doubles
            assert np.abs(got - values).max() <= 0.5 * part["step"] * (1 + 1e-9)
            usual, largest = np.percentile(np.abs(values), 99), np.abs(values).max()
            assert part["step"] <= max(usual / STEPS, largest / LARGEST) or part["key"] == "n"
            if part["key"] == "n":
                assert np.array_equal(got, values)
        assert {part["name"] for part in config["shown"]} == {"fdr", "bonferroni"}
        for part in config["shown"]:
            passed = on_disk(result.path("mask", test=test.name, inference=part["name"]), grid) > 0
            assert np.array_equal(page.flags(part["block"], grid.n_voxels), passed)
        z = on_disk(result.path("z", test=test.name), grid)
        assert np.isclose(config["top"], (z if test.is_f else np.abs(z)).max(), rtol=1e-12)
        assert config["signed"] is not test.is_f
        assert (config["maps"][0]["low"] < 0) is not test.is_f  # z of F has no direction: one colour


def test_half_widths_are_those_of_t_intervals(group):
    results, _, page = group
    result, test, config = results.estimators[0], results.design.tests[0], page.configs[0]
    variance = on_disk(result.path("variance", test=test.name), results.grid)
    dof = on_disk(result.path("dof"), results.grid)
    expected = stats.t.ppf(0.975, dof) * np.sqrt(variance)
    half = config["half"]
    got = half["unit"] * np.exp(half["step"] * page.codes(half["block"]))
    # half a step of 0.01 of the logarithm: exp(0.005) - 1 < 0.00502
    assert np.abs(got / expected - 1).max() < 0.00502
    assert page.configs[-1]["half"] is None  # F and Z tests have no interval


def test_backdrop_is_the_template(group):
    from nilearn.datasets import load_mni152_template

    _, _, page = group
    backdrop = page.configs[0]["backdrop"]
    grey = np.frombuffer(page.unpack(backdrop["block"]), np.uint8).reshape(backdrop["shape"])
    template = load_mni152_template(resolution=1)
    where = np.array([40, 50, 45])
    mm = np.array(backdrop["affine"]) @ np.append(where, 1.0)
    voxel = np.linalg.inv(template.affine) @ np.append(mm, 1.0)
    assert np.allclose(voxel[:3], 2 * where + 0.5)  # the centre of its eight voxels
    i, j, k = 2 * where
    mean = np.asarray(template.dataobj)[i : i + 2, j : j + 2, k : k + 2].mean()
    # half a level of 46
    assert abs((grey[tuple(where)] - 1) / (backdrop["levels"] - 2) - mean) <= 0.5 / 46 + 1e-9


def test_rows_lead_where_the_tables_say(group):
    results, _, page = group
    table = results.estimators[0].path("clusters", test="age", inference="fdr")
    with table.open(newline="") as stream:
        first = next(csv.DictReader(stream, delimiter="\t"))
    assert tuple(float(first[axis]) for axis in "xyz") in page.rows
    z = on_disk(results.estimators[0].path("z", test="age"), results.grid)
    mm = np.argwhere(results.grid.mask) @ results.grid.affine[:3, :3].T + results.grid.affine[:3, 3]
    assert tuple(mm[z.argmax()]) in page.rows


def test_only_our_script_may_run_and_nothing_may_load(group):
    _, _, page = group
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page.policy
    assert page.policy.startswith("default-src 'none';")
    assert "http" not in page.policy
    # what a script could load with; links and namespaces are none of its business
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|WebSocket|https?:", script)


def test_labels_stay_text(tmp_path, group_results, save):
    results = group_results(tmp_path, contrast=ATTACK, units=ATTACK)
    page = Embedded(write_analysis_page(results, "group_attack.html", save).read_text(encoding="utf-8"))
    assert len(page.scripts) == 1
    assert page.configs[0]["maps"][1]["units"] == ATTACK
    assert all(re.fullmatch(r"[A-Za-z0-9+/]+=*", block) for block in page.blocks.values())


def test_same_run_same_bytes(group, save):
    results, path, _ = group
    before = path.read_bytes()
    write_analysis_page(results, path.name, save)
    assert path.read_bytes() == before


def test_equal_contents_lie_in_the_page_once(group):
    _, _, page = group
    assert len(set(page.blocks.values())) == len(page.blocks)
    assert len({config["mask"] for config in page.configs}) == 1


def _view(results, embedded, **limits):
    result = results.estimators[0]
    maps = ResultMaps(result, results.grid, results.design, results.design.tests[0])
    return view_maps(maps, count_significant(maps, results), embedded, "percent", "T1w", Limits(**limits))


def test_too_many_voxels_are_thinned_and_it_is_said(tmp_path, group_results, grid_maker):
    results = group_results(tmp_path, grid=grid_maker((25, 26, 27)))
    whole, thin, none = EmbeddedBlocks(), EmbeddedBlocks(), EmbeddedBlocks()
    assert "every" not in _view(results, whole).note
    view = _view(results, thin, whole=whole.size - 1, most=whole.size // 4)
    assert thin.size <= whole.size // 4
    assert "every second voxel" in view.note
    config = json.loads(view.config)
    assert config["shape"] == [13, 13, 14]
    values = np.asarray(nibabel.load(results.estimators[0].path("z")).dataobj, float)[::2, ::2, ::2]
    codes = read_codes(zlib.decompress(base64.b64decode(thin.blocks[config["maps"][0]["block"]])))
    step = config["maps"][0]["step"]
    assert np.abs(step * codes - values[results.grid.mask[::2, ::2, ::2]]).max() <= 0.5 * step * (1 + 1e-9)
    last = np.array(config["affine"]) @ [12, 12, 13, 1]
    assert np.allclose(last, (results.grid.affine @ [24, 24, 26, 1])[:3])
    assert _view(results, none, whole=10, most=10) is None
    assert none.size == 0


@pytest.mark.slow
def test_page_of_a_whole_brain_in_2_mm_stays_below_15_mb(tmp_path, group_results, grid_maker, save):
    # 61^3 = 226,981 voxels of white noise (nothing packs worse), two estimators with three tests each
    results = group_results(
        tmp_path, grid=grid_maker((61, 61, 61), 2.0), moderator=True, estimators=("reml", "fixed-effects")
    )
    path = write_analysis_page(results, "group_large.html", save)
    assert path.stat().st_size < 15e6
    assert len(Embedded(path.read_text(encoding="utf-8")).configs) == 6


def test_participant_page_has_a_viewer(tmp_path, participant_results, save):
    path = write_participant_page("01", [participant_results(tmp_path)], save)
    page = Embedded(path.read_text(encoding="utf-8"))
    (config,) = page.configs
    assert [part["key"] for part in config["maps"]] == ["z", "effect", "n"]
    assert config["backdrop"] is None  # T1w: no template
    assert config["shown"] == []


def test_without_z_there_is_no_viewer(tmp_path, group_results):
    results = group_results(tmp_path)
    result = results.estimators[0]
    files = tuple(file for file in result.files if file.kind != "z")
    maps = ResultMaps(replace(result, files=files), results.grid, results.design, results.design.tests[0])
    assert view_maps(maps, (), EmbeddedBlocks(), "percent", "T1w") is None


numbers = st.lists(st.floats(-1e30, 1e30, allow_subnormal=False), min_size=1, max_size=60)


@given(numbers)
def test_quantised_values_are_near(values):
    values = np.array(values)
    coded = quantise(values)
    back = coded.step * coded.codes.astype(float)
    assert np.abs(back - values).max() <= 0.5 * coded.step * (1 + 1e-9)
    assert np.array_equal(read_codes(zlib.decompress(pack_codes(coded.codes))), coded.codes)


@given(st.lists(st.floats(1e-70, 1e70), min_size=1, max_size=60))
def test_logarithms_are_near_and_zero_has_none(values):
    coded = quantise_logs(np.array([*values, 0.0]))
    assert coded.codes[-1] == NONE
    back = coded.unit * np.exp(coded.step * coded.codes[:-1].astype(float))
    # exp(0.005) - 1, and the rounding of logarithms up to 700
    assert np.abs(back / values - 1).max() <= 0.005013 + 1e-12 * 700


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_come_back(flags):
    bits = np.unpackbits(np.frombuffer(zlib.decompress(pack_bits(np.array(flags))), np.uint8))
    assert bits[: len(flags)].astype(bool).tolist() == flags


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=40))
def test_codes_come_back_whatever_their_differences(codes):
    codes = np.array(codes, dtype=np.int16)
    assert np.array_equal(read_codes(zlib.decompress(pack_codes(codes))), codes)
