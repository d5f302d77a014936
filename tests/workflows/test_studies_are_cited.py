"""Studies are citable: their DOI and authors are in sidecars, on the page and among the references."""

import json

import numpy as np
import pytest

SHAPE = (6, 6, 6)


@pytest.fixture
def studies(tmp_path, write_statmap, describe_dataset):
    rng = np.random.default_rng(4)
    root = describe_dataset(tmp_path / "in")
    for label in "abcde":
        about = {"SampleSize": 20, "DegreesOfFreedom": 19}
        if label == "c":
            about |= {"DOI": "10.1000/c", "Authors": "Cy C & Di D", "Title": "The <third>"}
        write_statmap(root, "z", rng.normal(size=SHAPE), study=label, space="T1w", contrast="x", metadata=about)
    (root / "studies.tsv").write_text(
        "study_id\tdoi\na\thttps://doi.org/10.1000/a\nb\tin press\nc\tn/a\nd\t10.1000/d_1\ne\tn/a\n"
    )
    return root


def test_from_the_table_to_the_references(tmp_path, studies, cli):
    out = tmp_path / "out"
    ran = cli(studies, out, "group", "--estimator", "stouffer", "--inference", "bonferroni", "--mask", "data")
    assert ran.code == 0, ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if "DOI" in line]
    assert "study-b ('in press' in" in line
    assert "line 3)" in line
    sidecar = json.loads(next((out / "group").glob("*_stat-z_statmap.json")).read_text())
    assert sidecar["StudyReferences"] == [
        {"Study": "a", "DOI": "10.1000/a"},
        {"Study": "c", "DOI": "10.1000/c", "Authors": "Cy C & Di D", "Title": "The <third>"},
        {"Study": "d", "DOI": "10.1000/d_1"},
    ]
    page = next(out.glob("group_*.html")).read_text()
    table, references = page.split('<ol class="references">')
    assert 'href="https://doi.org/10.1000/a"' in table
    assert "Cy C &amp; Di D" in table
    assert "Study c: Cy C &amp; Di D. The &lt;third&gt;." in references
    assert references.count("https://doi.org/10.1000/") == 6  # an address and its text
    cite = (out / "CITATION.md").read_text()
    assert "- Study a: <https://doi.org/10.1000/a>" in cite
    assert "- Study c: Cy C & Di D. The \\<third\\>. <https://doi.org/10.1000/c>" in cite
    again = cli(studies, out, "group", "--reports-only")
    assert again.code == 0, again.stderr
    assert next(out.glob("group_*.html")).read_text() == page


def test_a_table_of_maps_hands_them_on(tmp_path, write_statmap, ibma_import, cli):
    rng = np.random.default_rng(4)
    rows = ["study_id\tpath\tkind\tcontrast\tspace\tsample_size\tdoi\tauthors"]
    for label, doi, authors in (("a", "doi:10.1000/a", "Ada A"), ("b", "10.1000", "n/a"), ("c", "n/a", "n/a")):
        path = write_statmap(tmp_path / "maps", "t", rng.standard_t(19, size=SHAPE), sub=label, contrast="x")
        rows.append(f"{label}\t{path}\tt\tx\tT1w\t20\t{doi}\t{authors}")
    (tmp_path / "maps.tsv").write_text("\n".join(rows))
    ran = ibma_import("table", tmp_path / "maps.tsv", tmp_path / "in")
    assert ran.code == 0, ran.stderr
    assert "line 3: '10.1000' is no DOI" in ran.stderr
    imported = tmp_path / "in"
    (sidecar,) = imported.glob("study-a/*_stat-t_statmap.json")
    content = json.loads(sidecar.read_text())
    assert (content["DOI"], content["Authors"]) == ("10.1000/a", "Ada A")
    header, *cells = (line.split("\t") for line in (imported / "studies.tsv").read_text().splitlines())
    column = header.index("doi")
    assert [row[column] for row in cells] == ["10.1000/a", "10.1000", "n/a"]
    words = ("--estimator", "stouffer", "--inference", "bonferroni", "--mask", "data", "--no-report")
    assert cli(imported, tmp_path / "out", "group", *words).code == 0
    assert "Study a: Ada A. <https://doi.org/10.1000/a>" in (tmp_path / "out" / "CITATION.md").read_text()
