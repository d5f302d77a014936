"""Pictures: each pixel is its voxel's colour, and designs read as written."""

import base64
import io
import re
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.core.grid import Grid
from ibma_app.report.figures.brains.glass import draw_glass, glass_frames, glass_outline
from ibma_app.report.figures.brains.plans import Sheet
from ibma_app.report.figures.brains.slices import draw_mosaic, find_cuts, plan_slices
from ibma_app.report.figures.charts import draw_design
from ibma_app.report.figures.picture import draw_bar, positive_scale, scale_of_z, signed_scale
from ibma_app.report.html import encode_png, format_number, sort_key, split_words


def pixels(uri: str) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="png")


def test_png_reads_back():
    rng = np.random.default_rng(1)
    palette = rng.integers(0, 256, (256, 4)).astype(np.uint8)
    indices = rng.integers(0, 256, (13, 7)).astype(np.uint8)
    stream = io.BytesIO(encode_png(indices, palette))
    back = matplotlib.image.imread(stream, format="png")  # matplotlib's reader: independent of our writer
    np.testing.assert_array_equal(np.rint(255 * back), palette[indices])


@pytest.mark.parametrize("flip", [1, -1])
def test_mosaic_shows_each_voxel_where_it_lies(flip):
    affine = np.diag([3.0 * flip, 3.0, 3.0, 1.0])
    affine[:3, 3] = (-9.0 * flip, -12.0, 5.0)
    grid = Grid(affine, np.ones((5, 6, 4), dtype=bool))
    volume = np.zeros(grid.shape)
    volume[4, 1, 2] = 1.0
    plan = plan_slices(grid)
    picture = draw_mosaic(plan, volume, signed_scale(volume, "z"), "caption")
    assert plan.levels == (5.0, 8.0, 11.0, 14.0)
    row = pixels(picture.panels[0].uri)
    # red has no green; the zeros around it are white
    found = np.argwhere((row[..., 1] < 0.1) & (row[..., 3] > 0))
    assert len(found) == 1
    width = row.shape[1] // plan.columns
    y, x = found[0]
    assert x // width == 2  # the third slice
    column = 1 + (4 if flip == 1 else 0)  # a margin of one voxel; left is left
    assert (x % width, y) == (column, row.shape[0] - 1 - (1 + 1))


def test_outside_of_the_mask_is_transparent(grid_maker):
    grid = grid_maker((8, 8, 8), 4.0)
    plan = plan_slices(grid)
    row = pixels(draw_mosaic(plan, np.ones(grid.shape), positive_scale(np.ones(9), "n"), "").panels[0].uri)
    shown = row[..., 3] > 0
    levels = min(8, plan.columns)
    assert shown.sum() == (grid.mask[:, :, :levels]).sum()


def test_oblique_grids_are_cut_too():
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = 2.0 * turn
    grid = Grid(affine, np.ones((12, 14, 9), dtype=bool))
    plan = plan_slices(grid)
    row = pixels(draw_mosaic(plan, np.ones(grid.shape), positive_scale(np.ones(9), "n"), "").panels[0].uri)
    area = (row[..., 3] > 0).sum() / plan.columns
    assert area == pytest.approx(12 * 14, rel=0.05)  # voxel columns of 2 mm: edges are cut by pixels


def test_scales():
    values = np.concatenate([np.linspace(-1, 1, 1000), [50.0]])
    scale = signed_scale(values, "z")
    assert (scale.low, scale.high, scale.clips) == (-50.0, 50.0, (False, False))
    robust = signed_scale(values, "effect", outliers=True)  # one voxel at the edge does not fade all others
    assert robust.high == pytest.approx(1.0, abs=0.03)
    assert robust.clips == (False, True)
    assert positive_scale(np.abs(values), "tau").high == pytest.approx(1.0, abs=0.03)
    assert signed_scale(np.zeros(5), "z").high == 1.0
    constant = positive_scale(np.full(4, 7.0), "n", low=0.0, high=7.0)
    assert (constant.low, constant.high) == (0.0, 7.0)


def test_colours_run_from_the_threshold_to_the_largest_value():
    z = np.array([-12.0, -3.0, 0.0, 3.0, 12.0])
    scale = signed_scale(z, "z", 3.0)
    colours = scale.palette[scale.index(z, scale.passes(z))].astype(int)
    whole = signed_scale(z, "z").palette.astype(int)
    assert np.array_equal(colours[[0, 4]], whole[[1, 255]])  # the darkest blue and red, at the largest values
    assert colours[2, 3] == 0  # hidden
    assert colours[3, 0] - colours[3, 2] > 30  # at the threshold already red, not white
    assert colours[1, 2] - colours[1, 0] > 20
    bar = draw_bar(scale, 0.0, 940.0)
    assert [text for _, text in bar.ticks] == ["−12", "−3", "3", "12"]
    assert bar.label == "z, shown from |z| = 3"
    shown = pixels(bar.uri)[0]
    assert (shown[:, 3] > 0).sum() == 194  # nothing between the thresholds
    assert np.allclose(255 * shown[-1], whole[255])
    one_way = draw_bar(scale_of_z(np.abs(z), 3.0, signed=False), 0.0, 940.0)
    assert [text for _, text in one_way.ticks] == ["3", "7.5", "12"]


def test_cuts_go_through_clusters():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[2, 3] = -40.0
    grid = Grid(affine, np.ones((12, 12, 40), dtype=bool))
    z, found = np.zeros(grid.shape), np.zeros(grid.shape, dtype=bool)
    for place, size, peak in (((2, 2, 5), 2, 6.0), ((8, 8, 20), 4, -9.0), ((2, 8, 21), 2, 5.0)):
        box = tuple(slice(start, start + size) for start in place)
        found[box], z[box] = True, np.sign(peak) * 4.0
        z[place] = peak
    cuts = find_cuts(grid, found, z)
    # the peaks of the first two; the slice of the second, at 20, does not show the third, whose own does
    assert {-30.0, 0.0, 2.0} <= set(cuts)
    assert all(found[:, :, round((cut + 40) / 2)].any() for cut in cuts)
    assert find_cuts(grid, np.zeros(grid.shape, dtype=bool), z) == ()
    sheet = Sheet()
    through = sheet.plan(grid, None, cuts)
    assert through.levels == cuts
    assert sheet.plan(grid, None).levels != cuts  # pictures of the whole mask keep their own
    assert sheet.plan(grid, None, cuts) is through


def test_z_of_f_has_one_colour_and_no_threshold_below_zero(grid_maker):
    z = np.array([-4.0, -1.0, 0.5, 2.0, 3.0])
    scale, both = scale_of_z(z, 2.0, signed=False), scale_of_z(z, 2.0, signed=True)
    assert (scale.low, scale.high, scale.label, scale.clips) == (0.0, 3.0, "z of F (no direction)", (True, False))
    assert scale.passes(z).tolist() == [False, False, False, True, True]
    assert both.passes(z).tolist() == [True, False, False, True, True]
    assert not np.array_equal(scale.palette, both.palette)
    grid = grid_maker((4, 4, 4), 3.0, hole=False)
    volume = np.zeros(grid.shape)
    volume[0, 0, 0], volume[0, 0, 3] = -4.0, 3.0
    drawn = pixels(draw_glass(grid, volume, scale, "", mni=False).panels[1].uri)
    assert (drawn[..., 3] > 0).sum() == 1  # the negative one, which is no evidence, is not shown
    assert np.allclose(255 * drawn[0, 0], scale.palette[255])


def test_projections_where_no_outline_fits(grid_maker):
    grid = grid_maker((4, 4, 4), 3.0, hole=False)
    volume = np.zeros(grid.shape)
    volume[0, 0, 0] = -2.0
    drawn = draw_glass(grid, volume, signed_scale(volume, "z"), "", mni=False)
    assert [text for _, _, text in drawn.labels] == ["from the right", "from behind", "from above"]
    assert drawn.outline == ""
    blue = pixels(drawn.panels[1].uri)  # the first is the mask's shadow
    assert blue[-1, 0, 2] > blue[-1, 0, 0]  # negative: blue, at the lower left
    assert (blue[..., 3] > 0).sum() == 1


@pytest.mark.parametrize("turned", [False, True])
def test_glass_brain_shows_voxels_and_numbers_where_they_lie(grid_maker, turned):
    # one voxel at the left front top; on a turned grid the views are sampled, on others they are the voxels themselves
    grid = grid_maker((30, 36, 30), 4.0, hole=False)
    place = (-22.0, 34.0, 18.0)
    if turned:
        angle = np.deg2rad(20.0)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        affine = grid.affine.copy()
        affine[:3] = turn @ grid.affine[:3]
        grid = replace(grid, affine=affine)
    voxel = np.rint(np.linalg.inv(grid.affine) @ [*place, 1.0]).astype(int)[:3]
    place = tuple((grid.affine @ [*voxel, 1.0])[:3])
    volume = np.zeros(grid.shape)
    volume[tuple(voxel)] = 5.0
    drawn = draw_glass(grid, volume, signed_scale(volume, "z", 3.0), "", mni=True, places=[("7", place)])
    seen = []
    for frame, panel in zip(glass_frames(), drawn.panels, strict=True):
        alpha = pixels(panel.uri)[..., 3] > 0
        seen.append(bool(alpha.any()))
        if not alpha.any():
            continue
        row, column = np.argwhere(alpha).mean(axis=0)
        centre = (
            panel.x + (column + 0.5) * panel.width / alpha.shape[1],
            panel.y + (row + 0.5) * panel.height / alpha.shape[0],
        )
        expected = frame.at(place[frame.view.right], place[frame.view.up])
        assert centre == pytest.approx(expected, abs=4.1 * frame.unit if turned else 0.01)
        assert any(mark == (*expected, "7") for mark in drawn.marks)
    assert seen == [True, True, False, True]  # the right hemisphere's side does not show it
    assert len(drawn.marks) == 3
    left, _, _, above = glass_frames()
    assert left.at(34.0, 0.0)[0] < left.at(-34.0, 0.0)[0]  # seen from the left, the front is on the left
    assert above.at(-22.0, 0.0)[0] < above.at(22.0, 0.0)[0]


def test_numbers_do_not_cover_each_other(grid_maker):
    grid = grid_maker((10, 10, 10), 4.0, hole=False)
    scale = signed_scale(np.ones(1), "z")
    near = [("1", (10.0, 0.0, 0.0)), ("2", (11.0, 1.0, 1.0)), ("3", (10.0, 30.0, 30.0))]
    drawn = draw_glass(grid, np.zeros(grid.shape), scale, "", mni=True, places=near)
    assert {text for _, _, text in drawn.marks} == {"1", "3"}


def test_outline_is_nilearns_and_lies_in_its_frames():
    numbers = [float(x) for d, _ in glass_outline().paths for x in re.findall(r"-?[0-9.]+", d)]
    frames = glass_frames()
    assert len(numbers) > 3000
    assert min(numbers) >= 0
    assert max(numbers) <= max(f.at(*f.high)[0] for f in frames) + 1


def test_design_picture_and_words():
    matrix = np.column_stack([np.ones(4), [-2.0, -1.0, 1.0, 2.0]])
    tests = (
        Test("old", np.array([[0.0, 1.0]])),
        Test("both", np.array([[1.0, -0.5], [0.0, 1.0]]), is_f=True),
    )
    design = Design(matrix, ("Intercept", "age"), tests, formula="1 + age")
    picture = draw_design(design, ("a", "b", "c", "d"))
    assert [cell.text for cell in picture.blocks[0].cells][1::2] == ["−2", "−1", "1", "2"]
    assert [name for _, name in picture.blocks[0].rows] == ["a", "b", "c", "d"]
    first, last = pixels(picture.blocks[0].uri)[[0, -1], 1]
    assert first[2] > first[0]  # blue: negative
    assert last[0] > last[2]


def test_big_designs_are_coloured_only():
    design = Design(np.eye(500), tuple(f"c{i}" for i in range(500)), (Test("t", np.eye(500)[:1]),))
    picture = draw_design(design, tuple("r" * 500))
    assert picture.blocks[0].cells == ()
    assert picture.columns == ()
    assert pixels(picture.blocks[0].uri).shape[:2] == (500, 500)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (float("nan"), "–"),
        (-0.0, "0"),
        (-62.0, "-62"),
        (1e-7, "1e-07"),
        ("voxelwise", "voxelwise"),
        (True, "True"),
        (np.float32(2.5), "2.5"),
        (np.int16(3), "3"),
    ],
)
def test_numbers_are_written_for_readers(value, text):
    assert format_number(value) == text


def test_labels_sort_as_read():
    assert sorted(["sub-10", "sub-2", "sub-a"], key=sort_key) == ["sub-2", "sub-10", "sub-a"]
    assert split_words("NumberOfTests") == "number of tests"
    assert split_words("FDRLevel") == "FDR level"
