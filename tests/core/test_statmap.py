"""What an observation says of itself."""

from pathlib import Path

import pytest

from ibma_app.core.statmap import Dataset, Observation, StatMap


def observation(*kinds, **fields):
    entities = {"sub": "01", "contrast": "c"}
    maps = {kind: StatMap(Path(f"{kind}.nii"), kind, Dataset("maps", Path()), entities) for kind in kinds}
    return Observation("01", entities, maps, **fields)


@pytest.mark.parametrize(
    ("kinds", "dof", "expected"),
    [
        (("t", "dof"), 9.0, "voxelwise"),  # a map counts before a number
        (("t",), 9.0, "9"),
        (("t",), 17.25, "17.25"),
        (("t",), None, "unknown"),
    ],
)
def test_degrees_of_freedom_as_tables_have_them(kinds, dof, expected):
    assert observation(*kinds, dof=dof).dof_text == expected


def test_messages_name_the_effect_map():
    assert observation("t", "effect").path == Path("effect.nii")
    assert observation("t", "z").path == Path("t.nii")
