"""A z beside an effect is no t: variances and g by the degrees of freedom, wherever these are said."""

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

MNI, SHAPE, DOF, K = "MNI152NLin6Asym", (4, 4, 3), 9, 5
QUICK = ("--no-report", "--nprocs", "1")


@pytest.fixture(scope="module")
def truth():
    """Effects, variances, their t, and z by scipy; a z taken for t would give variances up to 4 times too large."""
    rng = np.random.default_rng(0)
    effect, variance = rng.normal(1, 1, (K, *SHAPE)), rng.uniform(0.1, 0.3, (K, *SHAPE))
    t = effect / np.sqrt(variance)
    z = np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), DOF))
    assert ((effect / z) ** 2 / variance).max() > 2
    return {"effect": effect, "variance": variance, "t": t, "z": z, "dof": np.full((K, *SHAPE), float(DOF))}


@pytest.fixture
def write(tmp_path, truth, describe_dataset, write_statmap):
    """Return ``write(name, unit, kinds, **metadata) -> root``."""

    def make(name, unit, kinds, **metadata):
        root = describe_dataset(tmp_path / name)
        for kind in kinds.split():
            for k in range(K):
                names = {unit: f"{k + 1:02d}", "space": MNI, "contrast": "a"}
                write_statmap(root, kind, truth[kind][k], metadata={"Units": "percent", **metadata}, **names)
        return root

    return make


def read(out, kind):
    return nib.load(min(out.rglob(f"*_stat-{kind}_statmap.nii.gz"))).get_fdata()


@pytest.mark.parametrize("unit", ["study", pytest.param("sub", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kinds", "metadata", "words"),
    [
        ("effect z", {"SampleSize": DOF + 1}, ()),
        ("effect z", {"DegreesOfFreedom": DOF}, ()),
        ("effect z dof", {}, ()),
        ("effect z", {}, ("--dof", DOF)),
        ("effect t z", {}, ()),
    ],
)
def test_variances_are_those_of_t(unit, kinds, metadata, words, write, truth, tmp_path, cli):
    how = ("group", "--estimator", "fixed-effects", "--inference", "fdr", *QUICK, *words)
    ran = cli(write("in", unit, kinds, **metadata), tmp_path / "out", *how)
    assert ran.code == 0, ran.stderr
    weights = 1 / truth["variance"]
    expected = (weights * truth["effect"]).sum(axis=0) / weights.sum(axis=0)
    np.testing.assert_allclose(read(tmp_path / "out", "effect"), expected, rtol=2e-5, atol=1e-6)


def test_a_participant_without_variances(write, truth, tmp_path, cli):
    ran = cli(write("in", "sub", "effect z", DegreesOfFreedom=DOF), tmp_path / "out", "participant", *QUICK)
    assert ran.code == 0, ran.stderr
    np.testing.assert_allclose(read(tmp_path / "out" / "sub-01", "variance"), truth["variance"][0], rtol=2e-5)
    np.testing.assert_allclose(read(tmp_path / "out" / "sub-01", "t"), truth["t"][0], rtol=2e-5)


def test_hedges_g_of_z_is_that_of_its_t(write, tmp_path, cli):
    how = ("group", "--estimator", "reml", "--units", "hedges-g", "--inference", "fdr", *QUICK)
    for kind in ("t", "z"):
        ran = cli(write(kind, "study", kind, SampleSize=DOF + 1), tmp_path / f"out-{kind}", *how)
        assert ran.code == 0, ran.stderr
    for kind in ("effect", "variance"):
        np.testing.assert_allclose(read(tmp_path / "out-z", kind), read(tmp_path / "out-t", kind), rtol=2e-5, atol=1e-6)


def test_without_dof_it_is_said_which_way_it_errs(write, truth, tmp_path, cli):
    how = ("group", "--estimator", "reml", "--inference", "fdr", *QUICK)
    ran = cli(write("in", "study", "effect z"), tmp_path / "out", *how)
    assert ran.code == 0
    assert "dof unknown, so z is taken as t, which makes errors too large" in ran.stderr
    ran = cli(write("t", "study", "t"), tmp_path / "t-out", "group", "--inference", "fdr", *QUICK)
    assert "dof unknown, so t is taken as z, which overstates" in ran.stderr
