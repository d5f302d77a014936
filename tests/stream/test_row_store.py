"""Rows kept in memory or in files."""

import os
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ibma_app.core.errors import OutputError, ReadWriteError
from ibma_app.stream.row_store import open_store


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
        assert not list(tmp_path.glob("*/*"))  # killed now, it leaves no rows behind
        os.ftruncate(store._files["z"], 0)
        with pytest.raises(ReadWriteError, match="cut short"):
            store.read("z", 0, 0, 10)


def test_windows_give_what_rows_give(tmp_path, rng):
    """Neighbouring blocks come from one window; which windows there are changes nothing."""
    n_rows, early = 5, 2
    rows = [rng.normal(size=3000 if row < early else 2500) for row in range(n_rows)]
    rows[3] *= 1e60  # beyond single precision: scaled
    candidates = np.sort(rng.choice(3000, 2500, replace=False))
    final = np.sort(rng.choice(2500, 2100, replace=False))
    found = {}
    for window in (0, 70_000, 10**7):
        with open_store(tmp_path, on_disk=True, size=1, window=window) as store:
            for row, values in enumerate(rows):
                store.append("z", row, values, 0 if row < early else 1)
            store.select({0: candidates[final], 1: final})
            blocks = [store.read_all("z", n_rows, start, min(start + 256, 2100)) for start in range(0, 2100, 256)]
            found[window] = np.hstack(blocks)
            np.testing.assert_array_equal(store.read_all("z", n_rows, 700, 1300), found[window][:, 700:1300])
            assert bool(store._windows) is (window > 0)
            assert all(values.nbytes * 2 <= window for _, values in store._windows.values())
            kept = pickle.loads(pickle.dumps(store.in_memory()))
            np.testing.assert_array_equal(kept.read_all("z", n_rows, 0, 2100), found[window])
            with np.errstate(over="ignore"):  # 1e60 is infinite in single precision
                single = store.read_all("z", n_rows, 0, 2100, np.float32)
                np.testing.assert_array_equal(single, found[window].astype(np.float32))
                np.testing.assert_array_equal(kept.read_all("z", n_rows, 0, 2100, np.float32), single)
    expected = [values[candidates[final] if row < early else final] for row, values in enumerate(rows)]
    np.testing.assert_allclose(found[0], expected, rtol=6e-8)  # single precision
    np.testing.assert_array_equal(found[70_000], found[0])
    np.testing.assert_array_equal(found[10**7], found[0])


def test_rows_in_memory_go_when_it_is_closed():
    with open_store(None, on_disk=False, size=1) as store:
        values = np.ones(100, dtype=np.float32)
        gone = weakref.ref(values)
        store.append("z", 0, values, 0)
        store.select({0: np.arange(100)})
        del values
        assert store.read_all("z", 1, 0, 100).sum() == 100
    assert gone() is None


def test_threads_share_a_window(tmp_path, rng):
    rows = rng.normal(size=(4, 5000)).astype(np.float32)
    with open_store(tmp_path, on_disk=True, size=1, window=200_000) as store:
        for row, values in enumerate(rows):
            store.append("z", row, values, 0)
        store.select({0: np.arange(5000)})
        with ThreadPoolExecutor(4) as pool:
            blocks = list(pool.map(lambda start: store.read_all("z", 4, start, start + 250), range(0, 5000, 250)))
    np.testing.assert_array_equal(np.hstack(blocks), rows)


def test_the_work_folders_need_is_told_before_it_is_filled(tmp_path, caplog):
    with caplog.at_level("INFO"), open_store(tmp_path, on_disk=True, size=3 * 2**29):
        (message,) = caplog.messages
    assert "up to 1.5 GiB go to files" in message
    assert str(tmp_path) in message
