"""Critical heights and corrected p of the largest errors."""

import numpy as np

from ibma_app.inference.simultaneous import corrected_p, critical_height


def test_a_further_draw_exceeds_the_critical_height_in_five_of_a_hundred():
    draws = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))  # 99 draws
    assert critical_height(draws, 0.05) == 95.0  # of 100 equally likely places of a further one, 5 lie above
    assert critical_height(draws[:18], 0.05) is None  # 19 places: none leaves a twentieth above
    assert critical_height(np.arange(19.0), 0.05) == 18.0
    p = corrected_p(np.array([0.0, 95.0, 95.5, 200.0]), draws)
    np.testing.assert_allclose(p, [1.0, 0.06, 0.05, 0.01])
