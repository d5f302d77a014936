"""Maps on meshes, nuclei and regions as pictures: what each pixel and bar shows."""

import base64
import io

import numpy as np
import pytest
from nilearn.datasets import load_fsaverage
from PIL import Image

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Mesh, Parcels, Surface, Voxels
from ibma_app.images.elements.known_meshes import known_mesh
from ibma_app.report.figures.brains.meshes import inflate, mesh_to_draw, views_of
from ibma_app.report.figures.brains.parcel_bars import arrange, draw_bars
from ibma_app.report.figures.brains.plans import Sheet, choose_shown, draw_beside_overview, draw_overview
from ibma_app.report.figures.picture import scale_of_z, signed_scale
from ibma_app.report.figures.svg_files import draw_file

CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]) * 40.0
CUBE = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 7, 5], [4, 6, 7], [0, 5, 1], [0, 4, 5], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
     [1, 5, 7], [1, 7, 3]], dtype=np.int32,
)  # fmt: skip


def cube(name):
    return Surface(name, 8, mesh=Mesh(CORNERS, CUBE, "cube"))


def fsaverage5(side):
    return Surface({"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}[side], 10242, mesh=known_mesh("fsaverage5", side, 10242))


@pytest.fixture(scope="module")
def shape():
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -40.0
    indices = np.argwhere(np.ones((2, 2, 2))).astype(np.int32) + 9
    return Elements.whole(
        (
            fsaverage5("L"),
            fsaverage5("R"),
            Voxels("THALAMUS_LEFT", indices, affine, (21, 21, 21)),
        ),
        ".dscalar.nii",
    )


def pixels_of(panel):
    encoded = panel.uri.partition("base64,")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA"))


def test_a_pixel_shows_its_nearest_vertex_of_the_near_side():
    drawn = inflate(Mesh(CORNERS, CUBE, "cube"))
    drawn = type(drawn)(CORNERS, CUBE, drawn.depth, inflated=False)
    (name, lateral), (other, medial) = views_of((("CORTEX_LEFT", drawn),), 60, 60)
    assert (name, other) == ("left, lateral", "left, medial")
    for view, x, turned in ((lateral, -40.0, -1), (medial, 40.0, 1)):
        height, width = view.vertex.shape
        for top, row in ((40.0, height // 4), (-40.0, 3 * height // 4)):
            for right, column in ((40.0, 3 * width // 4), (-40.0, width // 4)):
                seen = CORNERS[view.vertex[row, column]]
                np.testing.assert_array_equal(seen, [x, turned * right, top])
        assert (view.vertex[0] == -1).all()  # a margin
        assert set(np.unique(view.vertex)) == {-1, *np.flatnonzero(CORNERS[:, 0] == x)}


def test_inflating_keeps_size_and_opens_sulci():
    drawn = mesh_to_draw(fsaverage5("L"))
    pial = load_fsaverage("fsaverage5")["pial"].parts["left"]
    mesh = Mesh(np.asarray(pial.coordinates, dtype=float), np.asarray(pial.faces, dtype=np.int32), "mine")
    ours = inflate(mesh)
    assert drawn.inflated
    assert not ours.inflated
    assert np.corrcoef(ours.depth, drawn.depth)[0, 1] > 0.6  # nilearn's is FreeSurfer's sulcal depth
    area = Mesh(ours.points, ours.triangles, "").areas
    assert area.min() > 0
    assert mesh_to_draw(Surface("CORTEX_LEFT", 10242)) is None  # as many vertices, of an unknown mesh


def test_hemispheres_and_nuclei(shape):
    values = np.zeros(shape.mask.size)
    values[:10242], values[10242:20484], values[20484:] = 3.0, -3.0, 2.0
    shown = np.ones(values.size, dtype=bool)
    shown[:5000] = False
    sheet = Sheet()
    plan = sheet.plan(shape, "MNI152NLin6Asym")
    assert sheet.plan(shape, "MNI152NLin6Asym") is plan
    picture, kind = draw_overview(plan, values, scale_of_z(values, 1.0, signed=True), "z", shown, [])
    assert kind == "surface"
    cortex, nuclei = picture.panels
    colours = pixels_of(cortex)
    middle = colours.shape[1] // 2
    left, right = (half[half[..., 3] > 0] for half in (colours[:, :middle], colours[:, middle:]))
    assert (left[:, 0] > left[:, 2]).all()  # red is positive
    assert (right[:, 0] < right[:, 2]).all()
    index = plan.bands[0].index
    assert set(np.unique(index)) <= {-1, *range(20484)}
    np.testing.assert_array_equal(colours[..., 3] > 0, (index >= 5000))
    assert (pixels_of(nuclei)[..., 3] > 0).sum() >= 8
    assert "inflated (fsaverage5)" in picture.caption
    assert "Nuclei on axial slices" in picture.caption
    assert "xial" not in picture.caption.partition("Nuclei")[0]
    assert [text for *_, text in picture.labels][:4] == [
        "left, lateral",
        "left, medial",
        "right, medial",
        "right, lateral",
    ]
    assert draw_beside_overview(plan, values, scale_of_z(values, signed=True), "z", shown) is None
    assert len(draw_file(picture, sheet.plans)) < 150_000
    assert choose_shown(shape)[1].size == shape.n_voxels


def test_clusters_are_numbered_where_they_are_seen():
    shape = Elements.whole((cube("CORTEX_LEFT"),), ".gii")
    plan = Sheet().plan(shape, None)
    values = np.ones(8)
    picture, _ = draw_overview(plan, values, scale_of_z(values, 0.5, signed=True), "z", values > 0,
                               [("1", (-40.0, 40.0, 40.0)), ("2", (300.0, 0.0, 0.0))])  # fmt: skip
    ((x, y, text),) = picture.marks
    assert text == "1"
    assert 0 < x < picture.width / 4  # lateral, the front is on the left
    assert y < picture.height / 2
    assert "Numbers: the largest clusters" in picture.caption


def test_a_mesh_that_is_not_known_is_told():
    shape = Elements.whole((Surface("CORTEX_LEFT", 7), cube("CORTEX_RIGHT")), ".gii")
    plan = Sheet().plan(shape, None)
    assert "Not drawn, as their mesh is not known (--surface): CORTEX_LEFT." in plan.words
    assert len(plan.bands) == 1
    nothing = Sheet().plan(Elements.whole((Surface("CORTEX_LEFT", 7),), ".gii"), None)
    assert nothing.draw(np.ones(7), signed_scale(np.ones(7), "z"), "z.").panels == ()


def test_bars_of_regions():
    labels = ("L_insula", "L_cuneus", "R_insula", "R_cuneus", "L_pole")
    assert arrange(labels) == (
        ["L", "R"], [("insula", {"L": 0, "R": 2}), ("cuneus", {"L": 1, "R": 3}), ("pole", {"L": 4})],
    )  # fmt: skip
    assert arrange(("one", "two"))[0] == [""]
    assert arrange(("7Networks_LH_Vis_1", "7Networks_RH_Vis_1"))[1] == [("Vis_1", {"L": 0, "R": 1})]
    values = np.array([1.0, -2.0, 0.5, 4.0, 0.0])
    seen = np.array([True, True, True, False, True])
    picture = draw_bars(Parcels("mine", labels, np.arange(5)), values, seen, signed_scale(values, "z"), "z.")
    one, two, four, three = picture.panels
    assert three.x - one.x == 166.0
    np.testing.assert_allclose([one.width, two.width, three.width], [18.75, 37.5, 9.375])
    np.testing.assert_allclose(two.x + two.width, one.x)
    assert four.width == 0.7
    assert picture.caption == "z. A bar for each region of mine, from 0."


def test_many_regions_are_the_most_extreme():
    labels = tuple(f"region {number}" for number in range(200))
    values = np.arange(200) - 99.5
    picture = draw_bars(
        Parcels("mine", labels, np.arange(200)), values, np.ones(200, dtype=bool), signed_scale(values, "z"), "z."
    )
    names = [text for *_, text in picture.labels]
    assert len(names) == 80
    assert names[0] == "region 0"
    assert names[-1] == "region 199"
    assert "The 80 of 200 rows" in picture.caption
