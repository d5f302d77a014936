"""Methods text says what was run, and nothing else."""

import base64
import html
import re
from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.grid import Grid
from ibma_app.core.methods import Citation
from ibma_app.core.results import INTERPOLATED
from ibma_app.report.pages import write_analysis_page
from ibma_app.report.text.citations import bibtex, merge_texts, paste_texts
from ibma_app.report.text.methods_section import (
    escape_markdown,
    methods_markdown,
    methods_text,
    readme_intro,
    references_markdown,
)
from ibma_app.stream.grid_and_mask import choose_mask


def words(results, version="1.0"):
    return " ".join(methods_text(results, version).paragraphs)


def with_estimator(results, **changes):
    return replace(results, estimators=(replace(results.estimators[0], **changes),))


def test_mixed_model_names_maps_test_and_inference(tmp_path, group_results):
    text = words(group_results(tmp_path))
    for phrase in (
        "effect and variance", "6 studies", "percent", "1/(variance + tau2)", "Knapp and Hartung",
        "75 %", "alpha = 0.05", "false discovery rate", "ibma-app 1.0", "intercept alone",
    ):  # fmt: skip
        assert phrase in text
    assert "automatically" not in text


@pytest.mark.parametrize(
    ("setting", "said", "unsaid"),
    [("z", "normal distribution", "Knapp"), ("t", "Wald", "Knapp"), ("adhoc", "at least one", "normal")],
)
def test_settings_change_the_words(tmp_path, group_results, setting, said, unsaid):
    text = words(with_estimator(group_results(tmp_path), settings={"test": setting}))
    assert said in text
    assert unsaid not in text
    assert "Settings:" not in text  # the words tell it


def test_settings_without_words_are_listed(tmp_path, group_results):
    text = words(with_estimator(group_results(tmp_path), settings={"test": "knha", "tau2_ci": "yes", "depth": "3"}))
    assert "Settings: depth = 3." in text
    assert "95 % interval of tau2 is by the Q profile" in text


def test_reason_of_auto_is_told(tmp_path, group_results):
    text = words(with_estimator(group_results(tmp_path), reason="auto: every map comes with both"))
    assert "chosen automatically: every map comes with both." in text


def test_design_and_tests_are_written_out(tmp_path, group_results):
    text = words(group_results(tmp_path, moderator=True))
    assert "'1 + age' (6 rows, 2 columns: Intercept, age)" in text
    assert "any (F contrast, upper-tail): Intercept, age" in text


def test_z_family_names_its_question(tmp_path, group_results):
    text = words(group_results(tmp_path, estimators=("stouffer-rfx",)))
    assert "consistent over studies" in text
    assert "Units of the effects played no part" in text
    assert "tau2" not in text


def test_participant_words(tmp_path, participant_results):
    results = participant_results(tmp_path)
    text = words(results)
    assert "2 sets of maps (effect) were combined over run" in text
    assert "sum of the dof" in text
    assert "at least one map covers" in text
    assert "alpha" not in text
    equal = words(with_estimator(results, settings={"weights": "equal"}))
    assert "plain mean" in equal
    assert "inverse of their sampling variances" not in equal


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_coverage": None}, "fewer than 75 %"),
        ({"min_coverage": 0.5}, "fewer than 50 %"),
        ({"min_coverage": 1.0}, "not all maps cover"),
        ({"mask": "auto"}, "nilearn's MNI152 brain mask"),
        ({"mask": "/somewhere/grey.nii.gz"}, "the mask grey.nii.gz"),
        ({"grid": "mni2mm"}, "MNI152 2 mm grid"),
        ({"smoothing": 6.0}, "6 mm FWHM"),
        ({"units_policy": "assume-same"}, "on the word of the user"),
        ({"units_policy": "hedges-g"}, "Hedges' g"),
        ({"min_extent": 10}, "fewer than 10 voxels"),
    ],
)
def test_options_are_in_the_words(tmp_path, group_results, settings, said):
    results = group_results(tmp_path)
    assert said in words(replace(results, settings={**results.settings, **settings}))


def test_variances_of_maps_on_other_grids(tmp_path, group_results):
    results = group_results(tmp_path)
    moved = replace(results.survey[0], derived=("variance from effect and t", INTERPOLATED))
    text = words(replace(results, survey=(moved, *results.survey[1:])))
    assert "the variance of the 1 map on other grids is about 0.63 to 0.88 of what is stated" in text
    assert "on other grids" not in words(results)
    alone = group_results(tmp_path, estimators=("stouffer-rfx",))
    assert "0.63" not in words(replace(alone, survey=(moved, *alone.survey[1:])))


@pytest.mark.parametrize("unit", ["study", "subject"])
@pytest.mark.parametrize(
    "space", ["MNI152NLin6Asym", "IXI549Space", "MNIPediatricAsym", "ICBM452AirSpace", "Talairach"]
)
def test_the_mask_that_is_taken_is_the_mask_that_is_told(tmp_path, group_results, space, unit):
    affine = np.array([[8.0, 0, 0, -88], [0, 8, 0, -124], [0, 0, 8, -70], [0, 0, 0, 1]])
    mask, _ = choose_mask(Grid.whole(affine, (23, 28, 22)), "auto", unit, [space])
    results = group_results(tmp_path, space=space, unit=unit)
    told = "MNI152 brain mask" in words(replace(results, settings={**results.settings, "mask": "auto"}))
    assert told is (not mask.all())
    assert told is (unit == "study" and space in ("MNI152NLin6Asym", "IXI549Space"))


def test_references_come_once(tmp_path, group_results):
    references = methods_text(group_results(tmp_path), "1").references
    assert len(references) == len(set(references)) == 3
    assert "https://doi.org/10.1000/182" in references[0]


def test_markdown_files(tmp_path, group_results, participant_results):
    assert len(readme_intro("1.0")) > 150
    assert "6 studies" in methods_markdown(group_results(tmp_path), "1.0")
    one, other = (participant_results(tmp_path, label=label) for label in ("01", "02"))
    # jobs in parallel write one README: it must not depend on who was analysed
    assert methods_markdown(one, "1.0") == methods_markdown(other, "1.0")
    assert "<https://doi.org/10.1000/182>" in references_markdown(one)


def test_markdown_is_escaped():
    assert escape_markdown("a_b*c <i> https://x.org/a_b") == r"a\_b\*c \<i\> <https://x.org/a_b>"


def every_citation():
    """List the citations of the whole menu, by key."""
    from ibma_app.estimators import ESTIMATORS, find_estimator
    from ibma_app.inference import INFERENCES, find_inference
    from ibma_app.report.text.methods_section import BIDS_CITATIONS

    records = [*map(find_estimator, ESTIMATORS), *map(find_inference, INFERENCES)]
    return {citation.text: citation for one in records for citation in one.citations} | {
        citation.text: citation for citation in BIDS_CITATIONS
    }


def read_bibtex(text):
    """Read entries as BibTeX does: kind, key and fields, whose braces must balance."""
    entries = {}
    for kind, key, body in re.findall(r"^@(\w+)\{([^,]+),\n(.*?)^\}$", text, re.M | re.S):
        fields = {}
        for line in body.splitlines():
            name, value = re.fullmatch(r"  (\w+) = \{(.*)\},", line).groups()
            bare = re.sub(r"\\[&%$#_{}]", "", value)
            depth = [bare[: i + 1].count("{") - bare[: i + 1].count("}") for i in range(len(bare))]
            assert min(depth, default=0) >= 0
            assert depth[-1:] in ([], [0]), line
            fields[name] = re.sub(r"\\([&%$#_{}])", r"\1", value)
        assert key not in entries, f"two entries have the key {key}"
        entries[key] = (kind, fields)
    return entries


def test_bibtex_is_the_citations_of_the_code():
    citations = list(every_citation().values())
    text = bibtex(citations)
    entries = read_bibtex(text)
    assert len(entries) == len(citations) == text.count("@")
    for citation in citations:
        kind, fields = entries[citation.key]
        assert fields["title"] == f"{{{citation.title}}}"
        assert int(fields["year"]) == citation.year
        assert fields.get("doi", "") == citation.doi
        people = citation.authors.rstrip(".").split(", ")
        families = ["others" if name == "et al" else name.rpartition(" ")[0] for name in people]
        assert [name.partition(",")[0] for name in fields["author"].split(" and ")] == families
        # every part of the source is in a field, and no field says what the source does not
        names = ("edition", "journal", "volume", "number", "pages", "publisher", "address", "howpublished")
        told = " ".join(fields[name].replace("--", "-") for name in names if name in fields)
        assert re.findall(r"\w+", told) == re.findall(r"\w+", citation.source.replace(" edition", ""))
        assert kind in {"article", "book", "misc"}
        assert {"journal"} <= fields.keys() or kind != "article"


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("Tippett LHC", "Tippett, L. H. C."),
        ("Woo C-W, Krebs TJP", "Woo, C.-W. and Krebs, T. J. P."),
        ("van der Vaart AW, et al.", "van der Vaart, A. W. and others"),
        ("The BIDS Maintainers", "{The BIDS Maintainers}"),
    ],
)
def test_names_of_authors(written, wanted):
    entry = bibtex([Citation("key", written, 2000, "A & B: 5 % of C_d", "Press 1, 2-3")])
    assert f"author = {{{wanted}}}," in entry
    assert r"title = {{A \& B: 5 \% of C\_d}}," in entry


def test_markdown_cites_the_keys_of_the_bibtex(tmp_path, group_results, participant_results):
    text = methods_text(group_results(tmp_path), "1.0")
    markdown, library = (one.content for one in paste_texts(text, "group_faces"))
    assert set(re.findall(r"@(\w+)", markdown)) == read_bibtex(library).keys() != set()
    for paragraph in text.paragraphs:
        assert escape_markdown(paragraph) in markdown
    several = merge_texts([methods_text(participant_results(tmp_path, contrast=name), "1.0") for name in ("a", "b")])
    assert len(several.paragraphs) == len(set(several.paragraphs))
    assert sum("contrast b" in paragraph for paragraph in several.paragraphs) == 1


def test_a_page_offers_both_texts_without_scripts(tmp_path, group_results, save):
    results = group_results(tmp_path)
    page = write_analysis_page(results, "group_faces.html", save, version="1.0").read_text(encoding="utf-8")
    offered = {one.file: one for one in paste_texts(methods_text(results, "1.0"), "group_faces")}
    assert sorted(offered) == ["group_faces_methods.md", "group_faces_references.bib"]
    links = dict(re.findall(r'<a download="([^"]+)" href="data:[^,"]+;base64,([^"]+)"', page))
    assert {file: base64.b64decode(code).decode("utf-8") for file, code in links.items()} == {
        file: one.content for file, one in offered.items()
    }
    shown = [html.unescape(one) for one in re.findall(r"<pre [^>]*>(.*?)</pre>", page, re.S)]
    assert shown == [one.content for one in offered.values()]
