"""Tables of regions: what they may say, how errors of published ones are met, and the numbers of R's metafor."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError
from ibma_app.core.study import ImportRequest
from ibma_app.estimators import find_estimator
from ibma_app.importers.table.importer import read, recognises
from ibma_app.importers.table.region_names import find_parcellation, split_side
from ibma_app.stats.group_differences import variance_of_difference

KNOWN = json.loads((Path(__file__).parents[1] / "reference" / "regions.json").read_text())
REQUEST = ImportRequest(for_study=True)


def write(path, header, *rows):
    comma = "," if path.suffix == ".csv" else "\t"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=comma)
        writer.writerows([header.split(), *(row.split() for row in rows)])
    return str(path)


def only(source):
    (contrast,) = read(source, REQUEST).contrasts
    return contrast


def test_studies_and_regions(tmp_path):
    source = write(
        tmp_path / "t.tsv",
        "study_id contrast region effect se sample_size age units",
        "a sick>well R_insula 0.5 0.1 40 31 mm",
        "a sick>well L_insula -0.25 0.2 38 31 mm",
        "study-b sick>well L_insula 1 0.5 n/a 28 mm",
    )
    assert recognises(source)
    study = read(source, REQUEST)
    one, two = study.contrasts
    parcels = one.grid.structures[0]
    assert (parcels.name, parcels.labels, list(parcels.numbers)) == (
        "DesikanKilliany", ("L_insula", "R_insula"), [1035, 2035],
    )  # fmt: skip
    assert study.level == "group"
    assert (one.name, one.sample_size, one.units, one.columns) == ("sick>well", 40, "mm", {"age": 31})
    assert (one.entities, two.entities["study"]) == ({"study": "a", "seg": "DesikanKilliany"}, "b")
    np.testing.assert_array_equal(one.maps["effect"], [-0.25, 0.5])
    np.testing.assert_allclose(one.maps["variance"], [0.04, 0.01], rtol=1e-15)
    np.testing.assert_array_equal(two.maps["effect"], [1, np.nan])
    assert one.grid.matches(two.grid)
    assert (one.dof, two.sample_size) == (None, None)
    assert one.derived == {"variance": "the square of the standard error"}


def test_a_name_that_one_study_alone_has_is_told_with_the_nearest(tmp_path):
    regions = ("L_cuneus", "R_cuneus", "L_insula", "R_insula", "L_lingual", "R_lingual")
    rows = [f"{study} c {region} 0.{at} 0.1" for study in "abc" for at, region in enumerate(regions, 1)]
    source = write(tmp_path / "t.tsv", "study_id contrast region effect se", *rows)
    assert all(not one.notes for one in read(source, REQUEST).contrasts)
    rows[6] = "b c L_cuneusx 0.5 0.1"
    source = write(tmp_path / "t.tsv", "study_id contrast region effect se", *rows)
    one, two, three = read(source, REQUEST).contrasts
    assert (one.notes, three.notes) == ((), ())
    (told,) = two.notes
    assert told.startswith("Region L_cuneusx: b alone of 3 has it; it is none of DesikanKilliany")
    assert told.endswith("Did you mean L_cuneus?")
    source = write(tmp_path / "t.tsv", "study_id contrast region effect se", *rows[6:12])  # one study: no other to tell
    assert only(source).notes[0].endswith("is not known. Did you mean L_cuneus?")


def test_statistics_without_effects_and_subjects(tmp_path):
    source = write(
        tmp_path / "t.csv", "participant_id task contrast region seg t df", "01 x c one my.atlas 2.5 18",
        "01 x c two my.atlas -1 19",
    )  # fmt: skip
    one = only(source)
    assert one.entities == {"sub": "01", "task": "x", "seg": "myatlas"}
    np.testing.assert_array_equal(one.maps["t"], [2.5, -1])
    np.testing.assert_array_equal(one.maps["dof"], [18, 19])
    assert (one.units, one.grid.structures[0].labels) == ("unknown", ("one", "two"))


ODD = {
    "negative": (("-0.2", "", ""), 0.0416, "An error of 0 or less"),
    "of another unit": (("0.05", "", ""), 0.0416, "less than half"),
    "missing, interval": (("", "-0.6", "0.2"), (0.8 / 3.919927969080108) ** 2, "95 % interval"),
    "interval elsewhere": (("", "-0.6", "-0.2"), 0.0416, "not lie about"),
    "interval turned": (("", "0.2", "-0.6"), 0.0416, "not lie about"),
    "missing": (("", "", ""), 0.0416, "sizes of the two groups"),
    "large": (("0.4", "", ""), 0.16, None),
}


@pytest.mark.parametrize("name", ODD)
def test_errors_that_cannot_be(tmp_path, name):
    (se, lower, upper), variance, words = ODD[name]
    path = tmp_path / "t.csv"
    path.write_text(
        "study_id,contrast,region,d,se,ci_lower,ci_upper,n1,n2\n"
        f"a,c,one,-0.2,{se},{lower},{upper},100,80\na,c,two,0.1,0.3,,,50,50\n"
    )
    one = only(str(path))
    expected = variance if variance != 0.0416 else 1 / 100 + 1 / 80 + 0.04 / 360
    np.testing.assert_allclose(one.maps["variance"], [expected, 0.09], rtol=1e-12)
    assert one.units == "cohens-d"
    np.testing.assert_array_equal(one.maps["dof"], [178, 98])
    if words is None:
        assert not [note for note in one.notes if "passed over" in note or "computed" in note]
    else:
        assert any(words in note and "1 of 2 regions: one" in note for note in one.notes)


def test_no_error_at_all_is_left_out(tmp_path):
    source = write(tmp_path / "t.tsv", "study_id contrast region d se", "a c one 0.2 -0.1", "a c two 0.3 0.1")
    one = only(source)
    np.testing.assert_array_equal(np.isnan(one.maps["variance"]), [True, False])
    assert any("left out" in note for note in one.notes)


def test_thousands_p_and_copies(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "study_id,contrast,region,d,n1,n2,p,,\n"
        'a,c,Lput,0.2,"1,446",200,"0,21",,\na,c,Rput,0.2,1446,200,21,,\n'
        "a,c,Lthal,0.1,1446,200,0.2,,\na,c,Rthal,0.1,1446,200,,,\n"
    )
    one = only(str(path))
    assert (one.sample_size, one.columns, one.dof) == (1646, {"n1": 1446, "n2": 200}, 1644)
    text = " ".join(one.notes)
    assert "1,446" in text
    assert "'0,21', '21' not" in text
    assert "given twice" in text
    assert "p" not in one.maps


BAD = {
    "columns": ("study_id region d", "a one 1", "lacks the column contrast"),
    "no effect": ("study_id contrast region se", "a c one 1", "lacks the column effect"),
    "two effects": ("study_id contrast region d beta", "a c one 1 2", "several columns of effects"),
    "two errors": ("study_id contrast region d se stderr", "a c one 1 2 2", "two columns that mean se"),
    "twice": ("study_id contrast region d se", "a c one 1 2\na c ONE 1 2", "lines 2 and 3 both give"),
    "text": ("study_id contrast region d se", "a c one high 2", "line 2: d is 'high', which is no number"),
    "comma": ("study_id contrast region d se", "a c one 0,35 2", "Write decimals with a point"),
    "people": ("study_id contrast region d n1 n2", "a c one 0.3 1.5 2", "whole numbers"),
    "no region": ("study_id contrast region d se", "a c n/a 0.3 1", "line 2: no region"),
    "empty": ("study_id contrast region d se", "a c one n/a 1", "no effect, t, z or p in any region"),
    "no rows": ("study_id contrast region d se", "", "no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(tmp_path, name):
    header, rows, words = BAD[name]
    source = write(tmp_path / "t.tsv", header, *rows.split("\n"))
    with pytest.raises(DataError, match=words):
        read(source, REQUEST)


ENIGMA = "SuborticalVolume Structure d_icv se_icv low_ci_icv up_ci_icv n_controls n_patients pobs fdr_p"
FILES = {
    "scz_case-controls_SubVol": ("scz", "SubVol"),
    "mddadult_case-controls_CortThick_late": ("mddadultlate", "CortThick"),
    "ocdadult_unmedicatedcase-controls_SubVol": ("ocdadultunmedicated", "SubVol"),
    "asd_mega-analysis_case-controls_CortThick": ("asd_mega-analysis", "CortThick"),
}


@pytest.mark.parametrize("name", FILES)
def test_enigma_says_study_and_contrast_by_file(tmp_path, name):
    source = write(tmp_path / f"{name}.csv", ENIGMA, "SCZ_case_vs_controls Lput 0.1 0.02 0.06 0.14 90 80 0.001 0.1",
                   "SCZ_case_vs_controls Rput -0.1 0.02 -0.14 -0.06 90 80 0.001 0.1")  # fmt: skip
    study = read(source, REQUEST)
    (one,) = study.contrasts
    assert (one.entities["study"], one.name, one.entities["seg"]) == (*FILES[name], "aseg")
    assert (one.sample_size, one.units, one.columns) == (170, "cohens-d", {"n1": 80, "n2": 90})
    assert ("SCZ_case_vs_controls" in " ".join(study.notes)) is (not name.startswith("scz"))


NAMES = {
    "L_insula": ("L", "insula"), "ctx-rh-insula": ("R", "insula"), "lh.bankssts": ("L", "bankssts"),
    "Left-Accumbens-area": ("L", "accumbensarea"), "Laccumb": ("L", "accumb"), "insula_left": ("L", "insula"),
    "R_insula_thickavg": ("R", "insula"), "vermis": ("", "vermis"),
}  # fmt: skip


def test_names_of_regions():
    assert {name: split_side(name) for name in NAMES} == NAMES
    assert find_parcellation(["Rthal", "Left-Amygdala", "RLatVent"]).numbers == {
        "Left-Amygdala": 18, "RLatVent": 43, "Rthal": 49,
    }  # fmt: skip
    assert find_parcellation(["L_insula", "Rthal"]).label == "aparcaseg"
    assert find_parcellation(["L_insula", "lh_insula"]) is None
    assert find_parcellation(["one", "L_insula"]) is None
    schaefer = [f"7Networks_{side}H_Vis_{number}" for side in "LR" for number in range(50)]
    assert find_parcellation(schaefer).label == "Schaefer100"


def test_variance_is_metafors():
    d, g, n1, n2 = (np.array([row[key] for row in KNOWN["rows"]]) for key in ("d", "g", "n1", "n2"))
    for value, of in ((g, "vg"), (d, "vd")):
        expected = [row[of] for row in KNOWN["rows"]]
        np.testing.assert_allclose(variance_of_difference(value, n1, n2), expected, rtol=1e-14)


def save_known(path):
    keys = ("study_id", "region", "d", "n1", "n2")
    rows = (" ".join([str(row[key]) for key in keys] + ["ill"]) for row in KNOWN["rows"])
    return write(path, " ".join((*keys, "contrast")), *rows)


def test_combined_as_metafor(tmp_path):
    """1e-8 relative: both sides work in doubles, and metafor was run with tolerances of 1e-14."""
    contrasts = read(save_known(tmp_path / "t.tsv"), REQUEST).contrasts
    effect, variance = (np.array([one.maps[kind] for one in contrasts]) for kind in ("effect", "variance"))
    covered = np.isfinite(effect)
    block = VoxelBlock(covered, np.nan_to_num(effect), np.nan_to_num(variance))
    design = Design(np.ones((len(contrasts), 1)), ("Intercept",), (Test("Intercept", np.ones((1, 1))),))
    names = contrasts[0].grid.structures[0].labels
    for estimator, known, settings in (
        ("reml", KNOWN["reml"], {"test": "adhoc"}),
        ("fixed-effects", KNOWN["fixed"], {"test": "z"}),
    ):
        estimate = find_estimator(estimator).fit(block, design, **settings)
        test, by_name = estimate.tests["Intercept"], {one["region"]: one for one in known}
        ours = {"effect": test.effect, "se": np.sqrt(test.variance), "q": estimate.q, "i2": estimate.i2}
        ours |= {"tau2": estimate.tau2} if estimator == "reml" else {}
        for key, values in ours.items():
            expected = [by_name[name][key] for name in names]
            np.testing.assert_allclose(values, expected, rtol=1e-8, atol=1e-9, err_msg=f"{estimator} {key}")


def test_enigmas_tables(shared):
    """Every one of the published tables is read; their errors are told (numbers counted in the files by hand)."""
    folder = shared / "realdata" / "enigma"
    if not folder.is_dir():
        pytest.skip("needs ENIGMA's tables")
    contrasts = [one for path in sorted(folder.glob("*.csv")) for one in read(str(path), REQUEST).contrasts]
    told = [" ".join(one.notes) for one in contrasts]
    assert len(contrasts) == 50
    assert len({(one.entities["study"], one.name) for one in contrasts}) == 50
    n = {name: sum(words in text for text in told) for name, words in {
        "negative": "An error of 0 or less", "another unit": "of another unit", "copies": "given twice",
        "thousands": "1,446", "p": "p is not needed",
    }.items()}  # fmt: skip
    assert n == {"negative": 4, "another unit": 4, "copies": 21, "thousands": 1, "p": 2}
    covered = [int(np.isfinite(one.maps["variance"]).sum()) for one in contrasts]
    assert {one.grid.n_voxels - count for one, count in zip(contrasts, covered, strict=True)} == {0, 2}
    assert sum(covered) == 50 * 68 - 23 * 52 - 5 * 2
