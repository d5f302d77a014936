"""Factors by name: estimated marginal means whatever the coding, effects as afex has them."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ibma_app.core.block import VoxelBlock
from ibma_app.core.errors import UsageError
from ibma_app.designs.build import build_design
from ibma_app.designs.tables import collect_covariates
from ibma_app.designs.tests import parse_tests
from ibma_app.estimators.ols import fit

AFEX = json.loads((Path(__file__).parents[1] / "reference" / "afex.json").read_text())
WITHIN = "+ C(participant_id)"


@pytest.fixture
def factorial(observe):
    """Return ``factorial(formula, *tests) -> Design`` of afex' 12 subjects, 3 stimuli and 3 repetitions."""
    rows = [
        observe(f"{unit:02d}", contrast=f"s{stim}r{rep}")
        for unit, stim, rep in zip(AFEX["unit"], AFEX["stim"], AFEX["rep"], strict=True)
    ]

    def make(formula, *tests):
        data = collect_covariates(rows)
        data["stimulus"] = pd.Series([("face", "house", "scrambled")[stim - 1] for stim in AFEX["stim"]])
        data["repetition"] = pd.Series(AFEX["rep"])
        data["group"] = pd.Series(["pq"[group - 1] for group in AFEX["group"]])
        data["age"] = pd.Series([20.0 + unit for unit in AFEX["unit"]])
        return build_design(rows, data, formula, parse_tests(tests))

    return make


def fitted(design):
    y = np.array(AFEX["y"])[:, None]
    return fit(VoxelBlock(np.ones(y.shape, dtype=bool), effect=y), design).tests


@pytest.mark.parametrize("subjects", [WITHIN, ""])
@pytest.mark.parametrize("coding", ["{}", "{}, contr.sum", "{}, contr.helmert"])
def test_effects_are_afex_whatever_the_coding(factorial, coding, subjects):
    stimulus, repetition = (f"C({coding.format(name)})" for name in ("stimulus", "repetition"))
    design = factorial(
        f"1 + {stimulus} * {repetition} {subjects}", "stim=stimulus", "rep=repetition", "both=repetition:stimulus"
    )
    for name, known in (("stim", "stim"), ("rep", "rep"), ("both", "stim:rep")):
        test = fitted(design)[name]
        np.testing.assert_allclose(test.statistic, AFEX["within"][known]["F"], rtol=1e-8)
        np.testing.assert_allclose(test.dof, AFEX["within"][known]["dof"], rtol=1e-8)


def test_effects_beside_a_group_are_afex(factorial):
    asked = {
        "g": "group", "s": "stimulus", "gs": "group:stimulus", "r": "repetition", "gr": "group:repetition",
        "sr": "stimulus:repetition", "gsr": "group:stimulus:repetition",
    }  # fmt: skip
    design = factorial(
        "1 + C(group) * stimulus * C(repetition)", *(f"{label}={factor}" for label, factor in asked.items())
    )
    for label, factor in asked.items():
        known = AFEX["mixed"][factor.replace("stimulus", "stim").replace("repetition", "rep")]
        test = fitted(design)[label]
        np.testing.assert_allclose(test.statistic, known["F"], rtol=1e-8, err_msg=label)
        np.testing.assert_allclose(test.dof, known["dof"], rtol=1e-8, err_msg=label)


def test_means_of_levels_and_cells(factorial):
    y = np.array(AFEX["y"])
    stim, rep = np.array(AFEX["stim"]), np.array(AFEX["rep"])
    design = factorial(
        "1 + stimulus * C(repetition)",
        "face=stimulus[face]",
        "difference=stimulus[face] - stimulus [house]",
        "cell=stimulus[face]:repetition[2]",
        "slope=repetition[3]:stimulus[house] - repetition[1]:stimulus[house]",
    )
    tests = fitted(design)
    face, house = y[stim == 1].mean(), y[stim == 2].mean()
    np.testing.assert_allclose(tests["face"].effect, face)
    np.testing.assert_allclose(tests["difference"].effect, face - house)
    np.testing.assert_allclose(tests["cell"].effect, y[(stim == 1) & (rep == 2)].mean())
    slope = y[(stim == 2) & (rep == 3)].mean() - y[(stim == 2) & (rep == 1)].mean()
    np.testing.assert_allclose(tests["slope"].effect, slope)
    np.testing.assert_array_equal(tests["face"].dof, 11)


def test_covariates_stand_at_their_means(factorial):
    design = factorial("1 + C(group) + age", "p=group[p]", "columns=intercept + 26.5*age", "any=group, age")
    np.testing.assert_allclose(design.tests[0].weights, design.tests[1].weights, rtol=1e-12)
    assert design.tests[2].weights.shape == (2, 3)
    centred = factorial("1 + C(group) + center(age)", "p=group[p]", "c=intercept")
    np.testing.assert_allclose(centred.tests[0].weights, centred.tests[1].weights, atol=1e-12)


def test_a_column_wins_over_a_mean_of_its_name(factorial):
    design = factorial("0 + stimulus + C(group)", "face=stimulus[face]", "half=stimulus[face] + 0.5*C(group)[T.q]")
    np.testing.assert_array_equal(design.tests[0].weights, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(design.tests[1].weights, [[1, 0, 0, 0.5]])


def test_an_effect_of_two_levels_is_an_f_test(factorial):
    design = factorial("1 + C(group) + C(stimulus)", "g=group", "f=group, stimulus")
    assert (design.tests[0].is_f, design.tests[0].weights.shape) == (True, (1, 4))
    assert design.tests[1].weights.shape == (3, 4)


def test_what_there_is_is_told(factorial):
    with pytest.raises(UsageError) as caught:
        factorial("1 + C(stimulus) * C(repetition)", "x=stimulus[faces]")
    told = caught.value.message
    assert "Did you mean stimulus[face]?" in told
    means, cell, effects = re.search(
        r"named, too: (.*?), of cells with a colon \((.*?)\); and, alone, .*?: (.*)\.$", told
    ).groups()
    assert means.split(", ")[:2] == ["repetition[1]", "repetition[2]"]
    assert effects.split(", ") == ["repetition", "stimulus", "repetition:stimulus"]
    for number, name in enumerate([*means.split(", "), cell, *effects.split(", ")]):  # the advice
        (test,) = factorial("1 + C(stimulus) * C(repetition)", f"x{number}={name}").tests
        assert test.is_f is ("[" not in name)


def test_factors_may_be_written_as_in_the_formula(factorial):
    names = ("stimulus:repetition", "C(stimulus):C(repetition)", "C(stimulus, contr.sum):C(repetition)")
    tests = [factorial("1 + C(stimulus) * C(repetition)", f"x={name}").tests[0] for name in names]
    for test in tests:
        np.testing.assert_array_equal(test.weights, tests[0].weights)
        assert test.is_f
    with pytest.raises(UsageError, match=r"stimulus is the effect of a whole factor .* stands alone: NAME=stimulus\."):
        factorial("1 + C(stimulus) * C(repetition)", "x=stimulus*repetition")
    with pytest.raises(UsageError, match="depend on each other"):
        factorial("1 + C(stimulus)", "x=stimulus, stimulus[face] - stimulus[house]")


def test_cells_covariates_and_groups_for_pictures(factorial):
    design = factorial("1 + C(group) * stimulus + age", "g=group")
    assert [cell.name for cell in design.cells[:2]] == ["group p, stimulus face", "group p, stimulus house"]
    y, stim, group = np.array(AFEX["y"]), np.array(AFEX["stim"]), np.array(AFEX["group"])
    assert design.cells[1].rows == tuple(np.flatnonzero((stim == 2) & (group == 1)))
    (age,) = design.covariates
    assert (age.name, design.columns[age.columns[0]], age.values.size) == ("age", "age", y.size)
    assert set(design.groups) == {"group p", "group q"}
    plain = factorial("1 + age", "a=age")
    assert (plain.cells, plain.groups) == ((), ())
    alone = factorial("1 + C(group) * stimulus", "g=group")
    weights = alone.cells[1].weights
    np.testing.assert_allclose(
        weights @ np.linalg.lstsq(alone.matrix, y, rcond=None)[0], y[(stim == 2) & (group == 1)].mean()
    )
