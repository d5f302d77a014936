"""A tau2 for each group, against R's metafor (tests/reference/metafor_by_group.R).

By subsets 1e-8, as in test_metafor.py. metafor's location-scale models are maximised numerically, to about 1e-8 of
tau2: 2e-8 there.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import DataError, UsageError
from ibma_app.estimators import find_estimator

CASES = json.loads((Path(__file__).parents[1] / "reference" / "metafor_by_group.json").read_text())["cases"]
NAMES = [case["name"] for case in CASES]
METHODS = tuple(CASES[0]["subsets"])


def maps_of(case):
    y, v = (np.repeat(np.asarray(case[key], dtype=float)[:, None], 2, axis=1) for key in "yv")
    return VoxelBlock(np.ones(y.shape, dtype=bool), effect=y, variance=v)


def design_of(case):
    matrix = np.asarray(case["X"], dtype=float)
    tests = tuple(Test(f"b{j}", row[None]) for j, row in enumerate(np.eye(matrix.shape[1])))
    names = tuple(test.name for test in tests)
    return Design(matrix, names, tests, formula="1 + C(group)", groupings={"group": tuple(case["group"])})


def fit(case, method, test):
    estimator = find_estimator(method.replace("_", "-"))
    return estimator.fit(maps_of(case), design_of(case), tau2_by="group", test=test)


def values(estimate, what):
    return np.array([getattr(one, what)[0] for one in estimate.tests.values()])


@pytest.mark.parametrize("case", CASES, ids=NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_subsets(case, method):
    known = case["subsets"][method]
    scale = np.mean(case["v"]) + np.var(case["y"], ddof=1)
    for test, factor in (("z", 1.0), ("t", 1.0), ("knha", known["s2w"]), ("adhoc", max(known["s2w"], 1.0))):
        found = fit(case, method, test)
        assert found.tau2 is None
        assert list(found.tau2_groups) == sorted(known["tau2"])
        for group, tau2 in known["tau2"].items():
            np.testing.assert_allclose(found.tau2_groups[group], tau2, rtol=1e-8, atol=1e-9 * scale)
        np.testing.assert_allclose(values(found, "effect"), known["beta"], rtol=1e-8, atol=1e-9 * np.sqrt(scale))
        np.testing.assert_allclose(
            np.sqrt(values(found, "variance")), np.array(known["se"]) * np.sqrt(factor), rtol=1e-8
        )
        np.testing.assert_allclose(found.q[0], case["Q"], rtol=1e-8)
        dof = len(case["y"]) - len(case["X"][0])
        assert found.dof is None if test == "z" else found.dof[0] == dof


@pytest.mark.parametrize("case", [case for case in CASES if "scale" in case], ids=lambda case: case["name"])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_location_scale_models(case, method):
    for test, known in case["scale"][method].items():
        found = fit(case, method, test)
        for group, tau2 in known["tau2"].items():
            np.testing.assert_allclose(found.tau2_groups[group], tau2, rtol=2e-8)
        np.testing.assert_allclose(values(found, "effect"), known["beta"], rtol=2e-8, atol=1e-8)
        np.testing.assert_allclose(np.sqrt(values(found, "variance")), known["se"], rtol=2e-8)
        if test != "z":
            assert found.dof[0] == known["dof"]


def test_a_voxel_where_a_group_is_too_few():
    """One map of a group has no tau2: no test there; none of a group leaves the others."""
    case = CASES[NAMES.index("three groups")]
    maps, design = maps_of(case), design_of(case)
    first = np.flatnonzero(np.array(case["group"]) == "a")
    maps.covered[first[1:], 0] = False
    maps.covered[first, 1] = False
    found = find_estimator("reml").fit(maps, design, tau2_by="group")
    last = found.tests["b2"]
    assert last.estimable.tolist() == [False, False]  # without group a there is no difference to it
    assert last.z.tolist() == [0.0, 0.0]
    assert found.tau2_groups["b"][0] == 0.0
    rest = find_estimator("reml").fit(maps_of(case), design, tau2_by="group")
    np.testing.assert_allclose(found.tau2_groups["b"][1], rest.tau2_groups["b"][1], rtol=1e-12)
    assert found.tau2_groups["a"][1] == 0.0
    np.testing.assert_array_equal(found.n, [len(case["y"]) - first.size + 1, len(case["y"]) - first.size])


def test_the_order_of_maps_is_nothing():
    case = CASES[0]
    order = np.random.default_rng(0).permutation(len(case["y"]))
    turned = {**case, **{key: [case[key][i] for i in order] for key in ("y", "v", "X", "group")}}
    one, other = fit(case, "reml", "adhoc"), fit(turned, "reml", "adhoc")
    np.testing.assert_allclose(values(one, "z"), values(other, "z"), rtol=1e-9)


def check(design, **settings):
    estimator = find_estimator("reml")
    return estimator.check(design, {**estimator.defaults(design), "tau2_by": "group", **settings})


def grouped(sizes, columns=None):
    group = np.repeat(np.arange(len(sizes)), sizes)
    matrix = np.eye(len(sizes))[group] if columns is None else columns
    labels = tuple("abc"[i] for i in group)
    tests = (Test("one", np.eye(matrix.shape[1])[:1]),)
    return Design(matrix, tuple("abc"[: matrix.shape[1]]), tests, formula="0 + C(group)", groupings={"group": labels})


def test_groups_without_a_tau2_are_refused():
    with pytest.raises(DataError, match=r"group 'b' has 1 map\(s\), and its tau2 needs 2 or more"):
        check(grouped([10, 1]))
    with pytest.raises(DataError, match="all maps are of one group, 'a'"):
        check(grouped([10]))
    with pytest.raises(UsageError, match="leave tau2_ci or tau2_by out"):
        check(grouped([10, 10]), tau2_ci="yes")
    with pytest.raises(DataError, match="the design has no groups of that name"):
        check(grouped([10, 10]), tau2_by="site")


def test_small_groups_are_warned_of():
    assert check(grouped([15, 20])) == ()
    (note,) = check(grouped([20, 10]))
    assert "groups with few maps: b (10). With 5 and 10 maps" in note
