"""MATLAB files of versions 5 to 7: what scipy reads of them, and nothing more unpacked than is needed."""

import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from ibma_app.core.errors import DataError, IbmaError, ReadWriteError
from ibma_app.importers.spm.matlab import read_struct

KEEP = {"a", "b"}


def made(rng: np.random.Generator, depth: int) -> Any:
    """Make a random value of the kinds that SPM's files hold."""
    kind = rng.integers(8 if depth else 5)
    if kind == 0:
        return rng.normal(size=tuple(rng.integers(0, 5, size=rng.integers(2, 4))))
    if kind == 1:
        numbers = rng.integers(-200, 70000, size=tuple(rng.integers(0, 4, size=2)))
        return numbers.astype(rng.choice(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "?"]))
    if kind == 3:
        return scipy.sparse.random(5, 4, 0.3, format="csc", random_state=rng)
    if kind in (2, 4):
        text = "".join(rng.choice(list("ab cé漢"), size=rng.integers(0, 12)))
        return text if kind == 2 else np.array(["abc", "de ", "fgh"])[: rng.integers(1, 4)]
    if kind == 5:
        cells = np.empty((1, rng.integers(4)), object)
        for i in range(cells.size):
            cells[0, i] = made(rng, depth - 1)
        return cells
    if kind == 6:
        return {name: made(rng, depth - 1) for name in "abc"}
    structs = np.empty(tuple(rng.integers(1, 3, size=2)), dtype=[(name, object) for name in "abc"])
    for at in np.ndindex(structs.shape):
        for name in "abc":
            structs[at][name] = made(rng, depth - 1)
    return structs


def plain(value: Any) -> Any:
    """Convert what scipy returns, fields that are not kept left out."""
    if isinstance(value, np.void):
        return {field: plain(value[field]) for field in value.dtype.names if field in KEEP}
    if not isinstance(value, np.ndarray):
        return value.toarray()
    if value.dtype.names:
        elements = [plain(one) for one in value.ravel(order="F")]
        return elements[0] if len(elements) == 1 else elements
    if value.dtype.kind == "U":
        rows = [str(one) for one in value.ravel()]
        return rows[0].rstrip() if len(rows) == 1 else (rows or "")
    return [plain(one) for one in value.ravel(order="F")] if value.dtype.kind == "O" else value


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, str):
        return isinstance(other, str) and one.rstrip() == other.rstrip()
    return isinstance(other, np.ndarray) and one.shape == other.shape and np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_as_scipy(tmp_path, seed):
    rng = np.random.default_rng(seed)
    for packed in (False, True):
        content = {"other": made(rng, 1), "SPM": {name: made(rng, 3) for name in "abc"}, "z": 1.0}
        scipy.io.savemat(tmp_path / "SPM.mat", content, do_compression=packed)
        expected = plain(scipy.io.loadmat(tmp_path / "SPM.mat")["SPM"])
        assert same(expected, read_struct(tmp_path / "SPM.mat", "SPM", KEEP))


def part(kind: int, content: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def array(kind: int, shape: tuple[int, ...], content: bytes, name: bytes = b"", order: str = "<") -> bytes:
    head = part(6, struct.pack(f"{order}II", kind, 0), order)
    head += part(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return part(14, head + part(1, name, order) + content, order)


def number(value: float = 1.0, order: str = "<") -> bytes:
    return array(6, (1, 1), part(9, struct.pack(f"{order}d", value), order), order=order)


def of_fields(fields: dict[str, bytes], name: bytes = b"SPM", order: str = "<") -> bytes:
    names = b"".join(key.encode().ljust(32, b"\0") for key in fields)
    head = struct.pack(f"{order}II", (4 << 16) | 5, 32) if order == "<" else struct.pack(">HHI", 4, 5, 32)
    return array(2, (1, 1), head + part(1, names, order) + b"".join(fields.values()), name, order)


def write(path, *parts: bytes, order: str = "<", packed: bool = False):
    mark = b"IM" if order == "<" else b"MI"
    body = b"".join(parts)
    body = struct.pack(f"{order}II", 15, len(z := zlib.compress(body))) + z if packed else body
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x100) + mark + body)
    return path


def test_either_byte_order(tmp_path):
    for order in "<>":
        path = write(tmp_path / "SPM.mat", of_fields({"a": number(7.0, order)}, order=order), order=order)
        np.testing.assert_array_equal(read_struct(path, "SPM", KEEP)["a"], [[7.0]])


DAMAGED = {
    "unknown class of an array": of_fields({"a": array(99, (1, 1), b"")}),
    "class 0": of_fields({"a": array(0, (1, 1), b"")}),
    "unknown type of numbers": of_fields({"a": array(6, (1, 1), part(77, bytes(8)))}),
    "short buffer": of_fields({"a": array(6, (3, 1), part(9, bytes(8)))}),
    "cut number": of_fields({"a": array(6, (1, 1), part(9, bytes(5)))}),
    "negative shape": of_fields({"a": array(6, (-1, 1), part(9, b""))}),
    "one axis": of_fields({"a": array(6, (1,), part(9, bytes(8)))}),
    "numbers where an array belongs": of_fields({"a": part(9, bytes(8))}),
    "no names of fields": array(2, (1, 1), part(5, bytes(4)) + part(1, b"a"), b"SPM"),
    "longer than the whole": of_fields({"a": number()[:4] + struct.pack("<I", 2**30) + number()[8:]}),
    "sparse that does not fit": of_fields(
        {"a": array(5, (2, 2), part(5, bytes(4)) + part(5, struct.pack("<3i", 0, 5, 9)) + part(9, bytes(8)))}
    ),
    "text of numbers": of_fields({"a": array(4, (1, 2), part(9, bytes(8)))}),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_told_by_file(tmp_path, kind, packed):
    path = write(tmp_path / "SPM.mat", DAMAGED[kind], packed=packed)
    with pytest.raises(ReadWriteError, match=r"SPM\.mat is no MATLAB file, or it is damaged \(.*Copy it again"):
        read_struct(path, "SPM", KEEP)


def nested(levels: int) -> bytes:
    inner = number()
    for _ in range(levels):
        inner = array(1, (1, 1), inner)
    return of_fields({"a": inner})


TOO_LARGE = {
    "depth": (nested(20_000), "levels deep"),
    "cells": (of_fields({"a": array(1, (10**9, 1), number())}), "cells and fields"),
    "structs": (array(2, (10**5, 10**5), part(5, struct.pack("<i", 1)) + part(1, b"a"), b"SPM"), "cells and fields"),
    "numbers": (of_fields({"a": array(6, (10**5, 10**5), part(9, bytes(8)))}), "numbers"),
    "sparse": (of_fields({"a": array(5, (2**30, 2**30), part(5, bytes(4)))}), "numbers"),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
@pytest.mark.parametrize("packed", [False, True])
def test_what_promises_too_much_is_refused_at_once(tmp_path, kind, packed):
    content, words = TOO_LARGE[kind]
    start = time.process_time()
    with pytest.raises(DataError, match=words):
        read_struct(write(tmp_path / "SPM.mat", content, packed=packed), "SPM", KEEP)
    assert time.process_time() - start < 5


def test_a_bomb_is_not_unpacked(tmp_path):
    """Half a GiB of zeros in a field that is not read, beside one that is."""
    size = 2**29
    zip_stream = zlib.compressobj(1)
    whole = of_fields({"c": b"@" * 8, "a": number(3.0)})
    before, after = whole.split(b"@" * 8)
    head = array(9, (size, 1), b"")[8:] + struct.pack("<II", 2, size)
    before = before[:4] + struct.pack("<I", len(whole) - 16 + len(head) + 8 + size) + before[8:]
    packed = [zip_stream.compress(before + struct.pack("<II", 14, len(head) + size) + head)]
    packed += [zip_stream.compress(bytes(2**24)) for _ in range(size // 2**24)]
    packed.append(zip_stream.compress(after) + zip_stream.flush())
    body = b"".join(packed)
    path = write(tmp_path / "SPM.mat", struct.pack("<II", 15, len(body)) + body)
    assert path.stat().st_size < 2**22
    tracemalloc.start()
    try:
        assert read_struct(path, "SPM", KEEP)["a"][0, 0] == 3.0
        with pytest.raises(IbmaError):
            read_struct(path, "SPM", {"c"})
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
