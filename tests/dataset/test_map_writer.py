"""Maps written in threads: the same files as at once, bounded, whole or told."""

import errno
import json
import os
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ibma_app.core.errors import ReadWriteError
from ibma_app.core.grid import Grid
from ibma_app.core.system.threads import open_queue
from ibma_app.dataset import write
from ibma_app.dataset.output_dir import open_output
from ibma_app.dataset.write import WAITING, MapWriter, open_writer

GRID = Grid(np.diag([2.0, 2, 2, 1]), np.random.default_rng(0).random((9, 8, 7)) < 0.5)
MAPS = [np.random.default_rng(k).normal(size=GRID.n_voxels) for k in range(12)]


def save_all(root: Path, threads: int) -> dict[str, bytes]:
    with open_output(root) as output:
        with open_writer(output, threads) as maps:
            for k, values in enumerate(MAPS):
                path = maps.save(Path("group") / f"{k}_statmap.nii.gz", values, GRID, {"Number": k}, fill=k % 2)
                assert path == root / "group" / f"{k}_statmap.nii.gz"
        assert not list(output.temporary.iterdir())
    return {path.name: path.read_bytes() for path in (root / "group").iterdir()}


def test_same_files_whatever_the_threads(tmp_path):
    once = save_all(tmp_path / "one", 1)
    assert len(once) == 2 * len(MAPS)
    assert save_all(tmp_path / "four", 4) == once
    image = nibabel.load(tmp_path / "four" / "group" / "3_statmap.nii.gz").get_fdata()
    np.testing.assert_array_equal(image[GRID.mask], MAPS[3].astype(np.float32))
    assert (image[~GRID.mask] == 1).all()
    assert json.loads(once["3_statmap.json"]) == {"Number": 3}


@pytest.mark.parametrize("threads", [1, 3])
def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path, monkeypatch, threads):
    real = write._write_bytes

    def full(path, content):
        if "5_statmap" in path.name:
            path.write_bytes(content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(write, "_write_bytes", full)
    with pytest.raises(ReadWriteError, match=r"5_statmap.*No space left"):
        save_all(tmp_path, threads)
    left = {path.name for path in (tmp_path / "group").iterdir()}
    assert not any(name.startswith("5_") for name in left)
    for name in left:  # each whole, and with its other half
        whole = nibabel.load(tmp_path / "group" / name).get_fdata() if name.endswith("gz") else {"some": "json"}
        assert len(whole)
        assert {name.replace(".nii.gz", ".json"), name.replace(".json", ".nii.gz")} <= left


def test_only_a_few_maps_wait(tmp_path, monkeypatch):
    go, begun = threading.Event(), []
    monkeypatch.setattr(write, "save_statmap", lambda *args, **kwargs: (begun.append(1), go.wait(10)))
    with open_output(tmp_path) as output, open_queue(1, WAITING) as queue:
        maps = MapWriter(output, queue)
        taken = []

        def compute():
            for k, values in enumerate(MAPS[:5]):
                maps.save(Path(f"{k}.nii.gz"), values, GRID, {})
                taken.append(k)

        computing = threading.Thread(target=compute)
        computing.start()
        computing.join(0.5)
        assert computing.is_alive()
        assert len(taken) == WAITING  # what computes waits for what writes: memory is bounded
        go.set()
        computing.join(10)
        maps.finish()
    assert len(begun) == 5


def test_an_error_elsewhere_leaves_the_rest_unwritten(tmp_path):
    def interrupted():
        with open_output(tmp_path) as output, open_writer(output, 2) as maps:
            maps.save(Path("a.nii.gz"), MAPS[0], GRID, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {path.name for path in tmp_path.iterdir()} <= {"a.nii.gz", "a.json"}
