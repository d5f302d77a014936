"""Lists of neighbours against neighbours that are looked up one by one."""

import numpy as np
import pytest

from ibma_app.stats.neighbours import AXES, in_box, listed, touching


def test_each_pair_stands_in_two_lists():
    found = listed(np.array([[2, 0], [0, 1], [2, 3]]), np.array([1.0, 2, 3, 4, 5]))
    assert found.starts.tolist() == [0, 2, 3, 5, 6, 6]
    assert found.members.tolist() == [1, 2, 0, 0, 3, 2]
    assert (found.room, found.places.tolist(), found.sizes.tolist()) == (5, [0, 1, 2, 3, 4], [1, 2, 3, 4, 5])
    dtypes = [values.dtype for values in (found.places, found.steps, found.starts, found.members, found.sizes)]
    assert dtypes == [np.int32, np.int32, np.int64, np.int32, np.float64]


def test_nothing_and_what_touches_nothing():
    assert listed(np.empty((0, 2), dtype=int), np.empty(0)).starts.tolist() == [0]
    assert listed(np.empty((0, 2), dtype=int), np.ones(2)).starts.tolist() == [0, 0, 0]


@pytest.mark.parametrize("pair", [[0, 5], [-1, 0]])
def test_a_pair_of_what_is_not_there_is_refused(pair):
    with pytest.raises(ValueError, match="of 5 that count from 0"):
        listed(np.array([pair]), np.ones(5))


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_steps_in_a_box_lead_to_voxels_that_differ_by_one_along_few_axes(connectivity):
    mask = np.random.default_rng(1).random((6, 5, 7)) < 0.5
    at = np.argwhere(mask)
    apart = np.abs(at[:, None] - at)
    touches = (apart.max(axis=2) == 1) & (apart.sum(axis=2) <= AXES[connectivity])
    box = in_box(mask, connectivity)
    assert (box.steps == -box.steps[::-1]).all()
    assert box.steps.size == connectivity
    numbers = np.full(box.room, -1)
    numbers[box.places] = np.arange(len(at))
    for voxel, row in enumerate(touches):
        there = numbers[box.places[voxel] + box.steps]
        np.testing.assert_array_equal(there[there >= 0], np.flatnonzero(row))


def test_what_touches_among_some_elements():
    lists = listed(np.array([[0, 1], [1, 2], [2, 3], [0, 4]]), np.ones(5))
    ((own, other),) = touching(lists, np.array([4, 2, 0, 3]))
    assert sorted(zip(own.tolist(), other.tolist(), strict=True)) == [(0, 2), (1, 3), (2, 0), (3, 1)]
    row = in_box(np.ones((1, 1, 5), dtype=bool), 26)
    found = [np.stack(pair, axis=1).tolist() for pair in touching(row, np.array([4, 2, 3]))]
    assert sorted(pair for part in found for pair in part) == [[0, 2], [1, 2], [2, 0], [2, 1]]
