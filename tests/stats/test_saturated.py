"""Saturated values are the strongest there are."""

import numpy as np
import pytest

from ibma_app.stats.saturated import LARGEST_Z, hold_saturated

TINY = float(np.finfo(np.float32).smallest_subnormal)


@pytest.fixture
def volume():
    return np.random.default_rng(3).uniform(0.01, 0.99, size=(6, 7, 5))


@pytest.mark.parametrize("kind", ["t", "z"])
@pytest.mark.parametrize("largest", [5.0, 120.0])
def test_infinite_statistics_are_the_largest(volume, kind, largest):
    volume[0, 0, 0] = -largest
    volume[1, 2, 3], volume[4, 4, 4], volume[2, 2, 2] = np.inf, -np.inf, np.nan
    held, counts = hold_saturated({kind: volume}, TINY)
    limit = max(largest, LARGEST_Z)
    assert (held[kind][1, 2, 3], held[kind][4, 4, 4]) == (limit, -limit)
    assert np.isnan(held[kind][2, 2, 2])
    assert counts == {kind: 2}


def test_an_effect_is_on_no_scale_that_ends(volume):
    volume[0, 0, 0] = np.inf
    held, counts = hold_saturated({"effect": volume}, TINY)
    assert held["effect"] is volume
    assert counts == {}


def test_p_of_zero_is_the_smallest_that_the_file_holds(volume):
    volume[0, 0, 0] = volume[3, 3, 3] = 0.0  # at the edge, and within
    volume[5] = 1.0
    held, counts = hold_saturated({"p": volume}, TINY)
    assert held["p"][0, 0, 0] == held["p"][3, 3, 3] == TINY
    assert (held["p"][5] == 1.0).all()
    assert counts == {"p": 2}


def test_zeros_around_the_brain_are_background_and_those_within_are_not(volume):
    brain = np.zeros(volume.shape, dtype=bool)
    brain[1:-1, 1:-1, 1:-1] = True
    p = np.where(brain, volume, 0.0)
    p[3, 3, 2] = 0.0
    held, counts = hold_saturated({"p": p}, TINY)
    assert counts == {"p": 1}
    assert held["p"][3, 3, 2] == TINY
    assert (held["p"][~brain] == 0).all()


def test_the_effect_tells_background_from_saturation(volume):
    effect = np.where(volume > 0.5, 1.0, 0.0)
    held, counts = hold_saturated({"p": np.zeros(volume.shape), "effect": effect}, TINY)
    assert counts == {"p": int(effect.sum())}
    assert ((held["p"] == TINY) == (effect == 1)).all()


def test_maps_without_such_values_are_passed_on(volume):
    given = {"p": volume, "z": volume}
    held, counts = hold_saturated(given, TINY)
    assert all(held[kind] is given[kind] for kind in given)
    assert counts == {}
