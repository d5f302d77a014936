"""Bases of patterns of coverage."""

import numpy as np
import pytest

from ibma_app.stats.basis import Patterns, frame_design, settle_patterns


@pytest.mark.parametrize("n_maps", [1, 2, 5, 70])
@pytest.mark.parametrize("height", [1.0, -2.0])
def test_an_intercept_alone_is_as_any_design(n_maps, height):
    """Its bases are made without a kernel; the kernel's agree, but for rounding."""
    tests = [(np.ones((1, 1)), False), (np.array([[1.0], [2.0]]), True)]
    frame = frame_design(np.full((n_maps, 1), height), tests)
    assert frame.constant
    covered = np.random.default_rng(n_maps).random((n_maps, 40)) > 0.4
    covered[:, 0], covered[:, 1] = True, False
    voxels = np.arange(40)[::3]
    found = settle_patterns(frame, covered, voxels)
    expected = settle_patterns(frame._replace(constant=False), covered, voxels)
    for name, one, other in zip(Patterns._fields, found, expected, strict=True):
        assert one.dtype == other.dtype, name
        assert one.flags.c_contiguous, name
        if name in ("columns", "rows"):
            np.testing.assert_allclose(one, other, rtol=1e-15, err_msg=name)
        else:
            np.testing.assert_array_equal(one, other, err_msg=name)
    k = np.count_nonzero(covered[:, voxels], axis=0)
    np.testing.assert_array_equal(found.maps, k)
    for n, size in enumerate(k):
        assert (found.columns[n, 0, :size] == found.columns[n, 0, :1]).all()  # to the last bit
        assert not found.columns[n, 0, size:].any()
