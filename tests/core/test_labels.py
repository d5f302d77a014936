"""Labels made of names; those of contrasts against nilearn's own function."""

import warnings

import pytest

from ibma_app.core.labels import camel_case, contrast_label, is_label, make_label


def test_what_can_be_a_label():
    assert [text for text in ("a", "01", "a+b", "", "a-b", "a b", "é", "a\n") if is_label(text)] == ["a", "01", "a+b"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("C(group)[T.b]", "CgroupTb"),
        ("Müller & Søn (2019)", "MullerSn2019"),
        ("年齢", ""),
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
    ["Incongr>Cong", "face-house", "a_b", "A B", "word + 2*x", "Faces", "IniFF", "stop<go", "-a", "f_1 - h"],
)
def test_contrast_labels_are_nilearns(name):
    from nilearn.glm._base import _clean_contrast_name

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert contrast_label(name) == _clean_contrast_name(name)


def test_contrast_labels_are_ascii():
    assert contrast_label("Gemüse>Wurst") == "gemuseGtWurst"
