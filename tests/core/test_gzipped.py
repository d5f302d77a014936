"""gzip in memory: what others write is read, what we write others read, damage is told."""

import builtins
import gzip
import importlib
import zlib

import numpy as np
import pytest

from ibma_app.core import gzipped

CONTENT = np.random.default_rng(0).normal(size=5000).astype(np.float32).tobytes() + bytes(9000)


@pytest.fixture(params=["isal", "zlib"])
def library(request, monkeypatch):
    """The module with ISA-L, and as it is where that is not installed."""
    if request.param == "isal":
        pytest.importorskip("isal")
        yield gzipped
        return
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("isal"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without)
        importlib.reload(gzipped)
    assert gzipped._zlib is zlib
    yield gzipped
    importlib.reload(gzipped)


def test_there_and_back(library):
    packed = library.compress(CONTENT)
    assert gzip.decompress(packed) == CONTENT
    assert library.decompress(packed) == CONTENT
    assert packed == library.compress(CONTENT)
    assert packed[:8] == b"\x1f\x8b\x08\0\0\0\0\0"  # gzip, deflate, no flags (no name), no time


@pytest.mark.parametrize("level", [1, 6, 9])
def test_what_others_wrote_is_read(library, level):
    packed = gzip.compress(CONTENT, level)
    assert library.decompress(packed) == CONTENT
    assert library.decompress(packed + packed + bytes(17)) == CONTENT * 2  # two members, padded
    assert library.decompress(packed, 348) == CONTENT[:348]
    assert library.decompress(packed[:3000], 348) == CONTENT[:348]  # the beginning is all that it takes


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-9],
        lambda packed: packed[:-3],
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:5],
        lambda packed: packed[:-8] + bytes(8),
        lambda packed: packed[:500] + b"x" * 50 + packed[550:],
        lambda packed: packed + b"and something else",
    ],
    ids=["cut", "trailer cut", "half", "header cut", "checksum", "content", "garbage behind"],
)
def test_damage_is_told(library, spoil):
    with pytest.raises(library.DamagedError):
        library.decompress(spoil(gzip.compress(CONTENT, mtime=0)))


def test_the_same_bytes_on_every_processor():
    """ISA-L's level 1 of this content, pinned on processors with SSE 4, AVX2 and AVX-512."""
    isal = pytest.importorskip("isal")
    if isal.__version__.split(".")[:2] != ["1", "9"]:
        pytest.skip("bytes are pinned for one version of isal")
    assert zlib.crc32(gzipped.compress(CONTENT)) == PINNED


PINNED = 1973029100
