"""Names of spaces, and what is known of them."""

import numpy as np

from ibma_app.core.grid import Grid
from ibma_app.images.spaces import outside_mni


def test_the_box_of_mni_space():
    mni = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    assert outside_mni(Grid.whole(mni, (91, 109, 91))) == ""
    away = mni.copy()
    away[0, 3] = 500
    assert "along x" in outside_mni(Grid.whole(away, (91, 109, 91)))
    assert "origin" in outside_mni(Grid.whole(np.eye(4), (5, 5, 5)))
