"""Designs against matrices by hand, scipy and statsmodels; refusals and their words."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from ibma_app.core.errors import DataError, UsageError
from ibma_app.designs.build import build_design, one_sample_design
from ibma_app.designs.tables import collect_covariates, read_table
from ibma_app.designs.tests import parse_tests, read_contrast_file

TABLE = (
    "participant_id\tage\tgroup\tcode\tsite\tone\tdirty\tgap\n"
    "sub-01\t20\ta\t1\tx\tk\t5\t1\n"
    "sub-02\t30\ta\t1\ty\tk\t6\tn/a\n"
    "sub-03\t25\tb\t2\tx\tk\t7\t3\n"
    "sub-04\t41\tb\t2\ty\tk\told\t4\n"
    "sub-05\t33\tc\t3\tx\tk\t9\t5\n"
    "sub-06\t28\tc\t3\ty\tk\t8\t6\n"
)


@pytest.fixture
def build(observe, write):
    """Return ``build(formula, *tests, units=..., tail=...)`` on the table above."""

    def make(formula, *tests, units=("01", "02", "03", "04", "05", "06"), **options):
        rows = [observe(unit) for unit in units]
        data = collect_covariates(rows, read_table(write(TABLE), "participant_id"), "participant_id")
        return build_design(rows, data, formula, parse_tests(tests), **options)

    return make


@pytest.fixture
def repeat(observe):
    """Return ``repeat(formula, *tests, conditions=..., n=...)``: subjects times conditions, no table."""

    def make(formula, *tests, conditions=("A", "B", "C"), n=5, specs=None):
        rows = [observe(f"{i:02d}", contrast=name) for name in conditions for i in range(1, n + 1)]
        data = collect_covariates(rows, None, "participant_id")
        return build_design(rows, data, formula, specs or parse_tests(tests))

    return make


def t_test(design, test, y):
    """t, effect and dof of ordinary least squares, by the textbook."""
    x, c = design.matrix, test.weights[0]
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ y
    dof = x.shape[0] - x.shape[1]
    sigma2 = ((y - x @ beta) ** 2).sum() / dof
    return c @ beta / np.sqrt(sigma2 * c @ inverse @ c), c @ beta, dof


def f_test(design, test, y):
    """F of ordinary least squares, by the textbook."""
    x, c = design.matrix, test.weights
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ y
    sigma2 = ((y - x @ beta) ** 2).sum() / (x.shape[0] - x.shape[1])
    estimate = c @ beta
    return estimate @ np.linalg.solve(c @ inverse @ c.T, estimate) / len(c) / sigma2


def test_intercept_alone(build):
    design = build("1")
    assert design.one_sample
    assert design.columns == ("intercept",)
    assert [test.name for test in design.tests] == ["intercept"]
    assert (design.repeated, design.exchangeability, design.notes) == (False, None, ())


def test_one_map_of_the_participant_level():
    design = one_sample_design(1)
    assert design.one_sample
    assert design.matrix.shape == (1, 1)


def test_columns_and_default_tests(build):
    design = build("1 + center(age) + C(group)", tail="positive")
    assert design.columns == ("intercept", "center(age)", "C(group)[T.b]", "C(group)[T.c]")
    age = np.array([20, 30, 25, 41, 33, 28.0])
    np.testing.assert_allclose(design.matrix[:, 1], age - age.mean(), rtol=1e-14)
    np.testing.assert_array_equal(design.matrix[:, 2], [0, 0, 1, 1, 0, 0])
    assert [test.name for test in design.tests] == ["intercept", "centerage", "CgroupTb", "CgroupTc"]
    assert {test.tail for test in design.tests} == {"positive"}
    assert design.notes == ()


def test_whole_numbers_keep_whole_level_names(build):
    assert build("1 + C(code)").columns == ("intercept", "C(code)[T.2]", "C(code)[T.3]")


def test_order_of_rows_is_that_of_the_maps(build):
    design = build("1 + age", units=("06", "01", "04", "05"))
    np.testing.assert_array_equal(design.matrix[:, 1], [28, 20, 41, 33])


def test_regression_equals_statsmodels(build):
    design = build("1 + age + C(site)", "old=age", "any=age, C(site)[T.y]")
    y = np.random.default_rng(0).standard_normal(6)
    data = pd.DataFrame({"y": y, "age": design.matrix[:, 1], "site": list("xyxyxy")})
    fit = smf.ols("y ~ age + C(site)", data).fit()
    t, effect, dof = t_test(design, design.tests[0], y)
    np.testing.assert_allclose([t, effect, dof], [fit.tvalues["age"], fit.params["age"], 3], rtol=1e-10)
    expected = fit.f_test("age = 0, C(site)[T.y] = 0").fvalue
    np.testing.assert_allclose(f_test(design, design.tests[1], y), expected, rtol=1e-10)


def test_note_proposes_centring(build):
    (note,) = build("1 + age + C(group)").notes
    assert "center(age)" in note
    assert "29.5" in note
    assert build("1 + age", "old=age").notes == ()  # the intercept is not tested
    assert build("1 + age", "at30=intercept + 30*age").notes == ()  # the user says where
    assert build("0 + C(site) + age").notes == ()
    assert build("1 + scale(age)").notes == ()
    assert build("1 + C(code)").notes == ()  # categories, although they are numbers


def test_text_among_numbers_is_told(observe, write, build):
    with pytest.raises(DataError, match=r"'dirty' in .* is text, though it looks like numbers: 'old'"):
        build("1 + dirty")
    lines = "".join(f"{i:02d}\t{'n.k.' if i == 3 else i % 3}\n" for i in range(8))
    rows = [observe(f"{i:02d}", ses=f"{i % 2}") for i in range(8)]
    table = read_table(write(f"participant_id\tdose\n{lines}"), "participant_id")
    data = collect_covariates(rows, table, "participant_id")
    with pytest.raises(DataError, match=r"looks like numbers: 'n\.k\.'"):
        build_design(rows, data, "1 + dose")
    assert build_design(rows, data, "1 + C(dose)").notes == ()
    assert build_design(rows, data, "1 + session").notes == ()


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("1 + iq", ["'iq'", "participants.tsv", "Columns to choose from: age, "]),
        ("1 + gap", ["'gap'", "sub-02", "participants.tsv"]),
        ("1 + one", ["'one' is k"]),
        ("1 + C(one)", ["'one' is k"]),
        ("1 + age + I(2*age)", ["'I(2 * age)' = 2*'age'"]),
        ("1 + C(group) + C(code)", ["'C(code)[T.2]' = 'C(group)[T.b]'"]),
        ("1 + C(participant_id)", ["6 maps are too few for the 6 columns"]),
        ("1 + np.log(age - 20)", ["not a finite number", "sub-01"]),
        ("0", ["no columns"]),
    ],
)
def test_designs_that_are_refused(build, formula, words):
    with pytest.raises(DataError) as caught:
        build(formula)
    for word in words:
        assert word in caught.value.message


def test_absent_subject_is_named_with_the_file(build):
    with pytest.raises(DataError) as caught:
        build("1 + age", units=("01", "02", "77", "03"))
    for word in ("'age'", "sub-77", "no row", "participants.tsv"):
        assert word in caught.value.message
    assert build("1", units=("01", "02", "77")).one_sample  # what is not used may be missing


def test_one_map_is_refused(build):
    with pytest.raises(DataError, match="Only one map"):
        build("1", units=("01",))
    with pytest.raises(DataError, match="no maps"):
        build("1", units=())


def test_unknown_column_in_a_test(build):
    with pytest.raises(UsageError, match="Its columns are: intercept, age"):
        build("1 + age", "a=iq")


def test_exchangeability_column(observe, write):
    table = read_table(write("study_id\texchangeability\na\tx\nb\ty\nc\tx\n"), "study_id")
    rows = [observe(unit, key="study") for unit in "abc"]
    design = build_design(rows, collect_covariates(rows, table, "study_id"))
    assert design.exchangeability.tolist() == [0, 1, 0]
    rows.append(observe("d", key="study"))
    with pytest.raises(DataError, match="study-d"):
        build_design(rows, collect_covariates(rows, table, "study_id"))


def test_paired(repeat):
    design = repeat("1 + contrast + C(participant_id)", "ba=contrast[T.B]", conditions=("A", "B"), n=8)
    assert design.repeated
    assert len(design.nuisance) == 7
    assert design.exchangeability is None
    y = np.random.default_rng(1).standard_normal(16)
    expected = stats.ttest_rel(y[8:], y[:8]).statistic
    np.testing.assert_allclose(t_test(design, design.tests[0], y)[0], expected, rtol=1e-12)


def test_subject_columns_want_named_tests(repeat):
    with pytest.raises(DataError) as caught:
        repeat("0 + C(contrast) + C(participant_id)")
    assert "--test" in caught.value.message
    assert "C(contrast)[A], C(contrast)[B], C(contrast)[C]" in caught.value.message
    assert "participant_id)[" not in caught.value.message


def test_clusters_are_subjects_and_places_their_conditions(repeat, observe):
    design = repeat("0 + C(contrast)", "ba=C(contrast)[B] - C(contrast)[A]", conditions=("A", "B"), n=8)
    assert (design.repeated, design.dependent, design.n_clusters) == (True, True, 8)
    assert (design.cluster_name, design.cluster_noun) == ("participant_id", "participant")
    assert design.clusters.tolist() == [*range(8)] * 2
    assert design.places.tolist() == [0] * 8 + [1] * 8
    rows = [observe(f"{i:02d}") for i in range(4)]
    alone = build_design(rows, collect_covariates(rows))
    assert (alone.clusters, alone.places, alone.dependent, alone.n_clusters) == (None, None, False, 4)


def test_places_are_what_the_formula_tells_apart_within_subjects(observe, write):
    rows = [observe(f"{i:02d}", ses=ses, contrast=c) for i in range(4) for ses in "12" for c in "ab"]
    table = read_table(
        write("participant_id\tage\n" + "".join(f"{i:02d}\t{20 + i}\n" for i in range(4))), "participant_id"
    )
    data = collect_covariates(rows, table)
    data["rt"] = np.arange(16.0)
    design = build_design(rows, data, "1 + session + age")
    assert design.places.tolist() == [0, 0, 1, 1] * 4
    assert build_design(rows, data, "1 + session*contrast + age").places.tolist() == [0, 2, 1, 3] * 4
    assert build_design(rows, data, "1 + rt").places.tolist() == list(range(16))
    assert build_design(rows, data, "1 + age").places is None


def test_a_column_cluster_tells_who_depends_on_whom(observe, write):
    table = read_table(write("participant_id\tcluster\n0\tx\n1\tx\n2\ty\n3\tz\n"), "participant_id")
    rows = [observe(str(i)) for i in range(4)]
    data = collect_covariates(rows, table)
    design = build_design(rows, data)
    assert design.clusters.tolist() == [0, 0, 1, 2]
    assert (design.cluster_name, design.repeated, design.dependent) == ("cluster", False, True)
    lacking = build_design(rows, data.assign(cluster=["x", "x", None, None]))
    assert lacking.clusters.tolist() == [0, 0, 1, 2]
    assert build_design(rows, data.assign(cluster=[None] * 4)).clusters is None
    used = build_design(rows, data.assign(cluster=["x", "x", "y", "y"]), "1 + C(cluster)")
    assert (used.clusters, used.notes) == (None, ())
    twice = [observe(str(i), ses=ses) for i in range(2) for ses in "12"]
    parted = collect_covariates(twice).assign(cluster=["x", "y", "z", "z"])
    with pytest.raises(DataError, match="parts the maps of 0"):
        build_design(twice, parted, "1 + session")


def test_units_are_participants_with_several_maps_else_clusters(observe):
    twice = [observe(str(i), ses=ses) for i in range(4) for ses in "12"]
    data = collect_covariates(twice).assign(cluster=["x"] * 4 + ["y"] * 4)
    design = build_design(twice, data, "1 + session")
    assert (design.units.tolist(), design.unit_name) == ([0, 0, 1, 1, 2, 2, 3, 3], "participant_id")
    assert (design.clusters.tolist(), design.cluster_name) == ([0] * 4 + [1] * 4, "cluster")
    once = [observe(str(i)) for i in range(4)]
    design = build_design(once, collect_covariates(once).assign(cluster=["x", "x", "y", "z"]))
    assert (design.units.tolist(), design.unit_name) == ([0, 0, 1, 2], "cluster")
    assert build_design(once, collect_covariates(once)).units is None


def test_interaction_of_group_and_condition_is_within(observe, write):
    lines = "".join(f"{i:02d}\t{'ab'[i % 2]}\n" for i in range(8))
    table = read_table(write(f"participant_id\tgroup\n{lines}"), "participant_id")
    rows = [observe(f"{i:02d}", ses=ses) for i in range(8) for ses in "12"]
    data = collect_covariates(rows, table, "participant_id")
    data["change"] = ((data["session"] == "2") & (data["group"] == "b")).astype(float)
    design = build_design(rows, data, "1 + session + change + C(participant_id)", parse_tests(["x=change"]))
    y = np.random.default_rng(2).standard_normal(16)
    difference = y[1::2] - y[::2]
    expected = stats.ttest_ind(difference[1::2], difference[::2]).statistic
    np.testing.assert_allclose(t_test(design, design.tests[0], y)[0], expected, rtol=1e-10)


def test_nine_conditions_of_sixteen_subjects(repeat, write):
    # the tutorial design: 3 expressions (Fa, Un, Sc) x 3 repetitions
    names = [f"{kind}{when}" for when in ("Ini", "Imm", "Del") for kind in ("Fa", "Un", "Sc")]
    column = "C(contrast)[{}]".format
    faces = {column(n): (-1 / 3 if n.startswith("Sc") else 1 / 6) for n in names}
    rows = [
        {column(f"Fa{a}"): 1, column(f"Un{a}"): -1, column(f"Fa{b}"): -1, column(f"Un{b}"): 1}
        for a, b in (("Ini", "Imm"), ("Imm", "Del"))
    ]
    specs = read_contrast_file(write(json.dumps({"faces": faces, "interaction": rows}), "contrasts.json"))
    design = repeat("0 + C(contrast) + C(participant_id)", conditions=names, n=16, specs=specs)
    assert design.matrix.shape == (144, 24)
    assert set(map(column, names)) == set(design.columns) - set(design.nuisance)
    y = np.random.default_rng(3).standard_normal((9, 16)) + np.arange(16)
    # by hand: the contrast of the condition means; residuals after both margins
    residual = y - y.mean(0) - y.mean(1)[:, None] + y.mean()
    sigma2 = (residual**2).sum() / 120
    c = np.array([faces[column(name)] for name in names])
    t, effect, dof = t_test(design, design.tests[0], y.ravel())
    assert dof == 120
    np.testing.assert_allclose(effect, c @ y.mean(1), rtol=1e-10)
    np.testing.assert_allclose(t, c @ y.mean(1) / np.sqrt(sigma2 * (c @ c) / 16), rtol=1e-10)
    many = np.array([[row.get(column(name), 0.0) for name in names] for row in rows])
    means = many @ y.mean(1)
    expected = means @ np.linalg.solve(many @ many.T / 16, means) / 2 / sigma2
    np.testing.assert_allclose(f_test(design, design.tests[1], y.ravel()), expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["age at scan", "BDI-II", "1st", "age"])
@pytest.mark.parametrize("formula", ["1 + `{}`", '1 + Q("{}")'])
def test_centring_is_proposed_in_a_spelling_that_works(observe, write, name, formula):
    rows = [observe(f"{number:02d}") for number in range(6)]
    cells = "".join(f"{number:02d}\t{20 + number**2}\n" for number in range(6))
    table = read_table(write(f"participant_id\t{name}\n{cells}"), "participant_id")
    data = collect_covariates(rows, table, "participant_id")
    (note,) = build_design(rows, data, formula.format(name)).notes
    (remedy,) = re.findall(r"Use (.+) in --formula", note)
    design = build_design(rows, data, f"1 + {remedy}")
    assert design.notes == ()
    np.testing.assert_allclose(design.matrix[:, 1], np.arange(6) ** 2 - 55 / 6)
