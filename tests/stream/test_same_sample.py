"""Studies of the same people are named, and nobody else."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from ibma_app.stats.same_sample import FLOOR, Suspects, find_suspects, fine_detail, join_suspects, smoothing_weight
from ibma_app.stream.similarity import flag_same_samples

SHAPE = (30, 34, 30)
SIZES = (12, 12, 14, 16, 18, 20, 24, 30)
PAIN21 = ((0, 1), (2, 3), (4, 5, 6), (7, 8, 9, 10), (14, 15), (19, 20))


@pytest.fixture
def mask():
    place = np.stack(np.meshgrid(*(np.linspace(-1.1, 1.1, size) for size in SHAPE), indexing="ij"))
    return (place**2).sum(axis=0) <= 1


def _noise(rng, fwhm=2.0):
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), fwhm / np.sqrt(8 * np.log(2)), mode="wrap")
    return noise / noise.std()


def _studies(rng, shared):
    """Eight studies with one effect; the first two share a part of their noise."""
    common = 2 * _noise(rng, 6.0)
    people = [_noise(rng) for _ in SIZES]
    people[1] = np.sqrt(shared) * people[0] + np.sqrt(1 - shared) * people[1]
    return [common + _noise(rng, 8.0) + noise for noise in people]


def _rows(studies, mask):
    return np.array([study[mask] for study in studies])


def _stack(stack_of, mask, rows):
    stack = stack_of(mask, effect=rows)
    return replace(stack, grid=replace(stack.grid, affine=np.diag([4.0, 4.0, 4.0, 1.0])))


def test_two_conditions_of_one_sample_are_named(rng, stack_of, mask):
    (flag,) = flag_same_samples(_stack(stack_of, mask, _rows(_studies(rng, 0.6), mask)), SIZES)
    assert (flag.kind, flag.groups, flag.rows) == ("sample", ((0, 1),), (0, 1))
    assert "sub-0, sub-1" in flag.text
    assert "cluster" in flag.text


@pytest.mark.parametrize("sizes", [SIZES, (None,) * 8, (20,) * 8])
def test_different_people_raise_no_alarm(rng, stack_of, mask, sizes):
    assert flag_same_samples(_stack(stack_of, mask, _rows(_studies(rng, 0.0), mask)), sizes) == ()


def test_units_and_coverage_do_not_matter(rng, stack_of, mask):
    rows = _rows(_studies(rng, 0.6), mask)
    rows *= np.geomspace(1e-3, 1e3, len(rows))[:, None]
    rows[0, : rows.shape[1] // 4] = np.nan
    rows[3, ::7] = np.nan
    (flag,) = flag_same_samples(_stack(stack_of, mask, rows), SIZES)
    assert flag.groups == ((0, 1),)


def test_a_study_given_on_two_grids_is_one_map_whatever_its_n(rng, stack_of, mask):
    studies = _studies(rng, 0.0)
    coarse = ndimage.zoom(studies[0], 2 / 3, order=1)
    studies[5] = ndimage.zoom(coarse, np.array(SHAPE) / np.array(coarse.shape), order=1)
    assert 0.8 < np.corrcoef(studies[0][mask], studies[5][mask])[0, 1] < 0.999  # not the same map to stream/similarity
    studies = [ndimage.gaussian_filter(study, 0.6) for study in studies]
    flags = flag_same_samples(_stack(stack_of, mask, _rows(studies, mask)), SIZES)
    assert [(flag.kind, flag.groups) for flag in flags] == [("duplicate", ((0, 5),))]


def test_pairs_of_equal_size_are_judged_by_those_of_unequal_size():
    r = np.full((8, 8), 0.05)
    r[0, 1] = r[1, 0] = 0.3  # equal n
    r[2, 5] = r[5, 2] = 0.2  # unequal n
    assert find_suspects(r, SIZES).groups == ((0, 1),)
    r[2, 5] = r[5, 2] = 0.31
    found = find_suspects(r, SIZES)
    assert found.groups == ()
    assert found.limit == 0.31
    assert find_suspects(np.full((8, 8), np.nan), SIZES).limit == FLOOR


def test_effects_as_they_were_given_are_compared_where_z_is_combined(rng, stack_of, mask):
    z, effects = _rows(_studies(rng, 0.0), mask), _rows(_studies(rng, 0.6), mask)
    stack = _stack(stack_of, mask, z)
    for row, values in enumerate(effects):
        stack._store.append("given", row, values, 0)
    (flag,) = flag_same_samples(replace(stack, kinds=("z",)), SIZES)
    assert flag.groups == ((0, 1),)
    stack.forget_given()
    assert not stack.given
    assert flag_same_samples(stack, SIZES) == ()


def test_a_study_without_effects_is_compared_by_z_and_the_others_by_their_effects(rng, stack_of, mask):
    combined, effects = _rows(_studies(rng, 0.0), mask), _rows(_studies(rng, 0.6), mask)
    combined[5] = 0.7 * combined[6] + 0.7 * combined[5]  # without effects, of the sample of the next
    combined[2] = 0.7 * combined[3] + 0.7 * combined[2]  # which their effects deny
    sizes = (12, 12, 16, 16, 18, 24, 24, 30)
    stack = _stack(stack_of, mask, combined)
    for row in (0, 1, 2, 3, 4, 6, 7):
        stack._store.append("given", row, effects[row], 0)
    assert stack.given == (0, 1, 2, 3, 4, 6, 7)
    (flag,) = flag_same_samples(stack, sizes)
    assert flag.groups == ((0, 1), (5, 6))


def test_groups_that_share_a_map_become_one():
    one, other = Suspects(((0, 1), (4, 5)), (), 0.2), Suspects(((1, 2),), ((6, 7),), 0.3)
    assert join_suspects(one, other, 8) == Suspects(((0, 1, 2), (4, 5)), ((6, 7),), 0.3)
    assert join_suspects(Suspects((), (), 0.2), Suspects((), (), 0.1), 3) == Suspects((), (), 0.2)


def test_too_few_maps_or_voxels_say_nothing(rng, stack_of, mask):
    rows = _rows(_studies(rng, 0.9), mask)
    assert flag_same_samples(_stack(stack_of, mask, rows[:3]), SIZES[:3]) == ()
    small = np.zeros_like(mask)
    small[14:18, 14:18, 14:18] = True
    assert flag_same_samples(_stack(stack_of, small, _rows(_studies(rng, 0.9), small)), SIZES) == ()


def test_fine_detail_has_no_broad_part_and_no_unit(rng, mask):
    volume = np.where(mask, _noise(rng, 3.0), 0).astype(np.float32)
    ramp = np.where(mask, np.linspace(0, 1, SHAPE[0])[:, None, None], 0).astype(np.float32)
    sigma = np.full(3, 1.5)
    weight = smoothing_weight(mask, sigma)
    detail = fine_detail(volume, mask, sigma, weight)
    np.testing.assert_allclose(fine_detail(1e6 * volume, mask, sigma, weight), detail, rtol=1e-4, atol=1e-5)
    inner = ndimage.binary_erosion(mask, iterations=7)[mask]
    assert np.abs(fine_detail(ramp, mask, sigma, weight)[inner]).max() < 0.02
    assert not fine_detail(np.zeros(SHAPE, dtype=np.float32), mask, sigma, weight).any()


def test_pain21_has_the_groups_that_are_known(shared, stack_of):
    folder = shared / "realdata" / "pain21_whole"
    table = [line.split("\t") for line in (folder / "samples.tsv").read_text().splitlines()[1:]]
    images = [nib.load(folder / f"contrast_{row[0]}.nii.gz") for row in table]
    mask = np.asarray(nib.load(folder / "mask.nii.gz").dataobj) > 0
    rows = np.array([np.asarray(image.dataobj, dtype=np.float32)[mask] for image in images])
    rows[rows == 0] = np.nan
    (flag,) = flag_same_samples(stack_of(mask, effect=rows), [float(row[1]) for row in table])
    assert flag.groups == PAIN21
