"""Meshes: the user's, nilearn's, TemplateFlow's; and what is no mesh of the maps."""

import numpy as np
import pytest
from nibabel.freesurfer.io import write_geometry

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Parcels, Surface
from ibma_app.core.errors import DataError, InputError, ReadWriteError, UsageError
from ibma_app.core.grid import Grid
from ibma_app.images.elements import known_meshes
from ibma_app.images.elements.known_meshes import coarser_triangles, known_mesh, with_meshes

BALL = 162
BOTH = Elements.whole((Surface("CORTEX_LEFT", BALL), Surface("CORTEX_RIGHT", BALL)), ".gii", ("L", "R"))


@pytest.fixture
def made(maker):
    return maker("made_surfaces")


@pytest.fixture
def ball(made, tmp_path):
    """Write a ball as the mesh of the left hemisphere."""
    return made.write_mesh(tmp_path / "ball.surf.gii", *made.icosphere())


def test_a_ball_has_the_area_of_a_ball(made, ball):
    shape = with_meshes(BOTH, [str(ball)])  # its content says the side
    left, right = shape.structures
    assert (left.mesh.name, right.mesh) == (str(ball), None)
    assert left.mesh.areas.sum() == pytest.approx(4 * np.pi * 50.0**2, rel=0.02)
    assert len(left.mesh.pairs) == 3 * BALL - 6


def test_swapped_meshes_are_refused_by_what_they_say_or_by_where_they_lie(made, ball, tmp_path):
    points, triangles = made.icosphere()
    with pytest.raises(DataError, match=r"ball.surf.gii for CORTEX_RIGHT, but its content \(Anat.* says CORTEX_LEFT"):
        with_meshes(BOTH, [f"R={ball}"])
    for side, away in (("L", -30.0), ("R", 30.0)):
        write_geometry(tmp_path / side, points + np.array([away, 0.0, 0.0]), triangles)
    left, right = tmp_path / "L", tmp_path / "R"
    found = with_meshes(BOTH, [f"L={left}", f"R={right}"]).structures
    assert [one.mesh.name for one in found] == [str(left), str(right)]
    with pytest.raises(DataError, match=r"R for CORTEX_LEFT, .* on the right \(mean x 30 mm\).* like CORTEX_RIGHT"):
        with_meshes(BOTH, [f"L={right}", f"R={left}"])
    write_geometry(
        tmp_path / "inflated", points + np.array([3.0, 0.0, 0.0]), triangles
    )  # about the middle: either may be
    assert with_meshes(BOTH, [f"L={tmp_path / 'inflated'}"]).structures[0].mesh is not None


def test_coarser_triangles_undo_a_division(made):
    _, coarse = made.icosphere(1)
    _, fine = made.icosphere(2)
    found = coarser_triangles(fine)
    assert sorted(map(sorted, found.tolist())) == sorted(map(sorted, coarse.tolist()))


def test_fsaverage_meshes_come_with_nilearn():
    coarse, usual = known_mesh("fsaverage3", "L", 642), known_mesh("fsaverage5", "L", 10242)
    assert (len(coarse.pairs), len(usual.pairs)) == (3 * 642 - 6, 3 * 10242 - 6)
    np.testing.assert_array_equal(coarse.points, usual.points[:642])
    assert 70_000 < usual.areas.sum() < 110_000  # mm2 of one hemisphere
    assert known_mesh("fsaverage", "R", 10242) is not None
    assert known_mesh("fsLR", "L", 10242) is None
    assert known_mesh("somewhere", "L", 10242) is None


def test_meshes_of_templateflow_are_used_where_they_are_at_hand(made, tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    monkeypatch.setitem(known_meshes.DENSITIES, BALL, "32k")
    folder = tmp_path / "tpl-fsLR"
    folder.mkdir()
    (folder / "tpl-fsLR_den-32k_hemi-L_midthickness.surf.gii").touch()  # as TemplateFlow lists files that it has not
    known_mesh.cache_clear()
    assert known_mesh("fsLR", "L", BALL) is None
    known_mesh.cache_clear()
    made.write_mesh(folder / "tpl-fsLR_den-32k_hemi-L_midthickness.surf.gii", *made.icosphere())
    assert known_mesh("fsLR", "L", BALL).name == "tpl-fsLR_den-32k_hemi-L_midthickness.surf.gii (TemplateFlow)"
    known_mesh.cache_clear()


def test_what_is_no_mesh_of_the_maps(made, ball, tmp_path):
    small = made.write_mesh(tmp_path / "small.surf.gii", *made.icosphere(1))
    with pytest.raises(DataError, match=r"small.surf.gii has 42 vertices, but the maps have 162 in CORTEX_LEFT"):
        with_meshes(BOTH, [f"L={small}"])
    with pytest.raises(InputError, match=r"gone\.surf\.gii does not exist"):
        with_meshes(BOTH, [f"L={tmp_path / 'gone.surf.gii'}"])
    a_map = made.write_gifti(tmp_path / "map.gii", np.zeros(BALL))
    with pytest.raises(DataError, match=r"map.gii is no mesh: it lacks .* Give a .surf.gii file\.$"):
        with_meshes(BOTH, [f"L={a_map}"])
    with pytest.raises(UsageError, match="gives CORTEX_LEFT twice"):
        with_meshes(BOTH, [f"L={ball}", str(ball)])
    (tmp_path / "lh.pial").write_bytes(b"no surface")
    with pytest.raises(ReadWriteError, match=r"lh.pial is no mesh"):
        with_meshes(BOTH, [str(tmp_path / "lh.pial")])
    with pytest.raises(InputError, match=r"rh.pial does not exist"):
        with_meshes(BOTH, [str(tmp_path / "rh.pial")])


@pytest.mark.parametrize(
    "shape",
    [Elements.whole((Parcels("Toy", ("a",), np.array([1])),), ".tsv"), Grid.whole(np.eye(4), (2, 2, 2))],
)
def test_maps_without_surfaces_take_no_mesh(ball, shape):
    assert with_meshes(shape) is shape
    with pytest.raises(UsageError, match="--surface gives meshes, but these maps lie on"):
        with_meshes(shape, [f"L={ball}"])
