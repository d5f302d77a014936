"""Pages: the numbers are those of the maps, nothing is loaded, nothing is injected."""

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser

import nibabel
import numpy as np
import pytest
from scipy import stats

from ibma_app.core.errors import Note
from ibma_app.core.results import MapFlag, MapSlices, RunFacts, Similarity
from ibma_app.inference import find_inference
from ibma_app.report.cluster_tables import read_clusters
from ibma_app.report.figures.brains.slices import choose_slices
from ibma_app.report.html import format_number, page_script
from ibma_app.report.index.index_page import write_index
from ibma_app.report.pages import write_analysis_page, write_participant_page

ATTACK = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Elements, attributes that load something, and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.links, self.loads, self.ids, self.words = [], [], [], [], []
        self.images = []
        self.values, self.scripts, self.blocks = [], [], []
        self._inside = None  # what collects the text of a script
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.images.append(attrs)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "a":
            self.links.append(attrs.get("href", ""))
        else:
            self.loads += [attrs[name] for name in ("src", "href", "data", "srcset", "action") if name in attrs]
        if tag == "data":
            self.values.append(attrs["value"])
        if tag == "script":
            self._inside = self.blocks if attrs.get("type") == "text/plain" else self.scripts

    def handle_endtag(self, tag):
        self._inside = None if tag == "script" else self._inside

    def handle_data(self, data):
        (self.words if self._inside is None else self._inside).append(data)

    def runs_only_ours(self) -> bool:
        """Whether the page's only script is our own, and its blocks of data are base64."""
        base64 = all(re.fullmatch(r"[A-Za-z0-9+/]+=*", block) for block in self.blocks)
        return base64 and self.scripts in ([], [page_script()])

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(path, grid):
    return np.asarray(nibabel.load(path).dataobj, dtype=float)[grid.mask]


@pytest.fixture(scope="module")
def group_page(tmp_path_factory, group_results, save):
    results = group_results(tmp_path_factory.mktemp("group"), moderator=True, estimators=("reml", "stouffer-rfx"))
    software = {"ibma-app": "1.2", "numpy": "9.9"}
    path = write_analysis_page(results, "group_faces.html", save, version="1.2", software=software)
    return results, path, path.read_text(encoding="utf-8")


def test_extremes_and_counts_are_those_of_the_maps(tmp_path, group_results, save):
    results = group_results(tmp_path)
    page = Page(write_analysis_page(results, "group_faces.html", save).read_text(encoding="utf-8"))
    result, grid = results.estimators[0], results.grid
    z, effect, variance, dof = (read(result.path(kind), grid) for kind in ("z", "effect", "variance", "dof"))
    xyz = np.argwhere(grid.mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    for best in (z.argmax(), z.argmin()):
        half = stats.t.ppf(0.975, dof[best]) * np.sqrt(variance[best])
        shown = [float(value) for value in page.values if value not in ("", None)]
        # the page carries doubles of the files' float32 numbers: equal up to rounding of the arithmetic
        for number in (z[best], effect[best], effect[best] - half, effect[best] + half):
            assert np.isclose(shown, number, rtol=1e-12, atol=0).any()
        assert ", ".join(format_number(float(mm)) for mm in xyz[best]) in page.text
    passed = read(result.path("mask", inference="fdr"), grid) > 0
    assert str(int(passed.sum())) in page.values
    n_positive, n_negative = (format_number(int((passed & side).sum())) for side in (z > 0, z < 0))
    assert f"{n_positive} positive, {n_negative} negative" in page.text
    for value in (np.median(read(result.path("tau2"), grid)), np.median(read(result.path("i2"), grid))):
        assert repr(float(value)) in page.values
    assert f"{100 * passed.sum() / grid.n_voxels:.2f} %" in page.text


def test_survey_is_on_the_page(group_page):
    results, _, text = group_page
    page = Page(text)
    for row in results.survey:
        assert row.label.split("_")[0] in page.text
        assert repr(100.0 * row.covered / results.grid.n_voxels) in page.values
        assert all(uri in page.text for uri in row.uris)
        assert str(row.median_variance) in page.values
    assert "variance from effect and t" in page.text
    assert "5 variance 0" in page.text
    assert "Few maps: 6." in page.text
    assert page.text.index("Few maps: 6.") < page.text.index("study-01 2 files")


def test_top_tells_every_estimator_test_and_inference(group_page):
    results, _, text = group_page
    part = text.split('id="found"')[1].split("</section>")[0]
    names = re.findall(r'<th scope="col" class="num">([^<]+)', part)
    found = {}
    for row in re.findall(r"<tr><td>.*?</tr>", part):
        estimator, test = re.search(r"<td>([^<]+)</td>.*?<a[^>]*>([^<]+)", row).groups()
        for name, count in zip(names, re.findall(r'<data value="(\d+)"', row), strict=True):
            found[estimator, test, name] = int(count)
    expected = {}
    for result in results.estimators:
        for test in results.design.tests:
            for inference in ("fdr", "bonferroni"):
                mask = read(result.path("mask", test=test.name, inference=inference), results.grid)
                label = "faces (intercept)" if test.name == "intercept" else test.name
                expected[result.estimator.name, label, inference] = int(mask.sum())
    assert found == expected


def test_map_that_cost_voxels_is_named(tmp_path, group_results, save):
    results = group_results(tmp_path, n_maps=30, unit="subject")
    whole = results.grid.n_voxels
    survey = tuple(
        replace(row, covered=whole, losses={}, cost=321 if index == 20 else 0)
        for index, row in enumerate(results.survey)
    )
    results = replace(results, survey=survey, settings={**results.settings, "min_coverage": None})
    page = Page(write_analysis_page(results, "group_cost.html", save).read_text(encoding="utf-8"))
    assert "because the mask holds only voxels that all maps cover" in page.text
    assert "most: sub-21 (321)" in page.text
    assert "Coverage of the mask" not in page.text
    assert "18 more maps" in page.text  # folded, yet on the page
    assert "sub-30" in page.text


def test_tables_of_regions_and_of_surfaces(tmp_path):
    path = tmp_path / "clusters.tsv"
    head = "cluster_id\tstructure\tx\ty\tz\tpeak_z\tn_voxels\tregion"
    path.write_text(f"{head}\n1\tToy\tn/a\tn/a\tn/a\t5.0\t1\tL_insula\n", encoding="utf-8")
    table = read_clusters(path, tmp_path)
    assert [name for name, _ in table.columns] == ["Number", "Structure", "Peak z", "Region"]
    path.write_text(f"{head}\n1\tCORTEX_LEFT\t1\t2\t3\t5.0\t4\tn/a\n", encoding="utf-8")
    table = read_clusters(path, tmp_path)
    assert [name for name, _ in table.columns][:2] == ["Cluster", "Structure"]
    assert table.largest[0].structure == "CORTEX_LEFT"


def test_cluster_columns_of_atlases_and_ari(tmp_path):
    path = tmp_path / "clusters.tsv"
    head = "cluster_id\tx\tpeak_z\tvolume_mm3\tregion_aal\tregion_own\ttdp"
    rows = ["1\t6.875\t5.123456789\t61734.814\tInsula 2\tn/a\t0.3298", "1a\t-4\t5.0\tn/a\tInsula 1\tn/a\tn/a"]
    path.write_text("\n".join((head, *rows)), encoding="utf-8")
    table = read_clusters(path, tmp_path, find_inference("ari").columns)
    names = [name for name, _ in table.columns]
    assert names == ["Cluster", "x (mm)", "Peak z", "Volume (mm³)", "Region (aal)", "Truly active, at least (%)"]
    assert table.rows == (
        ("1", "6.9", "5.123", "61,735", "Insula 2", "33.0"),
        ("1a", "-4.0", "5.0", "–", "Insula 1", "–"),
    )
    assert (table.n_rows, table.n_clusters) == (2, 1)


def test_cluster_table_shows_first_rows_and_links_the_rest(group_page):
    results, path, text = group_page
    page = Page(text)
    table = results.estimators[0].path("clusters", test="age", inference="fdr")
    with table.open(newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))
    assert f"12 of {len(rows) - 1} rows" in page.text
    assert table.relative_to(path.parent).as_posix() in page.links


def test_every_test_and_estimator_has_its_part(group_page):
    _, _, text = group_page
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert set(anchors) <= set(page.ids)
    for name in ("faces (intercept)", "age", "any"):
        assert len(re.findall(rf"{re.escape(name)} (?:t|F|z) test, ", page.text)) == 2
    # F tests have no smallest z and no direction
    part = re.search(r"any (?:F|z) test, .*?The fit", page.text).group(0)
    assert "smallest z" not in part
    assert "positive" not in part
    assert "the smallest significant z is" in part
    assert "where z ≥" in part
    assert "|z|" not in part


def test_pages_are_self_contained(group_page, tmp_path, participant_results, save):
    _, _, text = group_page
    participant = write_participant_page("01", [participant_results(tmp_path)], save)
    index = write_index(tmp_path, save)
    for content in (text, participant.read_text("utf-8"), index.read_text("utf-8")):
        page = Page(content)
        assert all(load.startswith(("data:", "#")) for load in page.loads)
        assert page.runs_only_ours()
        assert "url(" not in content
        assert "@import" not in content
        assert "prefers-color-scheme: dark" in content
        assert "@media print" in content
        assert "color-scheme: light dark" in content
        assert page.links[0] == "#content"  # the keyboard's way past the contents
    assert text.count('<th scope="row">ibma-app</th>') == 1  # among the software


def test_pages_are_small_and_the_same_each_time(group_page, group_results, tmp_path, save):
    results, path, text = group_page
    assert path.stat().st_size < 3e6
    write_analysis_page(results, "group_faces.html", save, version="1.2", software={"numpy": "9.9"})
    assert path.read_text(encoding="utf-8") == text


def test_many_maps_stay_small(tmp_path, group_results, save):
    results = group_results(tmp_path, n_maps=2000, unit="subject", moderator=True)
    path = write_analysis_page(results, "group_faces.html", save)
    assert path.stat().st_size < 15e6


def test_labels_and_metadata_harm_nobody(tmp_path, group_results, participant_results, save):
    results = group_results(tmp_path, contrast=ATTACK, units='"><img src=x onerror=alert(1)>')
    pages = [write_analysis_page(results, "group_attack.html", save, software={ATTACK: ATTACK})]
    pages += [write_index(tmp_path, save)]
    for path in pages:
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert page.runs_only_ours()
        assert all(set(one) == {"alt", "src"} and one["src"].startswith("data:image/png;") for one in page.images)
        assert ATTACK not in text
        assert ATTACK in page.text  # it can be read all the same


def test_participant_page_tells_all_contrasts(tmp_path, participant_results, save):
    both = [participant_results(tmp_path, name, seed=seed) for seed, name in enumerate(("faces", "houses"))]
    path = write_participant_page("01", both, save, version="3")
    page = Page(path.read_text(encoding="utf-8"))
    assert path.name == "sub-01.html"
    for results in both:
        z = read(results.estimators[0].path("z"), results.grid)
        assert repr(float(z.max())) in page.values
        assert results.analysis.name in page.text
    assert "204" in page.text  # the summed dof
    assert "ibma-app 3" in page.text


def test_participant_notes_keep_their_contrast(tmp_path, participant_results, save):
    alone, shared = "Run 2 has another grid.", "dof unknown."
    analyses = [participant_results(tmp_path, name) for name in ("faces", "houses", "tools")]
    noted = [
        replace(analyses[0], notes=(Note(alone), Note(shared))),
        replace(analyses[1], notes=(Note(alone), Note(shared))),
        replace(analyses[2], notes=(Note(shared),)),
    ]
    page = Page(write_participant_page("01", noted, save).read_text(encoding="utf-8"))
    assert f"contrast faces, space T1w; contrast houses, space T1w: {alone}" in page.text
    assert f"all 3 contrasts: {shared}" in page.text
    assert page.text.count(alone) == page.text.count(shared) == 1


def test_participant_page_caps_its_pictures(tmp_path, participant_results, save, monkeypatch):
    monkeypatch.setattr("ibma_app.report.pages.PICTURED_CONTRASTS", 1)
    both = [participant_results(tmp_path, name) for name in ("a", "b")]
    page = Page(write_participant_page("01", both, save).read_text(encoding="utf-8"))
    assert page.tags.count("figure") == 2  # effect, z of the first
    assert "No pictures" in page.text


def test_index_lists_every_page_in_order(tmp_path, group_results, save):
    for name in ("sub-10.html", "sub-2.html", "sub-01.html", "group_b.html", "other.html"):
        (tmp_path / name).write_text("<title>Odd &amp; old</title>", encoding="utf-8")
    write_analysis_page(group_results(tmp_path), "group_a.html", save)
    path = write_index(tmp_path, save)
    page = Page(path.read_text(encoding="utf-8"))
    found = [link for link in page.links if link.endswith(".html")]
    assert found == ["group_a.html", "group_b.html", "sub-01.html", "sub-2.html", "sub-10.html"]
    assert "Odd & old" in page.text
    assert "6 studies combined by reml" in page.text
    assert "logs/" in page.links
    before = path.read_bytes()
    assert write_index(tmp_path, save).read_bytes() == before


def test_index_shows_what_was_found_and_outliers_first(tmp_path, group_results, participant_results, save):
    results = group_results(tmp_path, n_maps=3, unit="subject")
    flag = MapFlag("scale", (1,), "sub-02 is large")
    similar = Similarity("effect", 9, ((None,) * 3,) * 3, (0, 1, 2), (0.1, 0.6, 0.5), (1.0, 1.0, 1.0), (flag,))
    results = replace(results, similarity=similar)
    write_analysis_page(results, "group_a.html", save)
    for label in ("01", "02", "03"):
        write_participant_page(label, [participant_results(tmp_path, label=label)], save)
    text = write_index(tmp_path, save).read_text(encoding="utf-8")
    page = Page(text)
    found = [link for link in page.links if link.startswith("sub-")]
    assert found == ["sub-02.html", "sub-01.html", "sub-03.html"]  # what stands out, then the lowest correlation
    assert "r = 0.60" in page.text
    assert text.count("<small>stands out</small>") == 1
    assert text.count('class="thumbnail"') == 4
    for finding in results.estimators[0].findings:
        mask = read(results.estimators[0].path("mask", inference=finding.inference.name), results.grid)
        assert str(int(mask.sum())) in page.values
    assert re.search(r"\d+ warnings? (?:or note|and notes)", page.text)


def test_runs_stand_beside_what_they_were_combined_to(tmp_path, participant_results, save):
    results = participant_results(tmp_path)
    levels, voxels = choose_slices(results.grid)
    rng = np.random.default_rng(3)
    slices = MapSlices(levels, voxels, rng.normal(size=(2, voxels.size)).astype(np.float32))
    similar = Similarity("effect", 989, ((None, -0.25), (-0.25, None)), (0, 1), (None, None), (1.0, 1.0))
    page = Page(
        write_participant_page("01", [replace(results, slices=slices, similarity=similar)], save).read_text("utf-8")
    )
    assert "The effects of run-1 and run-2 correlate by −0.25 over 989 voxels." in page.text
    assert page.text.count(" combined ") >= 1
    drawn = (tmp_path / "figures" / f"{results.analysis.name}_stat-effect_runs.svg").read_text(encoding="utf-8")
    assert [name in drawn for name in (">run-1<", ">run-2<", ">combined<")] == [True] * 3
    assert results.grid.mask.ravel()[voxels].all()


def test_page_tells_how_and_when_it_ran(tmp_path, group_results, save):
    ran = RunFacts("ibma-app 'a b' out group", "2026-01-02 03:04 UTC", 3725.0)
    path = write_analysis_page(group_results(tmp_path), "group_a.html", save, ran=ran)
    page = Page(path.read_text(encoding="utf-8"))
    assert "Run 2026-01-02 03:04 UTC, 1 h 2 min" in page.text
    assert "ibma-app 'a b' out group" in page.text
    assert [RunFacts("", "", seconds).duration for seconds in (0.2, 61.0, None)] == ["1 s", "1 min 1 s", ""]


@pytest.mark.parametrize(
    ("shape", "size"), [((6, 10, 10), 25.0), ((10, 10, 10), 2.0), ((1, 1, 1), 3.0), ((7, 5, 1), 4.0)]
)
@pytest.mark.parametrize("space", ["MNI152NLin6Asym", "T1w"])
def test_grids_that_are_no_brain(tmp_path, group_results, grid_maker, save, shape, size, space):
    grid = grid_maker(shape, size, hole=False)
    results = group_results(tmp_path, grid=grid, space=space)
    page = Page(write_analysis_page(results, "group_tiny.html", save).read_text(encoding="utf-8"))
    assert page.tags.count("figure") >= 3  # design, tau, I2; nothing may be significant
    assert format_number(grid.n_voxels) in page.text


def test_nothing_significant_is_said(tmp_path, group_results, save):
    results = group_results(tmp_path, significant=False)
    page = Page(write_analysis_page(results, "group_none.html", save).read_text(encoding="utf-8"))
    assert "No voxel is significant by false discovery rate (Benjamini-Hochberg). The largest |z| is" in page.text
    assert "Nothing is significant by either of the two inferences." in page.text
    assert "z where significant" not in page.text
    assert "not thresholded" not in page.text  # no picture of noise
