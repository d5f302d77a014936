"""gzip in memory: what others write is read, what we write others read, damage is told."""

import builtins
import gzip
import importlib
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ibma_app.images import gzipped

CONTENT = np.random.default_rng(0).normal(size=5000).astype(np.float32).tobytes() + bytes(9000)


@pytest.fixture(params=["zlib-ng", "zlib"])
def library(request, monkeypatch):
    """The module with zlib-ng, and as it is where that is not installed."""
    if request.param == "zlib-ng":
        pytest.importorskip("zlib_ng")
        yield gzipped
        return
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("zlib_ng"):
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


@pytest.mark.parametrize("rest", [b"\r\n<!-- end -->\r\n", b"and something else", b"\0\0\x1f", b"\x1f\x8a" * 9])
def test_what_follows_an_intact_stream_is_passed_over(library, rest):
    packed = gzip.compress(CONTENT)
    assert library.decompress(packed + rest) == CONTENT
    assert library.decompress(packed + packed + rest) == CONTENT * 2
    assert library.decompress(packed + rest, len(CONTENT)) == CONTENT


def test_a_limit_bounds_what_is_unpacked_and_checks_what_ends_there(library):
    packed = gzip.compress(CONTENT, mtime=0)
    wrong = packed[:-8] + bytes(8)
    for limit in (len(CONTENT), len(CONTENT) + 1, 10**9):
        assert library.decompress(packed, limit) == CONTENT
        with pytest.raises(library.DamagedError):
            library.decompress(wrong, limit)
    assert library.decompress(wrong, len(CONTENT) - 9) == CONTENT[:-9]
    assert library.decompress(packed + packed, len(CONTENT) + 5) == CONTENT + CONTENT[:5]
    bomb = gzip.compress(bytes(2**26))
    tracemalloc.start()
    assert library.decompress(bomb, 1000) == bytes(1000)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-9],
        lambda packed: packed[:-3],
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:5],
        lambda packed: packed[:-8] + bytes(8),
        lambda packed: packed[:500] + b"x" * 50 + packed[550:],
        lambda packed: packed + packed[:40],
    ],
    ids=["cut", "trailer cut", "half", "header cut", "checksum", "content", "second member cut"],
)
def test_damage_is_told(library, spoil):
    with pytest.raises(library.DamagedError):
        library.decompress(spoil(gzip.compress(CONTENT, mtime=0)))


def test_the_same_content_gives_the_same_bytes(library):
    """Whatever was compressed before, wherever it lies in memory, and in several threads: ISA-L failed here."""
    rng = np.random.default_rng(1)
    contents = [CONTENT, bytes(348) + (rng.normal(size=120) * (rng.random(120) > 0.9)).astype(np.float32).tobytes()]
    seen = [set() for _ in contents]

    def compress(seed):
        chance = np.random.default_rng(seed)
        for _ in range(100):
            library.compress(chance.bytes(int(chance.integers(1, 20_000))))
            which, offset = int(chance.integers(len(contents))), int(chance.integers(64))
            lying = memoryview(bytearray(offset) + bytearray(contents[which]))[offset:]
            seen[which].add(library.compress(lying))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(compress, range(8)))
    assert [len(found) for found in seen] == [1, 1]
