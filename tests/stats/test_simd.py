"""Four doubles side by side: the bits of scalar arithmetic."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from ibma_app.stats.simd import fill4, get4, put4, sum4


@njit
def _arithmetic(maps, factor):
    """Write some of every operation to rows 2 to 5, from rows 0 and 1."""
    for i in range(maps.shape[1]):
        a, b = get4(maps, 0, i), get4(maps, 1, i)
        put4(maps, 2, i, a + b * factor)
        put4(maps, 3, i, (factor - a) / b)
        put4(maps, 4, i, 1.0 / (a * b - 3.0))
        put4(maps, 5, i, fill4(factor))


@njit
def _sum(maps):
    found = fill4(0.0)
    for i in range(maps.shape[1]):
        found = found + get4(maps, 0, i) * get4(maps, 1, i)
    return sum4(found)


@pytest.fixture
def maps():
    rng = np.random.default_rng(8)
    values = rng.standard_normal((6, 7, 4)) * 10.0 ** rng.integers(-12, 12, (6, 7, 4))
    values[0, 3] = [np.inf, -np.inf, np.nan, -0.0]
    values[1, 4, 2] = 0.0
    return values


def test_each_operation_is_that_of_four_doubles(maps):
    a, b, factor = maps[0].copy(), maps[1].copy(), 0.1
    _arithmetic(maps, factor)
    with np.errstate(all="ignore"):
        expected = [a + b * factor, (factor - a) / b, 1.0 / (a * b - 3.0), np.full_like(a, factor)]
    found, wanted = maps[2:], np.array(expected)
    numbers = ~np.isnan(wanted)
    assert np.array_equal(~np.isnan(found), numbers)
    assert np.array_equal(found[numbers].view(np.int64), wanted[numbers].view(np.int64))
    assert np.array_equal(maps[0], a, equal_nan=True)  # what was only read is as it was
    assert np.array_equal(maps[1], b)


def test_lanes_are_summed_in_one_order(maps):
    """Each lane from the first group to the last, then (a + b) + (c + d)."""
    maps[0, 3] = [1.0, 2.0, 3.0, 4.0]
    lanes = np.zeros(4)
    for group in maps[0] * maps[1]:
        lanes = lanes + group
    assert _sum(maps) == (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])


def test_no_groups():
    assert _sum(np.zeros((2, 0, 4))) == 0.0


def test_other_numbers_are_refused_when_compiled():
    """An integer would need a conversion that nobody asked for."""

    @njit
    def mixed(maps):
        return sum4(get4(maps, 0, 0) + 1)

    with pytest.raises(TypingError):
        mixed(np.zeros((2, 1, 4)))
