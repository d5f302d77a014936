"""Labels made of names; those of contrasts against nilearn's own function."""

import unicodedata
import warnings

import pytest

from ibma_app.core.labels import (
    LONGEST,
    LONGEST_CONTRAST,
    camel_case,
    contrast_label,
    find_clash,
    is_label,
    make_label,
    shorten,
)


def test_what_can_be_a_label():
    assert [text for text in ("a", "01", "a+b", "", "a-b", "a b", "é", "a\n") if is_label(text)] == ["a", "01", "a+b"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("C(group)[T.b]", "CgroupTb"),
        ("Müller & Søn (2019)", "MullerSon2019"),
        ("Łódź, ß, İı, Ǿ", "LodzssIiO"),
        ("β-blocker, Δ", "betablockerDelta"),
        ("IniFF", "IniFF"),
        ("* ? (!)", ""),
        ("x²", "x2"),
    ],
)
def test_labels_keep_letters_and_digits(name, label):
    assert make_label(name) == label


def test_labels_of_methods():
    assert camel_case("stouffer-rfx") == "stoufferRfx"
    assert camel_case("fdr") == "fdr"
    assert camel_case("cluster-size") == "clusterSize"


@pytest.mark.parametrize(
    "name",
    ["Incongr>Cong", "face-house", "a_b", "A B", "word + 2*x", "stop<go", "-a", "f_1 - h"],
)
def test_contrast_labels_are_nilearns(name):
    from nilearn.glm._base import _clean_contrast_name

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert contrast_label(name) == _clean_contrast_name(name)


def test_contrast_labels_are_ascii():
    assert contrast_label("Gemüse>Wurst") == "gemuseGtWurst"


@pytest.mark.parametrize("name", ["IniFF", "Faces", "FACES", "c2", "2back"])
def test_contrasts_that_are_labels_stay_as_they_are(name):
    assert contrast_label(name) == name


@pytest.mark.parametrize("make", [make_label, contrast_label])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("面孔 > 房屋", "房屋 > 面孔"),  # the same letters in another order
        ("лица", "дома"),
        ("한국", "हिन्दी"),
        ("研究2019", "調査2019"),
        ("A 面", "A 孔"),
    ],
)
def test_names_in_other_scripts_have_labels_of_their_own(make, one, other):
    labels = make(one), make(other)
    assert all(map(is_label, labels))
    assert labels[0] != labels[1]
    assert labels == (make(one), make(other))
    assert {make(unicodedata.normalize("NFD", one)), make(one)} == {labels[0]}


def test_signs_of_all_kinds_are_words():
    assert {contrast_label(f"a {sign} b") for sign in "-\u2013\u2212"} == {"aMinusB"}
    assert contrast_label("a\uff1eb") == "aGtB"


def test_long_labels_are_cut_and_stay_apart():
    long = "word " * 100
    assert len(make_label(long)) == LONGEST
    assert len(contrast_label(long)) == LONGEST_CONTRAST
    assert contrast_label(long + "a") != contrast_label(long + "b")
    assert contrast_label(long)[:20] == "wordWordWordWordWord"
    assert shorten("a" * 60, 60) == "a" * 60
    assert len(shorten("a" * 61, 60)) == 60


def test_one_label_with_two_names_is_found():
    assert find_clash([("Smith2019", "Smith 2019"), ("b", "b"), ("Smith2019", "Smith 2019")]) is None
    assert find_clash([("Smith", "Smith"), ("lee", "lee"), ("smith", "smith")]) == ("Smith", "Smith", "smith")
    names = ("Smith 2019", "Lee", "Smith-2019")
    assert find_clash([(make_label(name), name) for name in names]) == ("Smith2019", "Smith 2019", "Smith-2019")
