"""Maps that do not lie where a brain in MNI152 space does are told; those that cover a part of it are not."""

import re

import numpy as np
import pytest

from ibma_app.core.grid import Grid
from ibma_app.images.mni_masks import mni_brain
from ibma_app.images.placement import APART, ELSEWHERE, UNPLACED, outside_brain, place_notes


@pytest.fixture(scope="module")
def brain():
    """The brain's voxels of 2 mm within a box that leaves room around it, and their grid."""
    mask, affine = mni_brain(2)
    padded = np.pad(mask, 20)
    affine = affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [20, 20, 20]
    return padded.astype(float), Grid.whole(affine, padded.shape)


def moved(grid, shift):
    affine = grid.affine.copy()
    affine[:3, 3] += shift
    return Grid.whole(affine, grid.shape)


def test_a_brain_where_it_belongs_is_fine(brain):
    volume, grid = brain
    assert outside_brain(volume, grid) == ""
    assert outside_brain(np.where(volume > 0, volume, np.nan), grid) == ""
    assert outside_brain(np.where(volume > 0, 0.3, 1.0), grid, background=1.0) == ""
    flipped = grid.affine @ np.array([[-1.0, 0, 0, grid.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert outside_brain(volume[::-1], Grid.whole(flipped, grid.shape)) == ""


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ((30, 0, 0), r"about (2[89]|3[0-3]) mm away towards \+x"),
        ((0, -30, 0), r"about (2[89]|3[0-3]) mm away towards -y"),
        ((0, 0, 30), r"about (2[89]|3[0-3]) mm away towards \+z"),
        ((0, 20, -25), r"about \d\d mm away towards \+y"),
    ],
)
def test_a_brain_that_was_moved_is_told(brain, shift, words):
    volume, grid = brain
    assert re.fullmatch(words, outside_brain(volume, moved(grid, shift)))
    coarse = Grid.whole(grid.affine @ np.diag([2.0, 2, 2, 1]), volume[::2, ::2, ::2].shape)
    assert outside_brain(volume[::2, ::2, ::2], moved(coarse, shift)) != ""


@pytest.mark.parametrize("size", [0.3, 0.5])
def test_a_smaller_brain_is_told_with_its_size(brain, size):
    volume, grid = brain
    small = Grid.whole(np.diag([size, size, size, 1]) @ grid.affine, grid.shape)
    own = " x ".join(f"{size * length:.0f}" for length in (130, 160, 130))
    told = outside_brain(volume, small)
    assert told.endswith("mm, where the brain has 128 x 160 x 128")
    for said, true in zip(told.split(" mm")[0].split(" x "), own.split(" x "), strict=True):
        assert abs(float(said) - float(true)) < 6


@pytest.mark.parametrize(
    "part",
    [np.s_[:, :, :60], np.s_[:, :, 70:], np.s_[:70], np.s_[:, 90:], np.s_[:, 60:90, 40:100]],
    ids=["no top", "no cerebellum", "one hemisphere", "the front", "a slab"],
)
def test_parts_of_a_brain_are_fine(brain, part):
    volume, grid = brain
    covered = np.zeros_like(volume)
    covered[part] = volume[part]
    assert outside_brain(covered, grid) == ""


def test_what_fills_its_box_or_hardly_has_values_is_not_judged(brain):
    _, grid = brain
    everywhere = moved(grid, (60, 0, 0))
    assert outside_brain(np.ones(grid.shape), everywhere) == ""
    few = np.zeros(grid.shape)
    few[50:54, 50:54, 50:54] = 1
    assert outside_brain(few, everywhere) == ""


def test_remarks_are_told_once_for_all_maps():
    maps = [(f"sub-{k:02d}", {UNPLACED: ""}) for k in range(7)] + [("sub-x", {APART: "0.02 mm"}), ("sub-y", {})]
    unplaced, apart = place_notes(maps)
    assert unplaced.startswith("7 map(s) state no place")
    assert "sub-00, sub-01, sub-02, sub-03, sub-04 and 2 more" in unplaced
    assert "1 map(s)" in apart
    assert "sub-x (0.02 mm)" in apart
    assert place_notes([("a", {}), ("b", {})]) == ()
    assert "(about 30 mm away towards +z)" in place_notes([("a", {ELSEWHERE: "about 30 mm away towards +z"})])[0]
