"""Maps stacked: the same values in memory and on disk, every file read once, the mask as asked."""

import logging
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, DatasetError, ReadWriteError, UsageError, tell
from ibma_app.stream import memory_plan, prepare, survey
from ibma_app.stream.grid_and_mask import choose_grid
from ibma_app.stream.hedges_g import Stated, find_sample, hedges_g, pool_variances
from ibma_app.stream.prepare import Plan
from ibma_app.stream.stack import stack_maps
from ibma_app.stream.workers.resources import Resources

SHAPE = (6, 7, 8)
V = int(np.prod(SHAPE))
DISK = "disk"


@pytest.fixture
def maps(observe, rng):
    """Return ``maps(n, holes={k: slice})``: observations and their volumes."""

    def make(n, holes=None, *, kinds=("effect", "variance"), **fields):
        volumes = []
        for k in range(n):
            effect = rng.normal(size=SHAPE).astype(np.float32)
            effect[(holes or {}).get(k, ())] = 0 if k in (holes or {}) else effect[()]
            variance = rng.gamma(5.0, 0.2, size=SHAPE).astype(np.float32)
            every = {"effect": effect, "variance": variance, "z": effect, "t": effect}
            volumes.append({kind: every[kind] for kind in kinds})
        return [observe(f"{k:02d}", v, dof=10.0 + k, **fields) for k, v in enumerate(volumes)], volumes

    return make


@contextmanager
def stacked(
    observations, needs=("effect", "variance"), unit="subject", *, memory=None, threads=1, work_dir=None, **options
):
    """Open a stack; ``memory=DISK``: as if memory were too small to hold it."""
    grid, _ = choose_grid(observations, "common", unit, needs)
    with pytest.MonkeyPatch.context() as patch:
        if memory == DISK:
            patch.setattr(memory_plan, "STACK_SHARE", 0.0)
        plan = Plan(grid=grid, needs=tuple(needs), unit=unit, **options)
        with stack_maps(observations, plan, Resources(threads=threads, work_dir=work_dir)) as stack:
            yield stack


@pytest.mark.parametrize("memory", [None, DISK])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_give_the_files_values(maps, tmp_path, memory, threads):
    rows, volumes = maps(5)
    with stacked(rows, memory=memory, threads=threads, work_dir=tmp_path / "work") as stack:
        assert stack.on_disk is (memory == DISK)
        assert (stack.n_maps, stack.n_voxels, stack.kinds) == (5, V, ("effect", "variance"))
        block = stack.read(100, 150)
        for kind in ("effect", "variance"):
            expected = np.array([volume[kind].reshape(-1)[100:150] for volume in volumes], dtype=np.float64)
            np.testing.assert_array_equal(getattr(block, kind), expected)
        assert block.covered.all()
        assert block.z is None
        np.testing.assert_array_equal(block.dof, np.arange(10.0, 15.0)[:, None])
        assert stack.read(V - 10, V + 10).effect.shape == (5, 10)
    assert not (tmp_path / "work").exists() or not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("min_coverage", [0.0, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("memory", [None, DISK])
def test_coverage_counts_by_voxel(maps, rng, tmp_path, min_coverage, memory):
    n = 7
    rows, volumes = maps(n)
    for k, volume in enumerate(volumes):  # ragged holes in each map, rewritten over its file
        volume["effect"][rng.random(SHAPE) < 0.25] = 0
        volume["variance"][rng.random(SHAPE) < 0.1] = 0
        for kind in volume:
            nib.Nifti1Image(volume[kind], nib.load(rows[k].path).affine).to_filename(rows[k].statmaps[kind].path)
    covered = np.array([(v["effect"] != 0) & (v["variance"] > 0) for v in volumes])
    mask = covered.sum(axis=0) >= max(1, np.ceil(min_coverage * n))
    with stacked(rows, min_coverage=min_coverage, memory=memory, work_dir=tmp_path) as stack:
        np.testing.assert_array_equal(stack.grid.mask, mask)
        block = stack.read(0, stack.n_voxels)
        np.testing.assert_array_equal(block.covered, covered[:, mask])
        expected = np.where(covered, [v["effect"] for v in volumes], 0)[:, mask]
        np.testing.assert_array_equal(block.effect, expected)
        for row, survey in enumerate(stack.survey):
            assert survey.covered == covered[row][mask].sum()
            lost = ~covered[row] & mask
            background = (volumes[row]["effect"] == 0) & mask
            assert survey.losses.get("background (0)", 0) == background.sum()
            assert survey.losses.get("variance zero or negative", 0) == (lost & ~background).sum()
            np.testing.assert_allclose(
                survey.median_variance, np.median(volumes[row]["variance"][covered[row] & mask]), rtol=1e-6
            )


@pytest.mark.parametrize(("unit", "voxels"), [("run", V), ("subject", 5 * 7 * 8), ("study", V)])
def test_each_unit_has_its_own_coverage(maps, unit, voxels):
    rows, _ = maps(5, {3: slice(0, 1)})
    with stacked(rows, unit=unit) as stack:
        assert stack.n_voxels == voxels


def test_every_file_is_read_once(maps, monkeypatch, tmp_path):
    rows, _ = maps(6, {2: slice(0, 3)})
    read = []
    real = prepare.read_map
    monkeypatch.setattr(prepare, "read_map", lambda files: (read.extend(files), real(files))[1])
    with stacked(rows, unit="study", memory=DISK, work_dir=tmp_path, threads=2) as stack:
        stack.read(0, 10)
    assert sorted(read) == sorted(row.statmaps[kind].path for row in rows for kind in ("effect", "variance"))


def test_the_work_folder_is_removed_after_an_error(maps, tmp_path):
    rows, _ = maps(3)
    work = tmp_path / "work"

    def fail():
        with stacked(rows, memory=DISK, work_dir=work):
            assert len(list(work.iterdir())) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(work.iterdir()) == []


def test_the_maps_that_cost_most_are_named(maps, caplog):
    rows, _ = maps(6, {4: slice(0, 2), 1: slice(2, 3)})
    with stacked(rows) as stack:
        assert stack.n_voxels == 3 * 7 * 8
    (note,) = tell(stack.notes)  # more than a tenth is lost: a warning
    assert note.index("sub-04_contrast-c (112)") < note.index("sub-01_contrast-c (56)")
    few, _ = maps(6, {4: (0, 0)})
    with caplog.at_level(logging.INFO, logger="ibma_app"), stacked(few) as stack:
        assert stack.notes == ()
    assert "sub-04_contrast-c (8)" in caplog.text


def test_an_empty_mask_names_the_maps(maps):
    rows, _ = maps(4, {2: ()})
    with pytest.raises(DataError, match="sub-02_contrast-c") as caught, stacked(rows):
        pass
    assert str(rows[2].path) in caught.value.message


def thresholded(volumes, limit):
    rough = {kind: np.asarray(volume, float) for kind, volume in volumes.items()}
    z = rough["z"] if "z" in rough else rough["effect"] / np.sqrt(rough.get("variance", 1.0))
    return {kind: np.where(np.abs(z) > limit, volume, 0) for kind, volume in volumes.items()}


@pytest.mark.parametrize("kinds", [("effect", "variance"), ("z",), ("effect",)])
@pytest.mark.parametrize("unit", ["subject", "study"])
def test_thresholded_maps_are_refused_by_name(maps, observe, kinds, unit):
    rows, volumes = maps(5, kinds=kinds)
    rows[3] = observe("thresholded", thresholded(volumes[3], 2.2))
    with pytest.raises(DataError, match="thresholded") as caught, stacked(rows, kinds, unit):
        pass
    assert str(rows[3].path) in caught.value.message
    assert str(rows[2].path) not in caught.value.message


def test_when_all_are_thresholded_all_are_named(maps, observe):
    _, volumes = maps(16, kinds=("z",))
    rows = [observe(f"t{k}", thresholded(v, 2.0)) for k, v in enumerate(volumes)]
    with pytest.raises(DataError, match="16 map"), stacked(rows, ["z"], "study"):
        pass


@pytest.mark.parametrize("kinds", [("effect", "variance"), ("z",)])
@pytest.mark.parametrize("survivors", [0.1, 0.25, 0.5, 0.8])
def test_a_threshold_shows_at_any_share_of_survivors(maps, observe, kinds, survivors):
    rows, volumes = maps(5, kinds=kinds)
    z = volumes[3]["z"] if "z" in kinds else volumes[3]["effect"] / np.sqrt(volumes[3]["variance"])
    strong = {kind: volume * (1 if kind == "variance" else 2.0 / np.quantile(np.abs(z), 1 - survivors))
              for kind, volume in volumes[3].items()}  # fmt: skip
    rows[3] = observe("thresholded", thresholded(strong, 2.0))
    with pytest.raises(DataError, match="1 map") as caught, stacked(rows, kinds, "study"):
        pass
    assert str(rows[3].path) in caught.value.message


def test_a_strong_effect_in_a_small_field_of_view_is_not_thresholding(maps, observe, rng):
    rows, _ = maps(5, kinds=("z",))
    strong = rng.normal(6.0, 1.0, size=SHAPE)
    strong[3:] = 0
    rows[3] = observe("strong", {"z": strong})
    with stacked(rows, ("z",), "study") as stack:
        assert stack.n_maps == 5


def test_a_small_field_of_view_is_not_thresholding(maps):
    rows, _ = maps(5, {3: slice(1, 6)})  # covers one slice of six
    with stacked(rows, unit="study") as stack:
        assert stack.n_voxels == V


def test_smoothing_moves_effects_alone(maps):
    rows, volumes = maps(3, {1: slice(0, 2)}, kinds=("effect",))
    with stacked(rows, ["effect"], smoothing=8.0) as stack:
        block = stack.read(0, stack.n_voxels)
        assert stack.n_voxels == 4 * 7 * 8
        assert "smoothed with FWHM 8 mm" in stack.survey[0].derived[0]
        assert block.effect[0].std() < 0.5 * volumes[0]["effect"].std()
    grid = stack.grid
    with (
        pytest.raises(UsageError, match="--smoothing"),
        stack_maps(rows, Plan(grid, ("effect", "variance"), "subject", smoothing=8.0)),
    ):
        pass


def test_voxelwise_and_whole_dof_stand_side_by_side(observe, rng):
    volumes = {"effect": rng.normal(size=SHAPE), "variance": np.ones(SHAPE)}
    dof = rng.integers(5, 20, size=SHAPE).astype(np.float32)
    rows = [observe("1", {**volumes, "dof": dof}), observe("2", volumes, dof=30.0), observe("3", volumes)]
    with stacked(rows, ("effect", "variance", "dof"), unit="run") as stack:
        block = stack.read(0, V)
        np.testing.assert_array_equal(block.dof[0], dof.reshape(-1))
        np.testing.assert_array_equal(block.dof[1], np.full(V, 30.0))
        assert np.isinf(block.dof[2]).all()
        assert [survey.dof for survey in stack.survey] == ["voxelwise", "30", "unknown"]
    with stacked(rows, unit="subject") as stack:  # nobody asked: the map is not opened
        assert stack.read(0, V).dof is None


def test_runs_that_are_no_good_are_left_out(maps, observe, tmp_path):
    rows, volumes = maps(2)
    bad = [
        observe("novariance", {"effect": volumes[0]["effect"]}),
        observe("grid", {kind: np.ones((3, 3, 3)) for kind in ("effect", "variance")}),
        observe("empty", {"effect": np.zeros(SHAPE), "variance": np.ones(SHAPE)}),
        observe("torn", volumes[0]),
        observe("gone", {"effect": tmp_path / "gone.nii.gz", "variance": rows[0].statmaps["variance"].path}),
    ]
    torn = bad[3].statmaps["effect"].path
    torn.write_bytes(torn.read_bytes()[:200])
    order = [bad[0], rows[0], *bad[1:], rows[1]]
    with stacked(order, unit="run") as stack:
        assert stack.kept == (1, 6)
        assert stack.n_maps == 2
        np.testing.assert_array_equal(stack.read(0, V).effect[1], volumes[1]["effect"].reshape(-1))
    for observation in bad:
        named = "gone.nii.gz" if observation is bad[4] else observation.label
        assert any(named in note and "left out: " in note for note in tell(stack.notes))
    with pytest.raises(ReadWriteError, match=r"torn.*\.nii\.gz"), stacked([bad[3]], unit="run"):
        pass
    with pytest.raises(DataError, match="stat-variance") as caught, stacked([bad[0], bad[2]], unit="run"):
        pass
    assert "sub-empty" in caught.value.message


def test_the_same_failures_stop_subjects(maps, observe):
    rows, volumes = maps(2)
    with (
        pytest.raises(DataError, match="--estimator auto"),
        stacked([*rows, observe("x", {"effect": volumes[0]["effect"]})]),
    ):
        pass
    small = observe("y", {kind: np.ones((3, 3, 3)) for kind in ("effect", "variance")})
    grid, _ = choose_grid(rows)
    with (
        pytest.raises(DatasetError, match="another grid"),
        stack_maps([*rows, small], Plan(grid, ("effect",), "subject")),
    ):
        pass


def test_kinds_of_one_observation_must_share_a_grid(observe):
    row = observe("1", {"effect": np.ones((4, 4, 4)), "variance": np.ones((5, 4, 4))})
    grid, _ = choose_grid([row], needs=["effect"])
    with (
        pytest.raises(DatasetError, match=r"stat-variance.*stat-effect"),
        stack_maps([row], Plan(grid, ("effect", "variance"), "subject")),
    ):
        pass


def test_other_grids_are_interpolated_when_asked(observe, rng):
    smooth = np.add.outer(np.add.outer(np.arange(1.5, 7), 2 * np.arange(7)), 3 * np.arange(8))
    shifted = np.array([[-4.0, 0, 0, 8], [0, 4.0, 0, -12], [0, 0, 4.0, -8], [0, 0, 0, 1]])  # half a voxel
    rows = [observe("1", {"z": smooth}), observe("2", {"z": smooth}, affine=shifted)]
    grid, _ = choose_grid(rows[:1])
    with stack_maps(rows, Plan(grid, ("z",), "study", min_coverage=0.5)) as stack:
        block = stack.read(0, stack.n_voxels)
        both = block.covered.all(axis=0)
        # a linear ramp is interpolated exactly, up to single precision; half a voxel along x is a step of 0.5
        np.testing.assert_allclose(block.z[0, both] - block.z[1, both], 0.5, rtol=1e-5)
        assert stack.survey[1].derived == ("interpolated to the analysis grid",)
        assert stack.survey[1].losses["outside the field of view"] == 7 * 8


def test_variances_of_other_units_raise_a_note(maps, observe):
    rows, volumes = maps(3)
    rows.append(observe("si", {"effect": volumes[0]["effect"] * 30, "variance": volumes[0]["variance"] * 900}))
    with stacked(rows) as stack:
        assert any("sub-si" in note and "fold" in note for note in tell(stack.notes))


@pytest.mark.parametrize("unit_of_effect", [1e-15, 1e25])
def test_units_beyond_single_precision_survive(maps, observe, unit_of_effect):
    _, volumes = maps(2)
    effect = [volume["effect"].astype(float) * unit_of_effect for volume in volumes]
    variance = [volume["variance"].astype(float) * unit_of_effect**2 for volume in volumes]
    rows = [observe(f"{k}", {"effect": effect[k], "variance": variance[k]}) for k in range(2)]
    with stacked(rows) as stack:
        block = stack.read(0, V)
        # stored in single precision, scaled by a power of two
        np.testing.assert_allclose(block.effect, np.reshape(effect, (2, -1)), rtol=1e-7)
        np.testing.assert_allclose(block.variance, np.reshape(variance, (2, -1)), rtol=1e-7)


def test_sample_sizes_and_signs(observe, rng):
    p = rng.random(SHAPE)
    rows = [
        observe("1", {"p": p}, sample_size=12.0),
        observe("2", {"z": rng.normal(size=SHAPE)}, sample_size=20.0),
    ]
    with stacked(rows, ["z", "sample_size"], "study") as stack:
        assert stack.signed == (False, True)
        np.testing.assert_array_equal(stack.read(0, 1).sample_size, [12, 20])


def test_standardised_effects_come_from_t_and_sample_size(observe, rng):
    t = rng.normal(size=SHAPE)
    rows = [observe("1", {"t": t}, sample_size=12.0), observe("2", {"t": t}), observe("3", {"z": t}, dof=np.inf)]
    samples = [find_sample(rows[0]), find_sample(rows[1], Stated(10, 15)), find_sample(rows[2], Stated(10, 15))]
    grid, _ = choose_grid(rows, "common", "study", ["t"])
    with stack_maps(rows, Plan(grid, ("effect", "variance"), "study", samples=tuple(samples))) as stack:
        block = stack.read(0, V)
        g, _ = hedges_g(t.reshape(-1), samples[0])
        np.testing.assert_allclose(block.effect[0], g, rtol=1e-6)  # single precision
        np.testing.assert_allclose(block.variance, pool_variances(block.effect, block.covered, samples), rtol=1e-12)
        np.testing.assert_allclose(block.effect[1], block.effect[2], rtol=1e-6)
        assert stack.survey[0].units == "hedges-g"
        assert "Hedges' g" in stack.survey[0].derived[-1]


@pytest.mark.parametrize("min_coverage", [0.0, 0.6, 1.0])
def test_maps_that_are_alike_are_counted_each(maps, tmp_path, min_coverage):
    """Runs of maps with the same holes, between others: coverage is found once for each run of them, and is theirs."""
    here, there = (slice(0, 2),), (slice(None), slice(3, 5))
    holes = {0: here, 1: here, 2: here, 4: there, 5: there, 7: here}
    rows, volumes = maps(9, holes)
    covered = np.array([volume["effect"] != 0 for volume in volumes]).reshape(9, -1)
    kept = covered.sum(axis=0) >= max(1, np.ceil(9 * min_coverage))
    for nprocs in (1, 3):
        with stacked(rows, min_coverage=min_coverage, threads=nprocs, work_dir=tmp_path) as stack:
            np.testing.assert_array_equal(stack.grid.mask.reshape(-1), kept)
            np.testing.assert_array_equal(stack.read(0, V).covered, covered[:, kept])
            assert [one.covered for one in stack.survey] == covered[:, kept].sum(axis=1).tolist()


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_surveys_median_is_numpys(rng, size, dtype):
    values = rng.gamma(1.0, 1e-5, size).astype(dtype)
    assert survey._median(values.copy()) == float(np.median(values))


@pytest.mark.parametrize("memory", [None, DISK])
def test_effects_of_studies_stay_beside_what_is_made_of_them(maps, tmp_path, memory):
    observations, volumes = maps(3, {1: np.s_[:2]}, kinds=("effect", "variance", "t"), sample_size=12)
    for needs, options in (
        (("z",), {}),
        (("effect", "variance"), {"samples": tuple(map(find_sample, observations))}),
    ):
        with stacked(
            observations, needs, "study", memory=memory, work_dir=tmp_path, min_coverage=0.1, **options
        ) as stack:
            assert stack.given == (0, 1, 2)
            for row, volume in enumerate(volumes):
                given, there = stack.read_map("given", row), ~np.isnan(stack.read_map(stack.kinds[0], row))
                np.testing.assert_array_equal(given[there], volume["effect"].reshape(-1)[there])
            stack.forget_given()
            assert not stack.given
            assert stack.read(0, V).covered.sum() == 3 * V - 2 * 7 * 8
    with stacked(observations, ("effect",), "study") as stack:
        assert not stack.given
