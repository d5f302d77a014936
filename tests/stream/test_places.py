"""Maps whose headers state no place, a place a hair off, or one where no brain is."""

from contextlib import contextmanager
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, DatasetError, tell
from ibma_app.images.mni_masks import mni_brain
from ibma_app.stream.grid_and_mask import choose_grid
from ibma_app.stream.prepare import Plan
from ibma_app.stream.stack import stack_maps

SHAPE = (6, 7, 8)
LPS = np.array([[-4.0, 0, 0, 10], [0, 4.0, 0, -12], [0, 0, 4.0, -8], [0, 0, 0, 1]])


@contextmanager
def stacked(observations, needs=("effect", "variance"), unit="subject"):
    """Open a stack on the grid that the maps have in common."""
    grid, _ = choose_grid(observations, "common", unit, needs)
    with stack_maps(observations, Plan(grid, tuple(needs), unit)) as stack:
        yield stack


def beside(mm):
    affine = LPS.copy()
    affine[0, 3] += mm
    return affine


def test_maps_a_hair_off_the_grid_are_used_as_they_are_and_told(observe, rng):
    volumes = rng.normal(size=(4, *SHAPE))
    steps = (0.0, 0.02, 0.0003, -0.19)  # mm: a twentieth of a voxel is 0.2 mm
    rows = [observe(str(k), {"effect": volumes[k]}, affine=beside(step)) for k, step in enumerate(steps)]
    flipped = LPS @ np.array([[-1.0, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    flipped[1, 3] += 0.1
    rows.append(observe("f", {"effect": volumes[0][::-1]}, affine=flipped))
    for unit in ("run", "subject", "study"):
        with stacked(rows, ("effect",), unit) as stack:
            assert stack.n_maps == 5
            effect = stack.read(0, stack.n_voxels).effect
        expected = [*volumes, volumes[0]]
        np.testing.assert_allclose(effect, [volume.reshape(-1) for volume in expected], rtol=1e-6)
        (note,) = [note for note in tell(stack.notes) if "twentieth" in note]
        assert note.startswith("3 map(s)")
        for words in ("sub-1_contrast-c (0.02 mm)", "sub-3_contrast-c (0.19 mm)", "sub-f_contrast-c (0.1 mm)"):
            assert words in note


def test_maps_further_off_are_told_by_how_much(observe, rng):
    rows = [observe(str(k), {"effect": rng.normal(size=SHAPE)}, affine=beside(0.4 * (k == 2))) for k in range(3)]
    with stacked(rows, ("effect",), "run") as stack:
        assert stack.n_maps == 2
    (note,) = [note for note in tell(stack.notes) if "left out" in note]
    assert "its voxels lie up to 0.4 mm from there, 0.1 of a voxel" in note
    with pytest.raises(DatasetError, match=r"up to 0\.4 mm from there"), stacked(rows, ("effect",), "subject"):
        pass


def test_maps_of_one_fault_are_one_note_that_names_each_once(observe, rng):
    rows = [observe(str(k), {"effect": rng.normal(size=SHAPE)}, affine=beside(0.4 * (k > 3))) for k in range(12)]
    rows[:4] = rows[:4] * 3  # the grid of most
    with stacked(rows, ("effect",), "run") as stack:
        assert stack.n_maps == 12
        (note,) = [note for note in tell(stack.notes) if "left out" in note]
    assert note.startswith("8 maps: left out: it lies on another grid than the analysis (")
    assert note.count("sub-4_contrast-c") == 1
    assert note.endswith("sub-8_contrast-c_stat-effect_statmap.nii.gz and 3 more)")


def test_kinds_of_one_map_a_hair_apart_are_one_map(observe, rng):
    effect, variance = rng.normal(size=SHAPE), rng.uniform(1, 2, SHAPE)
    aside = observe("x", {"variance": variance}, affine=beside(0.02))
    row = observe("1", {"effect": effect})
    row = replace(row, statmaps={**row.statmaps, **aside.statmaps})
    with stacked([row], unit="run") as stack:
        np.testing.assert_allclose(stack.read(0, stack.n_voxels).variance[0], variance.reshape(-1), rtol=1e-6)


def without_place(path):
    image = nib.load(path, mmap=False)
    image.set_sform(image.affine, code=0)
    image.set_qform(image.affine, code=0)
    image.to_filename(path)


def test_maps_that_state_no_place_are_told_and_never_moved(observe, rng):
    rows = [observe(str(k), {"effect": rng.normal(size=SHAPE)}) for k in range(3)]
    for row in rows:
        without_place(row.statmaps["effect"].path)
    with stacked(rows, ("effect",)) as stack:
        assert not stack.grid.placed
    (note,) = [note for note in tell(stack.notes) if "place" in note]
    assert note.startswith("3 map(s) state no place")
    assert "sub-0_contrast-c, sub-1_contrast-c, sub-2_contrast-c" in note
    there = observe("there", {"effect": rng.normal(size=SHAPE)})
    grid, _ = choose_grid([there])
    for regrid, unit in ((True, "subject"), (False, "study")):
        with (
            pytest.raises(DataError, match=r"sub-0.*cannot be brought to the grid .*states no place"),
            stack_maps([rows[0]], Plan(grid, ("effect",), unit, regrid=regrid)),
        ):
            pass


def test_maps_of_mni_space_that_lie_elsewhere_are_named(observe, rng):
    mask, affine = mni_brain(2)
    mask, affine = mask[::4, ::4, ::4], affine @ np.diag([4.0, 4, 4, 1])
    away = affine.copy()
    away[2, 3] += 30

    def brain(unit, where, space):
        values = np.where(mask, rng.normal(size=mask.shape), 0)
        return observe(unit, {"effect": values}, affine=where, entities={"space": space})

    for where, space, told in (
        (affine, "MNI152NLin6Asym", False),
        (away, "MNI152NLin6Asym", True),
        (away, "T1w", False),
        (away, "MNIInfant", False),
    ):
        rows = [brain(f"{space}{k}", where, space) for k in range(2)]
        with stacked(rows, ("effect",)) as stack:
            notes = [note for note in tell(stack.notes) if "MNI152 brain" in note]
        assert len(notes) == told
        assert not told or "mm away towards +z" in notes[0]
