"""The strongest voxels are no holes: p of 0, infinite z and t, through the command lines."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

SHAPE = (5, 5, 5)
PEAK = (2, 2, 2)
N = 8


def _write(root: Path, kind: str, volumes, write_statmap, describe_dataset, **metadata) -> Path:
    describe_dataset(root)
    for row, volume in enumerate(volumes):
        write_statmap(
            root, kind, volume, study=f"s{row}", space="T1w", contrast="c", metadata={"SampleSize": 20, **metadata}
        )
    return root


def _read(out: Path, kind: str) -> np.ndarray:
    (path,) = (out / "group").glob(f"*_desc-stouffer_stat-{kind}_statmap.nii.gz")
    return np.asarray(nib.load(path).dataobj, dtype=np.float64)


@pytest.fixture
def z():
    volumes = np.random.default_rng(8).normal(size=(N, *SHAPE))
    volumes[(slice(None), *PEAK)] = 3.0
    return volumes


def _group(cli, root, out):
    words = ("--estimator", "stouffer", "--inference", "bonferroni", "--mask", "data", "--no-report")
    return cli(root, out, "group", *words)


@pytest.mark.parametrize("kind", ["z", "t"])
def test_an_infinite_statistic_counts_as_the_strongest(tmp_path, z, kind, write_statmap, describe_dataset, cli):
    z[(0, *PEAK)] = np.inf
    root = _write(tmp_path / "in", kind, z, write_statmap, describe_dataset, DegreesOfFreedom=1e6)
    ran = _group(cli, root, tmp_path / "out")
    assert ran.code == 0, ran.stderr
    assert f"study-s0_contrast-c (1 voxel(s)): {kind} is infinite, taken as" in ran.stderr
    assert (_read(tmp_path / "out", "n") == N).all()
    expected = (38.4 + 3.0 * (N - 1)) / np.sqrt(N)
    assert _read(tmp_path / "out", "z")[PEAK] == pytest.approx(expected, rel=1e-3)


def test_a_p_of_zero_is_the_smallest_that_its_file_holds(tmp_path, z, write_statmap, describe_dataset, cli):
    p = stats.norm.sf(z)
    p[(slice(None), *PEAK)] = 0.0
    root = _write(tmp_path / "in", "p", p, write_statmap, describe_dataset, Tail="positive")
    ran = _group(cli, root, tmp_path / "out")
    assert ran.code == 0, ran.stderr
    assert "8 maps (1 voxel(s)): p is 0, taken as" in ran.stderr
    assert (_read(tmp_path / "out", "n") == N).all()
    limit = stats.norm.isf(float(np.finfo(np.float32).smallest_subnormal))
    assert _read(tmp_path / "out", "z")[PEAK] == pytest.approx(limit * np.sqrt(N), rel=1e-5)


def test_what_is_written_of_a_p_below_single_precision_is_no_empty_voxel(
    tmp_path, z, write_statmap, describe_dataset, cli
):
    z[(slice(None), *PEAK)] = 20.0
    root = _write(tmp_path / "in", "z", z, write_statmap, describe_dataset)
    assert _group(cli, root, tmp_path / "out").code == 0
    assert 0 < _read(tmp_path / "out", "p")[PEAK] < 1e-44


def test_an_import_keeps_saturated_values_and_says_so(tmp_path, z, run_python):
    z = z[0].astype(np.float32)
    z[PEAK] = -np.inf
    nib.Nifti1Image(z, np.diag([4.0, 4.0, 4.0, 1.0])).to_filename(tmp_path / "z.nii.gz")
    (tmp_path / "maps.tsv").write_text("study_id\tcontrast\tkind\tpath\tsample_size\na\tc\tz\tz.nii.gz\t20\n")
    words = ("table", str(tmp_path / "maps.tsv"), str(tmp_path / "out"), "--space", "T1w")
    ran = run_python("-c", f"import sys; from ibma_app.cli import import_main; sys.exit(import_main({list(words)!r}))")
    assert ran.code == 0, ran.stderr
    assert "1 saturated value(s)" in ran.stderr
    (path,) = (tmp_path / "out").rglob("*_stat-z_statmap.nii.gz")
    assert nib.load(path).get_fdata()[PEAK] == pytest.approx(-38.4)
    assert "saturated" in json.dumps(json.loads(Path(str(path).replace(".nii.gz", ".json")).read_text())["Notes"])
