"""Names of spaces, and what is known of them."""

import numpy as np
import pytest

from ibma_app.core.grid import Grid
from ibma_app.images.spaces import has_mni152_shape, is_mni, masked_to_mni152, outside_mni


def test_the_box_of_mni_space():
    mni = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    assert outside_mni(Grid.whole(mni, (91, 109, 91))) == ""
    away = mni.copy()
    away[0, 3] = 500
    assert "along x" in outside_mni(Grid.whole(away, (91, 109, 91)))
    assert "origin" in outside_mni(Grid.whole(np.eye(4), (5, 5, 5)))


@pytest.mark.parametrize(
    ("space", "family", "shape"),
    [
        ("MNI152NLin6Asym", True, True),
        ("MNI152", True, True),
        ("MNIColin27", True, True),
        ("IXI549Space", True, True),
        ("MNIPediatricAsym", True, False),
        ("MNIInfant", True, False),
        ("ICBM452AirSpace", False, False),
        ("T1w", False, False),
        ("Talairach", False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_the_mni_family_and_its_shape(space, family, shape):
    assert is_mni(space) is family
    assert has_mni152_shape(space) is shape
    assert masked_to_mni152("study", [space, "MNI152NLin6Asym"]) is shape
    assert not masked_to_mni152("subject", [space])
    assert not masked_to_mni152("study", [])
