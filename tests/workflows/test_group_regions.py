"""A table of regions from the importer to the page: the numbers of R's metafor, and what a reader sees."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

KNOWN = json.loads((Path(__file__).parents[1] / "reference" / "regions.json").read_text())
STEM = "seg-DesikanKilliany_contrast-ill"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cli, ibma_import):
    root = tmp_path_factory.mktemp("regions")
    keys = ("study_id", "region", "d", "n1", "n2")
    rows = ["\t".join((*keys, "contrast"))]
    rows += ["\t".join([*(str(row[key]) for key in keys), "ill"]) for row in KNOWN["rows"]]
    (root / "table.tsv").write_text("\n".join(rows) + "\n")
    assert ibma_import("table", root / "table.tsv", root / "maps").code == 0
    (root / "z.toml").write_text('[estimator.fixed-effects]\ntest = "z"\n')
    words = ("--estimator", "reml", "fixed-effects", "--config-file", root / "z.toml", "--min-coverage", "0.5")
    ran = cli(root / "maps", root / "out", "group", *words, "--inference", "fdr", "max-stat", "--permutations", "200")
    assert ran.code == 0, ran.stderr
    return root


def read_map(path):
    with path.open(newline="") as stream:
        return {row["name"]: float(row["value"]) for row in csv.DictReader(stream, delimiter="\t")}


@pytest.mark.parametrize(("estimator", "known"), [("reml", KNOWN["reml"]), ("fixedEffects", KNOWN["fixed"])])
def test_numbers_are_metafors(folder, estimator, known):
    """2e-5 relative: maps have single precision on the way in and out."""
    group = folder / "out" / "group"
    kinds = {"effect": "effect", "q": "q", "i2": "i2", "n": "k"} | ({"tau2": "tau2"} if estimator == "reml" else {})
    for kind, key in kinds.items():
        found = read_map(group / f"{STEM}_desc-{estimator}_stat-{kind}_statmap.tsv")
        assert len(found) == 6
        for one in known:
            assert found[one["region"]] == pytest.approx(one[key], rel=2e-5, abs=2e-6 if kind != "i2" else 2e-3)
    variance = read_map(group / f"{STEM}_desc-{estimator}_stat-variance_statmap.tsv")
    for one in known:
        assert np.sqrt(variance[one["region"]]) == pytest.approx(one["se"], rel=2e-5)


def test_what_a_study_lacks_is_not_0(folder):
    text = (folder / "maps" / "study-s4" / f"study-s4_{STEM}_stat-effect_statmap.tsv").read_text()
    assert "1035\tL_insula\tn/a" in text
    effects = {row["region"]: row["d"] for row in KNOWN["rows"] if row["study_id"] == "s4"}
    assert f"\tL_bankssts\t{effects['L_bankssts']}\n" in text  # as the table has it, not 0.10000000149


def test_the_page_speaks_of_parcels(folder):
    page = (folder / "out" / f"group_{STEM}.html").read_text(encoding="utf-8")
    words = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.S)
    assert "combined by reml, fixed-effects at 6 parcels" in words
    assert "A bar for each region of DesikanKilliany" in words
    for wrong in ("voxel", "Axial", " nan", "xyz", "cluster 1"):
        assert wrong not in words.replace("n_voxels", ""), wrong
    significant = {
        row["name"] for row in _clusters(folder / "out" / "group" / f"{STEM}_desc-reml_corr-fdr_clusters.tsv")
    }
    assert significant
    for region in KNOWN["rows"]:  # a forest plot for each
        assert re.search(rf"at {region['region']}\s*:", words), region
    assert len(list((folder / "out" / "figures").glob(f"{STEM}_desc-reml_peak-*_forest.svg"))) == 6
    assert "Every parcel is shown. For those picked out as extreme: their effects are overestimates" in words


def _clusters(path):
    with path.open(newline="") as stream:
        return [{"name": row["region"]} for row in csv.DictReader(stream, delimiter="\t")]


def test_an_exact_0_is_a_value(tmp_path, cli, ibma_import):
    rows = ["study_id\tcontrast\tregion\td\tse"]
    rows += [
        f"s{number}\tc\t{name}\t{value}\t0.1" for number in range(6) for name, value in (("one", 0.0), ("two", 0.3))
    ]
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    assert ibma_import("table", tmp_path / "t.tsv", tmp_path / "maps").code == 0
    words = ("group", "--estimator", "fixed-effects", "--inference", "fdr", "--no-report")
    assert cli(tmp_path / "maps", tmp_path / "out", *words).code == 0
    stem = tmp_path / "out" / "group" / "seg-regions_contrast-c_desc-fixedEffects_stat"
    assert read_map(stem.with_name(f"{stem.name}-n_statmap.tsv")) == {"one": 6, "two": 6}
    effect = read_map(stem.with_name(f"{stem.name}-effect_statmap.tsv"))
    assert effect == {"one": pytest.approx(0, abs=1e-30), "two": pytest.approx(0.3)}
