"""A study that is there twice is named, whatever was done to its map in between."""

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ibma_app.stats.tails import t_to_z

MNI, SHAPE, STEP = "MNI152NLin6Asym", (22, 24, 22), 7.0
AFFINE = np.diag([STEP, STEP, STEP, 1.0])
AFFINE[:3, 3] = (-77, -105, -63)


def smooth(rng, sigma):
    values = gaussian_filter(rng.normal(size=SHAPE), sigma)
    return values / values.std()


@pytest.fixture(scope="module")
def studies(tmp_path_factory, describe_dataset, write_statmap):
    """Eight studies with a signal in common; the t of the first."""
    root, rng = describe_dataset(tmp_path_factory.mktemp("in")), np.random.default_rng(20)
    signal = smooth(rng, 2)
    maps = [2 * smooth(rng, 1) + 0.8 * signal for _ in range(8)]
    for number, t in enumerate(maps):
        names = {"study": f"s{number}", "space": MNI, "contrast": "a"}
        write_statmap(root, "t", t, affine=AFFINE, metadata={"SampleSize": 20 + number}, **names)
    return root, maps[0]


@pytest.mark.parametrize(
    "how",
    [
        *("another grid", "as z", "axes turned", "not at all"),
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("rounded", "sign turned")),
    ],
)
def test_a_copy_is_named(how, studies, tmp_path, cli, write_statmap, rng):
    (source, t), root = studies, tmp_path / "in"
    root.mkdir()
    for path in source.iterdir():
        (root / path.name).symlink_to(path)
    names, told = {"study": "copy", "space": MNI, "contrast": "a"}, {"SampleSize": 20}
    grid = "common"
    if how == "another grid":
        from nilearn.image import resample_img

        affine = np.diag([6.0, 6, 6, 1])
        affine[:3, 3] = (-76, -103, -62)
        image = resample_img(nib.Nifti1Image(t.astype(np.float32), AFFINE), affine, (25, 27, 25))
        write_statmap(root, "t", image.get_fdata(), affine=affine, metadata=told, **names)
        grid = min(source.rglob("*s0*.nii.gz"))
    elif how == "as z":
        write_statmap(root, "z", t_to_z(t, 19.0), affine=AFFINE, metadata=told, **names)
    elif how == "axes turned":
        affine = AFFINE @ np.diag([-1.0, 1, 1, 1])
        affine[0, 3] = AFFINE[0, 3] + STEP * (SHAPE[0] - 1)
        write_statmap(root, "t", t[::-1], affine=affine, metadata=told, **names)
    else:
        other = 2 * smooth(rng, 1) + 0.5 * t
        values = {"rounded": np.round(t, 1), "sign turned": -t, "not at all": other}[how]
        write_statmap(root, "t", values, affine=AFFINE, metadata=told, **names)
    words = ("--estimator", "stouffer", "--inference", "fdr", "--mask", "data", "--grid", grid, "--no-report")
    ran = cli(root, tmp_path / "out", "group", *words, "--nprocs", "1")
    assert ran.code == 0, ran.stderr
    said = [line for line in ran.stderr.splitlines() if "there more than once" in line]
    assert bool(said) == (how != "not at all"), ran.stderr
    if said:
        assert "study-copy_contrast-a = study-s0_contrast-a" in said[0]
