"""Rows kept in memory or in files."""

import numpy as np
import pytest

from ibma_app.core.errors import OutputError, ReadWriteError
from ibma_app.stream.blocks import open_store


@pytest.mark.parametrize("on_disk", [False, True])
def test_slices_of_the_final_mask(tmp_path, rng, on_disk):
    first, second = rng.normal(size=50).astype(np.float32), rng.normal(size=20).astype(np.float32)
    voxels = np.array([3, 4, 9, 30, 41])
    with open_store(tmp_path, on_disk=on_disk, size=1000) as store:
        store.append("z", 0, first, 0)
        store.append("z", 1, second, 1)
        store.append("reason", 0, np.arange(50, dtype=np.uint8), 0)
        np.testing.assert_array_equal(store.whole("z", 1)[0], second)
        store.select({0: voxels, 1: np.arange(5, 10)})
        np.testing.assert_array_equal(store.read("z", 0, 1, 4), first[voxels[1:4]])
        np.testing.assert_array_equal(store.read("z", 1, 0, 5), second[5:10])
        np.testing.assert_array_equal(store.read("reason", 0, 0, 5), voxels)
        assert store.read("z", 0, 5, 9).size == 0
        store.drop("reason")
        assert not store.has("reason", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_work_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="--work-dir"),
        open_store(tmp_path / "file" / "x", on_disk=True, size=1),
    ):
        pass
    with pytest.raises(OutputError, match="GiB left"), open_store(tmp_path, on_disk=True, size=2**60):
        pass


def test_a_file_cut_short_is_told(tmp_path):
    with open_store(tmp_path, on_disk=True, size=1) as store:
        store.append("z", 0, np.ones(100), 0)
        store.select({0: np.arange(100)})
        next(tmp_path.glob("*/z.rows")).write_bytes(b"")
        with pytest.raises(ReadWriteError, match="cut short"):
            store.read("z", 0, 0, 10)
