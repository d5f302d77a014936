"""Extreme statistics through files: finite and right, both signs."""

import nibabel as nib
import numpy as np
import pytest


@pytest.mark.parametrize(
    ("t", "dof", "z"),
    # mpmath, 50 digits: the normal quantile with the same tail
    [(1000.0, 10, 13.2057), (50.0, 2000, 40.27), (-45.0, 5000, -41.23)],
)
def test_large_t_come_out_as_z(tmp_path, cli, describe_dataset, write_statmap, t, dof, z) -> None:
    mpmath = pytest.importorskip("mpmath")
    root = describe_dataset(tmp_path / "data")
    for sub in ("01", "02", "03"):
        label = {"sub": sub, "space": "MNI152NLin6Asym", "contrast": "c"}
        write_statmap(root, "t", np.full((2, 2, 2), t), metadata={"DegreesOfFreedom": dof}, **label)
    ran = cli(root, tmp_path / "out", "group", "--estimator", "stouffer", "--no-report")
    assert ran.code == 0, ran.stderr
    (path,) = (tmp_path / "out" / "group").glob("*desc-stouffer_stat-z_statmap.nii.gz")
    combined = nib.load(path).get_fdata()
    assert np.isfinite(combined).all()
    mpmath.mp.dps = 60
    x = mpmath.mpf(dof) / (dof + mpmath.mpf(t) ** 2)
    tail = mpmath.betainc(mpmath.mpf(dof) / 2, mpmath.mpf(1) / 2, 0, x, regularized=True) / 2
    exact = mpmath.findroot(lambda q: mpmath.log(mpmath.erfc(q / mpmath.sqrt(2)) / 2) - mpmath.log(tail), abs(z))
    expected = float(np.sign(t)) * float(exact) * np.sqrt(3)
    np.testing.assert_allclose(combined, expected, rtol=2e-5)
    if dof > 10:
        assert combined.flat[0] / np.sqrt(3) == pytest.approx(z, abs=0.01)
