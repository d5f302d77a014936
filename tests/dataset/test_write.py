"""What we write: whole or not at all, the same bytes, many jobs side by side."""

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ibma_app.core.errors import DataError, OutputError, ReadWriteError
from ibma_app.core.grid import Grid
from ibma_app.dataset.output_dir import lock_shared, open_output, prepare_output, replace_file
from ibma_app.dataset.write import save_json, save_statmap, save_text, save_tsv
from ibma_app.images.read import read_image

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


def make_grid(**settings):
    mask = np.zeros((4, 5, 6), dtype=bool)
    mask[1:3, 1:4, 2:5] = True
    return Grid(**{"affine": AFFINE, "mask": mask, **settings})


@pytest.fixture
def output(tmp_path):
    with open_output(tmp_path / "out") as output:
        yield output


def test_statmap_round_trip(output):
    grid = make_grid()
    values = np.random.default_rng(1).normal(size=grid.n_voxels)
    path = save_statmap(output, "sub-01/func/a_statmap.nii.gz", values, grid, fill=1.0)
    image = nibabel.load(path)
    data = image.get_fdata()
    np.testing.assert_array_equal(data[grid.mask], values.astype(np.float32))
    assert np.all(data[~grid.mask] == 1.0)
    np.testing.assert_array_equal(image.affine, AFFINE)
    header = nibabel.Nifti1Header(gzip.decompress(path.read_bytes())[:348], check=False)
    assert (float(header["scl_slope"]), float(header["scl_inter"])) == (1.0, 0.0)
    assert header.get_data_dtype() == np.float32
    assert sorted(path.name for path in output.root.rglob("*")) == sorted(
        ["sub-01", "func", "a_statmap.nii.gz", output.temporary.name]
    )


@pytest.mark.parametrize(("sform", "qform"), [(4, 0), (0, 1), (4, 1), (0, 0), (1, 2)], ids=lambda code: str(code))
def test_codes_and_units_are_kept(output, sform, qform):
    grid = make_grid(sform_code=sform, qform_code=qform, xyzt_units=2)
    path = save_statmap(output, "a.nii", np.zeros(grid.n_voxels), grid, dtype=np.int16)
    image = nibabel.load(path)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)  # a qform is float32 quaternions
    # without codes an affine with an origin of its own cannot be told: then sform 2 says it
    expected = (sform, qform) if sform or qform else (2, 0)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == expected
    assert int(image.header["xyzt_units"]) == 2
    np.testing.assert_allclose(image.header.get_zooms(), 2.0, rtol=1e-6)
    assert image.get_data_dtype() == np.int16


def test_qform_of_its_own(output):
    qform = np.diag([2.0, 2, 2, 1])
    grid = make_grid(sform_code=4, qform_code=1, qform=qform)
    image = nibabel.load(save_statmap(output, "a.nii", np.zeros(grid.n_voxels), grid))
    np.testing.assert_allclose(image.get_qform(), qform, atol=1e-6)
    np.testing.assert_array_equal(image.affine, AFFINE)


def test_same_bytes(output):
    grid = make_grid()
    values = np.arange(grid.n_voxels, dtype=float)
    one = save_statmap(output, "a/one_statmap.nii.gz", values, grid).read_bytes()
    time.sleep(1.1)  # gzip headers carry whole seconds
    two = save_statmap(output, "b/two_statmap.nii.gz", values, grid).read_bytes()
    assert one == two
    assert one[3] == 0  # no flags: no name
    assert one[4:8] == b"\0\0\0\0"  # no time


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(np.nan, np.float32), (np.inf, np.float32), (4e4, np.int16), (0.5, np.int16)],
)
def test_values_that_cannot_be_written(output, value, dtype):
    grid = make_grid()
    values = np.zeros(grid.n_voxels)
    values[3] = value
    with pytest.raises(ValueError, match="values that are"):
        save_statmap(output, "a.nii.gz", values, grid, dtype=dtype)
    assert not (output.root / "a.nii.gz").exists()


def test_values_beyond_the_type(output):
    grid = make_grid()
    values = np.zeros(grid.n_voxels)
    values[3] = 1e39
    with pytest.raises(DataError, match="1 of its values are beyond"):
        save_statmap(output, "a.nii.gz", values, grid, dtype=np.float32)
    assert not (output.root / "a.nii.gz").exists()


@pytest.mark.parametrize("power", [-24, -30, -44, -60])
def test_small_values_keep_their_digits(output, power):
    grid = make_grid()
    values = np.random.default_rng(4).lognormal(sigma=2.0, size=grid.n_voxels) * 10.0**power  # variances of MEG in T^2
    path = save_statmap(output, "a.nii.gz", values, grid)
    np.testing.assert_allclose(nibabel.load(path).get_fdata()[grid.mask], values, rtol=2.0**-24)
    np.testing.assert_allclose(read_image(path).data[grid.mask], values, rtol=2.0**-24)
    assert (nibabel.load(path).dataobj.slope == 1.0) == (power == -24)


def test_what_is_outside_the_mask_keeps_its_value_when_maps_are_scaled(output):
    grid = make_grid()
    path = save_statmap(output, "p.nii.gz", np.full(grid.n_voxels, 3e-40), grid, fill=1.0)
    assert (nibabel.load(path).get_fdata()[~grid.mask] == 1.0).all()


def test_values_too_small_for_any_scale_are_refused_by_name(output):
    grid = make_grid()
    with pytest.raises(DataError, match=r"a\.nii\.gz cannot be written: its largest value is 1e-70, .* larger units"):
        save_statmap(output, "a.nii.gz", np.full(grid.n_voxels, 1e-70), grid)
    assert not (output.root / "a.nii.gz").exists()


def test_json_and_tsv(output):
    path = save_json(output, "a.json", {"b": np.float64(1.5), "a": "é", "c": np.arange(2), "d": output.root})
    assert path.read_text(encoding="utf-8").startswith('{\n  "b": 1.5,\n  "a": "é"')
    assert path.read_bytes().endswith(b"}\n")
    assert json.loads(path.read_text())["c"] == [0, 1]
    with pytest.raises(ValueError, match="Out of range"):
        save_json(output, "b.json", {"a": float("nan")})
    rows = [{"x": 0.1, "y": None, "z": True}, {"x": np.nan, "y": "a\tb\nc", "z": np.int64(3)}, {}]
    text = save_tsv(output, "a.tsv", ["x", "y", "z"], rows).read_text()
    assert text == "x\ty\tz\n0.1\tn/a\ttrue\nn/a\ta b c\t3\nn/a\tn/a\tn/a\n"


def test_permissions_are_the_users(output):
    mask = os.umask(0o022)
    try:
        assert save_text(output, "a.txt", "a").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(mask)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, ReadWriteError),
        (errno.EIO, ReadWriteError),
        (errno.EACCES, OutputError),
        (errno.EROFS, OutputError),
    ],
)
def test_what_the_system_says(output, code, expected):
    save_text(output, "a.txt", "old")

    def write(path):
        path.write_text("half")
        raise OSError(code, os.strerror(code))

    with pytest.raises(expected, match=os.strerror(code)):
        replace_file(output, "a.txt", write)
    assert (output.root / "a.txt").read_text() == "old\n"
    assert not list(output.temporary.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk(output):
    def write(path):
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"a")

    with pytest.raises(ReadWriteError, match="No space left"):
        replace_file(output, "a.txt", write)


def test_output_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="OUTPUT_DIR"):
            prepare_output(path)
    output = prepare_output(tmp_path / "out")
    save_text(output, "a", "a")
    with pytest.raises(OutputError, match="cannot be written"):
        save_text(output, "a/b", "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="Permission denied"):
        prepare_output(tmp_path / "out")
    tmp_path.chmod(0o755)


KILLED = """
import os, signal, sys
from pathlib import Path
from ibma_app.dataset.output_dir import _take, name_process, prepare_output, replace_file
output = prepare_output(Path(sys.argv[1]))
_take(output.root / ".ibma-lock", name_process(os.getpid()) + "-x")
def write(path):
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
replace_file(output, "a.txt", write)
"""


def test_killed_in_the_middle(tmp_path):
    job = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert job.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.txt").exists()
    (left,) = tmp_path.glob(".ibma-tmp-*")
    other_host = tmp_path / left.name.replace(".ibma-tmp-", ".ibma-tmp-elsewhere")
    other_host.mkdir()
    start = time.monotonic()
    with open_output(tmp_path) as output, lock_shared(tmp_path):
        save_text(output, "a.txt", "whole")
    assert time.monotonic() - start < 5
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other_host.name, "a.txt"])
