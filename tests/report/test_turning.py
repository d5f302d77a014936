"""The viewer of hemispheres: what lies in the page is what lies on disk, and it turns, picks and marks."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.anatomy.structures import Surface
from ibma_app.images.elements.known_meshes import known_mesh
from ibma_app.report.figures.brains.meshes import mesh_to_draw

SIZE = 642
NAME = "sub-01_task-x_hemi-{side}_space-fsaverage3_contrast-faces_stat-{kind}_statmap.gii"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cli, maker, describe_dataset, write_statmap) -> Path:
    root = tmp_path_factory.mktemp("turning")
    maker("page_folders").Maker(root, maker, describe_dataset, write_statmap).hemispheres("maps", n=1)
    assert cli(root / "maps", root / "out", "participant").code == 0
    return root / "out"


@pytest.fixture(scope="module")
def page(folder, load_test):
    return load_test("report/figures/test_viewer.py").Embedded((folder / "sub-01.html").read_text(encoding="utf-8"))


def on_disk(folder, kind):
    paths = [folder / "sub-01" / "func" / NAME.format(side=side, kind=kind) for side in "LR"]
    return np.concatenate([nib.load(path).darrays[0].data for path in paths])


def test_meshes_and_maps_are_those_that_are_drawn(folder, page):
    (config,) = page.configs
    assert [one["label"] for one in config["meshes"]] == ["left", "right"]
    assert config["size"] == 2 * SIZE
    for one, side in zip(config["meshes"], "LR", strict=True):
        drawn = mesh_to_draw(Surface(one["name"], SIZE, mesh=known_mesh("fsaverage3", side, SIZE)))
        points = one["step"] * page.codes(one["points"]).reshape(3, SIZE).T
        middle = (drawn.points.min(axis=0) + drawn.points.max(axis=0)) / 2
        np.testing.assert_allclose(points, drawn.points - middle, atol=0.5 * one["step"] * 1.001)
        triangles = page.codes(one["triangles"]).astype(np.int16).view(np.uint16).reshape(3, -1).T
        np.testing.assert_array_equal(triangles, drawn.triangles)
    for part in config["maps"]:
        values = on_disk(folder, part["key"])
        assert np.abs(part["step"] * page.codes(part["block"]) - values).max() <= 0.5 * part["step"] * (1 + 1e-6)
    places = config["places"]["step"] * page.codes(config["places"]["block"]).reshape(3, -1).T
    expected = np.concatenate([known_mesh("fsaverage3", side, SIZE).points for side in "LR"])
    np.testing.assert_allclose(places, expected, atol=0.0501)
    assert config["start"] == np.abs(on_disk(folder, "z")).argmax()


def test_the_page_speaks_of_vertices(folder):
    text = (folder / "sub-01.html").read_text(encoding="utf-8")
    words = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.S)
    assert "1,284" in words
    assert "vertices" in words
    for wrong in ("voxel", "Axial", "slice"):
        assert wrong not in words, wrong
    assert len(text) < 5_000_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory, load_test):
    module = load_test("report/test_browser.py")
    if module.CHROMIUM is None:
        pytest.skip("needs chromium (or google-chrome) on the PATH")
    one = module.Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


CANVAS = "document.querySelectorAll('.viewer .slice canvas')"
FRAME = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"


def seen(browser, index=0):
    """Return the pixels of a canvas that are painted, as a number that changes with the picture."""
    browser.evaluate(FRAME)
    return browser.evaluate(
        f"""(() => {{ const c = {CANVAS}[{index}], p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        let n = 0, sum = 0;
        for (let i = 0; i < p.length; i += 4) if (p[i + 3]) {{ n++; sum = (31 * sum + p[i] + 3 * p[i + 2]) % 1000003; }}
        return [n, sum]; }})()"""
    )


def readout(browser):
    browser.evaluate(FRAME)
    return browser.evaluate("document.querySelector('.viewer .readout').textContent").replace("\N{MINUS SIGN}", "-")


def test_hemispheres_turn(browser, folder):
    browser.open(folder / "sub-01.html")
    first = seen(browser)
    assert first[0] > 10_000
    assert seen(browser, 1)[0] > 10_000
    browser.evaluate(f"{CANVAS}[0].focus()")
    for key in ("ArrowLeft", "m"):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=key if len(key) == 1 else "")
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)
        assert seen(browser)[1] != first[1]
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="l", code="l", text="l")
    assert seen(browser) == first
    box = browser.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])({CANVAS}[0].getBoundingClientRect())")
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    browser.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", buttons=1, clickCount=1)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 60, y=y, button="left", buttons=1)
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + 60, y=y, button="left", clickCount=1)
    assert seen(browser)[1] != first[1]
    # the canvas is read back by this test, not by the page
    assert [one for one in browser.complaints() if "willReadFrequently" not in one] == []


def test_a_click_and_a_row_choose_a_vertex(browser, folder):
    browser.open(folder / "sub-01.html")
    box = browser.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])({CANVAS}[1].getBoundingClientRect())")
    place = {"x": box[0] + box[2] / 2, "y": box[1] + box[3] / 2, "button": "left", "clickCount": 1}
    browser.call("Input.dispatchMouseEvent", type="mousePressed", buttons=1, **place)
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", **place)
    words = readout(browser)
    vertex = int(re.match(r"CORTEX_RIGHT, vertex (\d+) ", words)[1])
    # the middle of the right hemisphere from outside: far to the right
    assert known_mesh("fsaverage3", "R", SIZE).points[vertex, 0] > 30
    z = float(re.search(r" z (-?[\d.]+)", words)[1])
    assert z == pytest.approx(on_disk(folder, "z")[SIZE + vertex], abs=0.0061)
    browser.evaluate("document.querySelector('.peaks tr[data-at] td:nth-child(2)').click()")
    largest = int(on_disk(folder, "z").argmax())
    side = ("LEFT", "RIGHT")[largest // SIZE]
    assert readout(browser).startswith(f"CORTEX_{side}, vertex {largest % SIZE} ")
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [420, 1440])
def test_it_fits_the_screen(browser, folder, width):
    browser.open(folder / "sub-01.html", width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert seen(browser)[0] > 3000


def test_tables_name_the_vertex(folder):
    text = (folder / "sub-01.html").read_text(encoding="utf-8")
    largest = int(on_disk(folder, "z").argmax())
    assert f"CORTEX_{('LEFT', 'RIGHT')[largest // SIZE]}, vertex {largest % SIZE}: " in text
