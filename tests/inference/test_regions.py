"""Names of regions from labelled volumes."""

import numpy as np
import pytest

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.estimate import Field, Significance
from ibma_app.core.grid import Grid
from ibma_app.inference.cluster_table import table_columns, tabulate_clusters
from ibma_app.inference.regions import describe_composition, describe_places, name_regions, region_columns

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2.0, 0, -8], [0, 0, 4.0, -6], [0, 0, 0, 1]])


@pytest.fixture
def atlas():
    labels = np.zeros((8, 7, 5), dtype=np.int32)
    labels[1:4, 2:5, 1:3] = 3
    labels[5, 5, 4] = 70
    return Atlas("toy", labels, AFFINE, {3: "Insula L"})


def test_the_nearest_voxel_names_a_place(atlas):
    def at(*voxel):
        return AFFINE[:3, :3] @ voxel + AFFINE[:3, 3]

    places = [at(1, 2, 1), at(3.4, 4.4, 2.4), at(5, 5, 4), at(0, 0, 0), at(-3, 2, 1), at(7.6, 0, 0)]
    assert name_regions(atlas, places) == ["Insula L", "Insula L", "label 70", "n/a", "n/a", "n/a"]
    assert name_regions(atlas, np.zeros((0, 3))) == []


def test_every_voxel_of_another_grid(atlas):
    # a finer grid over the same space: the label of each point is that of the voxel around it
    points = (
        np.random.default_rng(0).uniform(-0.49, 0.49, (500, 3))
        + np.argwhere(atlas.labels == 3)[np.random.default_rng(1).integers(0, 18, 500)]
    )
    names = name_regions(atlas, points @ AFFINE[:3, :3].T + AFFINE[:3, 3])
    assert set(names) == {"Insula L"}


def test_columns():
    one, two = (Atlas(name, np.zeros((1, 1, 1), dtype=np.int32), np.eye(4), {}) for name in ("a", "b"))
    assert region_columns([]) == region_columns([one]) == ("region",)
    assert region_columns([one, two]) == ("region_a", "region_b")
    assert table_columns([one, two], ["tdp"])[-5:] == (
        *("region_a", "region_b", "composition_a", "composition_b"),
        "tdp",
    )


def test_tables_name_peaks_and_sub_peaks(atlas):
    volume = np.zeros((8, 7, 5))
    volume[1:7, 2, 1] = [9.0, 4.0, 4.0, 4.0, 4.0, 8.0]
    grid = Grid(AFFINE, np.ones(volume.shape, dtype=bool))
    field = Field(volume.ravel(), "positive", np.ones(volume.size, dtype=bool), grid, volume.ravel())
    significance = Significance(volume.ravel(), volume.ravel() > 3, 3.0)
    main, sub = tabulate_clusters(field, significance, atlases=[atlas])
    assert (main.region, sub.region) == ("Insula L", "near Insula L, 6 mm")
    assert main.cells()["region"] == "Insula L"
    other = Atlas("other", np.full((40, 40, 40), 1, dtype=np.int32), AFFINE, {1: "brain"})
    main, sub = tabulate_clusters(
        field, significance, atlases=[atlas, other], measures={"tdp": lambda voxels: voxels.size / 8}
    )
    assert list(main.cells()) == list(table_columns([atlas, other], ["tdp"]))
    assert main.cells()["region_toy"] == "Insula L"
    assert sub.cells()["region_other"] == "brain"
    assert (main.cells()["tdp"], sub.cells()["tdp"]) == (0.75, None)


def test_nearest_region(atlas):
    """Beside region 3, which ends at x = 8 mm; nothing beyond 20 mm."""
    corner = AFFINE[:3, :3] @ (1, 2, 1) + AFFINE[:3, 3]
    inside, beside, farther, away = describe_places(
        atlas, np.add(corner, [[0, 0, 0], [5, 0, 0], [0, -15, 0], [40, 40, 40]])
    )
    assert (inside, beside, farther, away) == ("Insula L", "near Insula L, 5 mm", "near Insula L, 15 mm", "n/a")


def test_composition(atlas):
    voxels = np.array([(1, 2, 1)] * 12 + [(5, 5, 4)] * 7 + [(0, 0, 0)])
    places = voxels @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    assert describe_composition(atlas, places) == "60 % Insula L, 35 % label 70, 5 % outside"
    assert describe_composition(atlas, places[-1:]) == "n/a"
