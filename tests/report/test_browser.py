"""Pages in a real browser: Chromium opens them from disk, and nothing else is needed.

Chromium is driven over a pipe (its DevTools protocol, JSON messages that end
in a zero byte), so that no driver, port or package stands between.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ibma_app.report.index.index_page import write_index
from ibma_app.report.pages import write_analysis_page, write_participant_page
from ibma_app.workflows.demo.run_demo import run_demo

ATTACK = "<script>alert(1)</script>"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking", "--hide-scrollbars"),
)
PATIENCE = 60.0  # seconds, on a busy machine

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (or google-chrome) on the PATH")


SHOW = """((element) => { for (let part = element; part; part = part.parentElement)
    if (part.matches("label + .panel")) part.previousElementSibling.control.checked = true; })"""
"""Chooses the tabs that an element lies in."""
FIRST_TABS = "for (const one of document.querySelectorAll('.tabs > input:first-child')) one.checked = true"


class Browser:
    """One Chromium with one page, over its debugging pipe."""

    def __init__(self, profile: Path) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # chromium reads messages from file 3 and writes to file 4; high numbers first, so that none is overwritten
        spare = [os.dup(one) for one in (theirs_in, theirs_out)]
        moves = [(os.POSIX_SPAWN_DUP2, one, 60 + index) for index, one in enumerate(spare)]
        moves += [(os.POSIX_SPAWN_DUP2, 60, 3), (os.POSIX_SPAWN_DUP2, 61, 4)]
        quiet = [(os.POSIX_SPAWN_OPEN, one, os.devnull, os.O_RDWR, 0) for one in (0, 1, 2)]
        args = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.pid = os.posix_spawn(CHROMIUM, args, os.environ, file_actions=[*quiet, *moves], setsid=True)
        for one in (theirs_in, theirs_out, *spare):
            os.close(one)
        self.read_from, self.write_to = ours_in, ours_out
        self.rest, self.number, self.session, self.events = b"", 0, None, []
        target = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read_from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "chromium does not answer"
            chunk = os.read(self.read_from, 1 << 20)
            assert chunk, "chromium has ended"
            self.rest += chunk
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, expression: str) -> Any:
        """Value of an expression (or of the promise that it gives) in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"never: {expression}"
            time.sleep(0.05)

    def open(
        self, path: Path, width: int = 1440, *, dark: bool = False, scripts: bool = True, unfold: bool = True
    ) -> None:
        """Open a page from disk; unfold it, choose each test in turn and scroll, so that every viewer draws."""
        self.events.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media="", features=scheme)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=path.as_uri())
        self.wait(f"document.readyState === 'complete' && location.href === {json.dumps(path.as_uri())}")
        if scripts and unfold:
            self.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")
            for index in range(self.evaluate("document.querySelectorAll('.viewer').length")):
                viewer = f"document.querySelectorAll('.viewer')[{index}]"
                self.evaluate(f"{SHOW}({viewer})")
                self.evaluate(f"{viewer}.scrollIntoView()")
                self.wait(f"{viewer}.dataset.ready === 'true'")
            self.evaluate(
                "for (const one of document.querySelectorAll('.tabs > input:first-child')) one.checked = true"
            )
            self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def screenshot(self, path: Path) -> None:
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and every request other than for the page itself."""
        found, page = [], self.evaluate("location.href").partition("#")[0]
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(str(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if url != page and not url.startswith("data:"):
                    found.append(f"request of {url}")
            elif method == "Page.javascriptDialogOpening":
                found.append("dialog")
        return found

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.session = None
            self.call("Browser.close")
        os.close(self.write_to)
        os.close(self.read_from)
        os.waitpid(self.pid, 0)


PAGES = ("report.html", "group_faces.html", "group_attack.html", "sub-01.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, group_results, participant_results, save) -> Path:
    """A small report: two tests, clusters of different sizes, a hostile contrast, a participant."""
    root = tmp_path_factory.mktemp("report")
    results = group_results(root, moderator=True)
    for file in results.estimators[0].files:
        if file.kind == "clusters":
            rows = ("1\t2\t-4\t6\t5.1\tInsula", "2\t-10\t8\t-2\t-9.25\tcuneus", "3\t14\t0\t2\tn/a\tAmygdala")
            file.path.write_text("\n".join(("cluster_id\tx\ty\tz\tpeak_z\tregion", *rows)), encoding="utf-8")
    write_analysis_page(results, "group_faces.html", save)
    attack = group_results(root / "attack", contrast=ATTACK, units=ATTACK, significant=False)
    write_analysis_page(replace(attack, output_dir=root), "group_attack.html", save)
    write_participant_page("01", [participant_results(root)], save)
    write_index(root, save)
    return root


def painted(canvas: str) -> str:
    """Script that counts the pixels which a canvas has painted."""
    return f"""(() => {{ const c = {canvas};
        return c.getContext("2d").getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v).length;
    }})()"""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1440, True), (800, False), (800, True)])
def test_page_opens_from_disk_without_complaint(browser, folder, tmp_path, page, width, dark):
    browser.open(folder / page, width, dark=dark)
    assert browser.complaints() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert not browser.evaluate("document.querySelector('main script')")
    n_slices = browser.evaluate("document.querySelectorAll('.viewer .slice canvas').length")
    assert n_slices == 3 * browser.evaluate("document.querySelectorAll('.viewer').length")
    for index in range(n_slices):
        # at 800 pixels a slice is some 200 wide; a crosshair alone would be a few hundred pixels
        canvas = f"document.querySelectorAll('.viewer .slice canvas')[{index}]"
        browser.evaluate(f"{SHOW}({canvas})")
        browser.wait(f"{painted(canvas)} > 3000")
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 5000


BROKEN_WORDS = """(() => {
    const found = [], walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode;
        if (node.parentElement.closest("svg, script, style, code, pre")) continue;  // paths may break anywhere
        for (const word of node.data.matchAll(/[A-Za-z]{2,24}/g)) {
            const range = document.createRange();
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            const boxes = [...range.getClientRects()].filter((one) => one.width);
            const tops = new Set(boxes.map((one) => Math.round(one.top)));
            if (tops.size > 1) found.push(word[0]);
        }
    }
    return found;
})()"""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [420, 360])
def test_no_word_breaks_on_a_telephone(browser, folder, page, width):
    browser.open(folder / page, width)
    assert browser.evaluate(BROKEN_WORDS) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def read_viewer(browser: Browser, index: int = 0) -> dict[str, Any]:
    return browser.evaluate(
        f"""(() => {{ const v = document.querySelectorAll(".viewer")[{index}];
        return {{mm: [...v.querySelectorAll(".mm")].map((box) => Number(box.value)),
                 words: v.querySelector(".readout").textContent}}; }})()"""
    )


def next_frame(browser: Browser) -> None:
    browser.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")


def test_row_moves_the_crosshair(browser, folder):
    browser.open(folder / "group_faces.html")
    row = """document.querySelector('table.sortable tr[data-at="-10.0 8.0 -2.0"]')"""
    browser.evaluate(f"{row}.querySelector('td:nth-child(4)').click()")
    browser.wait(f"{row}.getAttribute('aria-current') === 'true'")
    next_frame(browser)
    # 4 mm voxels around 0: centres at multiples of 4 (x and y), at odd multiples of 2 (z)
    assert read_viewer(browser)["mm"][1:] == [8, -2]
    assert read_viewer(browser)["mm"][0] in (-12, -8)  # -10 lies halfway
    # and by the keyboard: the first cell holds a button
    browser.evaluate("document.querySelector('.peaks tr[data-at] button').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
        )
    next_frame(browser)
    at = browser.evaluate("document.querySelector('.peaks tr[data-at]').dataset.at.split(' ').map(Number)")
    assert read_viewer(browser)["mm"] == at
    assert browser.complaints() == []


def test_readout_is_what_the_table_of_peaks_says(browser, folder):
    browser.open(folder / "group_faces.html")
    for row in range(2):
        peak = f"document.querySelectorAll('.peaks tr[data-at]')[{row}]"
        z, effect, low = (
            browser.evaluate(f"Number({peak}.querySelectorAll('data')[{index}].value)") for index in (0, 1, 2)
        )
        browser.evaluate(f"{peak}.click()")
        next_frame(browser)
        words = read_viewer(browser)["words"].replace("\N{MINUS SIGN}", "-")
        facts = dict(part.rsplit(" ", 1) for part in words.replace(" percent", "").split(" · ") if part.count(" ") == 1)
        # two decimals of a value that is off by a tenth of the last at most
        assert float(facts["z"]) == pytest.approx(z, abs=0.0061)
        part = next(one for one in words.split(" · ") if one.startswith("effect")).split()
        assert float(part[1]) == pytest.approx(effect, abs=0.00061)
        assert float(part[3]) == pytest.approx(effect - low, rel=0.056)  # two digits


def test_mouse_and_keys_move_the_crosshair(browser, folder):
    browser.open(folder / "group_faces.html")
    canvas = "document.querySelectorAll('.viewer .slice canvas')[2]"
    browser.evaluate(f"{canvas}.scrollIntoView({{block: 'center'}})")
    box = browser.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])({canvas}.getBoundingClientRect())")
    place = {"x": box[0] + 0.5 * box[2], "y": box[1] + 0.5 * box[3], "button": "left", "clickCount": 1}
    browser.call("Input.dispatchMouseEvent", type="mousePressed", **place)
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", **place)
    next_frame(browser)
    x, y, z = read_viewer(browser)["mm"]
    assert (x, y) == (0, 0)  # the grid's middle
    browser.evaluate(f"{canvas}.focus()")
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "PageUp"):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)
    next_frame(browser)
    top = 18  # of the grid; there the crosshair stays
    assert read_viewer(browser)["mm"] == [4, 8, min(z + 4, top)]


def test_threshold_and_mask_hide_voxels(browser, folder):
    browser.open(folder / "group_faces.html")
    canvas = "document.querySelectorAll('.viewer .slice canvas')[0]"

    def coloured(shown: str, threshold: str) -> int:
        for name, value in (("shown", shown), ("threshold", threshold)):
            one = f"document.querySelector('.viewer .{name}')"
            browser.evaluate(f"{one}.value = '{value}', {one}.dispatchEvent(new Event('input'))")
        next_frame(browser)
        return browser.evaluate(
            f"""(() => {{ const c = {canvas}, p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
            let n = 0;
            for (let i = 0; i < p.length; i += 4) n += Math.abs(p[i] - p[i + 2]) > 6; // not grey
            return n; }})()"""
        )

    whole, raised, passed = coloured("0", "0"), coloured("0", "2"), coloured("1", "0")
    assert whole > raised > 0
    assert whole > passed > 0
    assert browser.evaluate("document.querySelector('.viewer .level').textContent") == "0.00"


def test_headings_sort_and_what_is_missing_stays_last(browser, folder):
    browser.open(folder / "group_faces.html")

    def press(column: int) -> list[str]:
        browser.evaluate(
            f"document.querySelectorAll('.scroll[aria-label^=Clusters] th')[{column}].querySelector('button').click()"
        )
        return browser.evaluate(
            "[...document.querySelector('.scroll[aria-label^=Clusters] tbody').rows]"
            ".map((row) => row.cells[0].textContent).join()"
        ).split(",")

    assert press(4) == ["1", "2", "3"]  # peak z, largest first
    assert (
        browser.evaluate("document.querySelectorAll('.scroll[aria-label^=Clusters] th')[4].getAttribute('aria-sort')")
        == "descending"
    )
    assert press(4) == ["2", "1", "3"]
    assert press(5) == ["3", "2", "1"]  # regions as words: Amygdala, cuneus, Insula
    assert press(1) == ["3", "1", "2"]
    assert browser.evaluate("document.querySelectorAll('.scroll[aria-label^=Clusters] th[aria-sort]').length") == 1


def test_without_scripts_the_page_reads_and_shows_no_viewer(browser, folder):
    browser.open(folder / "group_faces.html", scripts=False)
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    viewer = browser.call("DOM.querySelector", nodeId=root, selector=".viewer")["nodeId"]
    html = browser.call("DOM.getOuterHTML", nodeId=viewer)["outerHTML"]
    assert " hidden" in html.partition(">")[0]
    table = browser.call("DOM.querySelector", nodeId=root, selector="table.sortable")["nodeId"]
    assert "<button" not in browser.call("DOM.getOuterHTML", nodeId=table)["outerHTML"]
    assert browser.complaints() == []


def test_paper_has_the_results_and_what_was_unfolded(browser, folder):
    browser.open(folder / "group_faces.html", unfold=False)
    whole = "[...document.querySelectorAll('details')].find((one) => /whole maps/.test(one.firstChild.textContent))"
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert not browser.evaluate("document.querySelector('.viewer').checkVisibility()")
    shown = "[...document.querySelectorAll('details')].filter((one) => one.checkVisibility())"
    folds = browser.evaluate(f"{shown}.map((one) => one.firstChild.textContent)")
    assert {"Table of clusters and their peaks", "How it was decided", "Thresholds"} <= set(folds)
    assert not {"The maps at the peaks", "The whole maps, not thresholded", "Slices"} & set(folds)
    assert browser.evaluate("document.querySelector('#references li').checkVisibility()")
    browser.evaluate(f"{whole}.open = true")
    assert browser.evaluate(f"{whole}.querySelector('figure').checkVisibility()")


@pytest.mark.slow
def test_pages_of_the_demonstration_are_short_and_small(browser, tmp_path):
    assert run_demo(tmp_path / "demo", nprocs=1) == 0
    for page in sorted((tmp_path / "demo" / "results").glob("*/group_*.html")):
        assert page.stat().st_size < 5_000_000
        browser.open(page, unfold=False)
        assert browser.complaints() == []
        assert browser.evaluate("document.documentElement.scrollHeight") <= 8000
        # what was found, where, and the largest clusters with regions: on the first screen, or the one after it
        first = "document.querySelector('.panel .first')"
        assert browser.evaluate(f"{first}.getBoundingClientRect().top") < 1000
        assert browser.evaluate(f"{first}.querySelectorAll('.mark-number').length") > 3


def test_a_link_into_a_hidden_tab_shows_it(browser, folder):
    browser.open(folder / "group_faces.html", unfold=False)
    link = browser.evaluate("[...document.querySelectorAll('#found td a')].at(-1).getAttribute('href')")
    shown = f"document.querySelector({json.dumps(link)}).getClientRects().length"
    assert browser.evaluate(shown) == 0
    browser.evaluate(f"document.querySelector('#found a[href={json.dumps(link)}]').click()")
    browser.wait(f"{shown} > 0")
    browser.call("Emulation.setEmulatedMedia", media="print")  # paper has no tabs: all of them are shown
    hidden = "[...document.querySelectorAll('.panel')].filter((one) => !one.getClientRects().length).length"
    assert browser.evaluate(hidden) == 0
