"""Convolution of events: nilearn's compute_regressor to 1e-12."""

import numpy as np
import pytest

from ibma_app.stats.hemodynamic import convolve_events

EVENTS = np.array(
    [[-30.0, -3.0, 0.0, 11.3, 40.0, 41.0, 95.0, 400.0], [1, 2, 0, 0, 30, 0.1, 9, 2], [1, 2, 1, -1, 0.5, 1, 1, 1]]
)


@pytest.mark.parametrize("tr", [0.8, 2.0, 2.6])
@pytest.mark.parametrize(
    "hrf",
    ["spm", "spm + derivative", "spm + derivative + dispersion", "glover", "glover + derivative + dispersion", "fir"],
)
def test_columns_are_nilearns(tr, hrf):
    from nilearn.glm.first_level import compute_regressor

    times = 0.4 * tr + tr * np.arange(60)
    delays = [0, 1, 4]
    with pytest.warns(UserWarning, match="earlier than"):
        theirs, _ = compute_regressor(EVENTS, hrf, times, fir_delays=delays if hrf == "fir" else None)
    ours = convolve_events(EVENTS, hrf, times, delays)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
