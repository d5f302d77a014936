"""Kinds of map that contradict each other."""

import numpy as np
import pytest

from ibma_app.stats.consistency import dof_of_t_and_z, find_contradictions
from ibma_app.stats.tails import t_to_z

N = 10_000


@pytest.fixture
def maps():
    rng = np.random.default_rng(4)
    effect, variance = rng.normal(size=N), rng.chisquare(20, size=N) / 20
    t = effect / np.sqrt(variance)
    return {"effect": effect, "variance": variance, "t": t, "z": t_to_z(t, 20.0)}


def test_maps_that_say_the_same(maps):
    rounded = {kind: values.astype(np.float32) for kind, values in maps.items()}
    step = np.abs(maps["t"]).max() / 2**15
    rounded["t"] = np.rint(maps["t"] / step) * step  # scaled 16-bit integers
    assert list(find_contradictions(maps, 20.0)) == list(find_contradictions(rounded, 20.0)) == []


def test_signs_share_and_largest(maps):
    strong = np.flatnonzero(np.abs(maps["t"]) > 1)[:160]
    maps["effect"][strong] *= -1
    (found,) = find_contradictions(maps, 20.0)
    n_both = np.count_nonzero(np.abs(maps["t"]) > 0.05)
    assert (found.kinds, found.signs, found.hopeless) == ("effect and t", True, False)
    assert found.share == pytest.approx(160 / n_both)
    assert found.largest == np.abs(maps["t"][strong]).max()
    assert f"{100 * 160 / n_both:.3g} %" in found.text


def test_a_turned_map_is_hopeless(maps):
    maps["t"] *= -1
    (found, *_) = find_contradictions({kind: maps[kind] for kind in ("effect", "t")})
    assert found.hopeless
    assert found.share == 1.0


def test_t_that_is_no_ratio_of_effect_and_error(maps):
    maps["variance"] *= 4.0  # a residual variance, say
    (found,) = find_contradictions({kind: maps[kind] for kind in ("effect", "variance", "t")})
    assert (found.signs, found.hopeless) == (False, False)
    assert found.share > 0.9
    assert found.largest == pytest.approx(np.abs(maps["t"]).max() / 2)


def test_z_is_compared_where_dof_are_known(maps):
    maps["z"] = maps["t"].copy()
    assert list(find_contradictions(maps)) == []
    (found,) = find_contradictions(maps, 20.0)
    assert found.kinds == "z and t"


@pytest.mark.parametrize("dof", [3.0, 20.0, 102.0, 410.0, 37.5])
@pytest.mark.parametrize("kind", ["double", "single", "scaled"])
def test_t_and_z_say_their_degrees_of_freedom(dof, kind):
    t = np.random.default_rng(7).standard_t(dof, size=N)
    maps = [t, t_to_z(t, dof)]
    if kind == "single":
        maps = [values.astype(np.float32) for values in maps]
    elif kind == "scaled":
        steps = [np.abs(values).max() / 2**15 for values in maps]
        maps = [np.rint(values / step) * step for values, step in zip(maps, steps, strict=True)]
    found = dof_of_t_and_z(*maps)
    assert found is not None
    assert found == (dof if dof.is_integer() and (dof < 400 or kind != "scaled") else pytest.approx(dof, rel=0.01))


def test_t_and_z_that_say_no_single_number():
    rng = np.random.default_rng(7)
    t = rng.standard_t(20, size=N)
    assert dof_of_t_and_z(t, t) is None  # z is t
    assert dof_of_t_and_z(t, t_to_z(t, rng.uniform(8, 60, size=N))) is None  # it differs by voxel (FLAME)
    assert dof_of_t_and_z(t, rng.normal(size=N)) is None  # of another contrast
    assert dof_of_t_and_z(t[:10], t_to_z(t[:10], 20.0)) is None  # too few
    assert dof_of_t_and_z(t, np.full(N, np.nan)) is None
