"""The demonstration on the cortex: its noise is what its truth says, and both levels recover what was put in."""

import numpy as np
import pytest

from ibma_app.core.errors import UsageError
from ibma_app.workflows.demo.on_surface import make_cortex, run_surface_demo
from ibma_app.workflows.demo.simulate import SUBJECT_BLOBS, simulate_subjects
from ibma_app.workflows.demo.smooth_noise import smooth_noise
from ibma_app.workflows.options.parse import parse_demo


@pytest.fixture(scope="module")
def cortex():
    return make_cortex(2562)


@pytest.fixture(scope="module")
def subjects(cortex):
    return simulate_subjects(cortex, 12, 20, {"hemi": "L", "space": "fsaverage5"})


def test_noise_has_variance_one_at_every_vertex(cortex):
    rng = np.random.default_rng(3)
    drawn = np.array([smooth_noise(rng, cortex) for _ in range(400)])
    # the standard error of a variance of 400 draws is .07; the largest of 5,124 is about 4 of them away
    assert abs(drawn.var(axis=0) - 1).max() < 0.35
    assert drawn.var() == pytest.approx(1, abs=0.02)
    wide = smooth_noise(rng, cortex, fwhm=50.0)
    assert np.mean(wide**2) == pytest.approx(1)


def test_noise_does_not_cross_the_midline(cortex):
    half = cortex.n_voxels // 2
    rng = np.random.default_rng(4)
    drawn = np.array([smooth_noise(rng, cortex) for _ in range(300)])
    across = [np.corrcoef(drawn[:, at], drawn[:, half + at])[0, 1] for at in range(0, half, 40)]
    assert abs(np.mean(across)) < 0.03  # 65 correlations of 300 draws: a standard error of .007


def test_error_of_a_mean_is_that_of_simulated_noise(cortex, subjects):
    core = subjects.truth.core(subjects.truth.slope)
    rng = np.random.default_rng(1)
    means = [smooth_noise(rng, cortex)[core].mean() for _ in range(400)]
    expected = subjects.truth.error_of_mean(np.ones(cortex.n_voxels), core)
    assert np.std(means) == pytest.approx(expected, rel=0.12)  # 3 standard errors: 3 / sqrt(2 * 400)


def test_truth_lies_where_the_blobs_are(cortex, subjects):
    places = cortex.places_at(np.arange(cortex.n_voxels))
    for blob in SUBJECT_BLOBS:
        away = np.linalg.norm(places - np.array(blob.centre), axis=1)
        assert (np.sign(subjects.truth.effect[away < 0.5 * blob.radius]) == np.sign(blob.peak)).all()
        assert (away < 0.5 * blob.radius).sum() > 10


def test_it_is_asked_for_by_its_name(tmp_path):
    assert parse_demo([str(tmp_path), "--surface"]).surface
    assert not parse_demo([str(tmp_path)]).surface
    with pytest.raises(UsageError, match="not allowed with"):
        parse_demo([str(tmp_path), "--surface", "--from-bold"])


@pytest.mark.slow
def test_both_levels_recover_what_was_put_in(tmp_path, capsys):
    assert run_surface_demo(tmp_path / "out", nprocs=1) == 0
    told = capsys.readouterr().out
    assert "LOOK" not in told
    results = tmp_path / "out" / "results" / "surface"
    page = (results / "group_task-faces_space-fsaverage5_contrast-facesGtHouses.html").read_text(encoding="utf-8")
    assert "vertices" in page
    assert "Axial slices" not in page
    assert len(page) < 5_000_000
    assert sorted(path.name for path in (tmp_path / "out" / "data" / "truth").glob("*_effect.gii")) == [
        "surface_hemi-L_effect.gii", "surface_hemi-R_effect.gii",
    ]  # fmt: skip
