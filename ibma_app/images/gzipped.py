"""gzip in memory by zlib-ng: two thirds of zlib's time to read, a third to write (decision 0015)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

MAGIC = b"\x1f\x8b"
_GZIP = 31  # wbits: a gzip header and trailer around the stream


def _library() -> Any:
    """Give what compresses and decompresses: zlib-ng, else Python's zlib."""
    try:
        from zlib_ng import zlib_ng
    except ImportError:  # no wheel for this machine: slower, and maps of other bytes (the same values)
        import zlib

        return zlib
    return zlib_ng


_zlib = _library()
_CHUNK = 2**20  # bytes that are read at once
_LEVEL = 2  # as small as zlib's 2 with either; ISA-L is faster, but now and then gave one content other bytes


class DamagedError(ValueError):
    """A gzip stream that ends early, or whose checksum is wrong."""


def decompress(raw: bytes, limit: int | None = None) -> bytes:
    """Decompress gzip, all its members; what follows an intact one and is no gzip is passed over, as gzip itself does.

    Parameters
    ----------
    raw : bytes
    limit : int, optional
        Give the first bytes alone, up to so many. Content that ends there or
        before is checked (its checksum); of what is longer, the rest is
        neither unpacked nor checked.

    Raises
    ------
    DamagedError
        It ends early, or is damaged.
    """
    parts: list[bytes] = []
    room = limit
    try:
        while raw and room != 0:
            stream = _open()
            # A byte more than there is room for: else the end of content that just fits would stay unread.
            parts.append(stream.decompress(raw) if room is None else stream.decompress(raw, room + 1))
            if not stream.eof and (room is None or len(parts[-1]) <= room):
                raise DamagedError("it ends before its end-of-stream marker")
            if room is not None:
                parts[-1] = parts[-1][:room]
                room -= len(parts[-1])
            raw = stream.unused_data.lstrip(b"\0")
            if not raw.startswith(MAGIC):
                break
    except _zlib.error as error:
        raise DamagedError(str(error)) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_pieces(stream: BinaryIO, sizes: Sequence[int]) -> Iterator[bytes]:
    """Yield the content of a file, decompressed if it is gzip, in pieces of these sizes; the last may be shorter.

    Parameters
    ----------
    stream : binary file
        At its start.
    sizes : sequence of int
        Bytes; what follows them is neither read nor checked.

    Raises
    ------
    DamagedError
        It ends early, or is damaged.
    """
    packed = stream.read(len(MAGIC)) == MAGIC
    stream.seek(0)
    content = _inflate(stream) if packed else iter(lambda: stream.read(_CHUNK), b"")
    nothing = memoryview(b"")
    left = nothing
    for size in sizes:
        parts, missing = [left[:size]], size - len(left)
        left = left[size:]
        while missing > 0 and (chunk := memoryview(next(content, nothing))):
            parts.append(chunk[:missing])
            left = chunk[missing:]
            missing -= len(chunk)
        yield b"".join(parts)
        if missing > 0:
            return


def _inflate(stream: BinaryIO) -> Iterator[bytes]:
    """Yield decompressed chunks of all members of a gzip file."""
    inflater = _open()
    raw = stream.read(_CHUNK)
    try:
        while raw:
            yield inflater.decompress(raw, 4 * _CHUNK)
            raw = inflater.unconsumed_tail
            if inflater.eof:
                raw = inflater.unused_data.lstrip(b"\0") or stream.read(_CHUNK)
                if not raw.startswith(MAGIC):
                    return
                inflater = _open()
            elif not raw:
                raw = stream.read(_CHUNK)
    except _zlib.error as error:
        raise DamagedError(str(error)) from None
    raise DamagedError("it ends before its end-of-stream marker")


def _open() -> Any:
    return _zlib.decompressobj(wbits=_GZIP)


def compress(content: bytes | memoryview) -> bytes:
    """Compress to gzip, without name and time: the same content gives the same bytes."""
    packed: bytes = _zlib.compress(content, _LEVEL, wbits=_GZIP)
    return packed


def compress_pieces(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Compress pieces of one content as they come; the same content gives the same bytes."""
    packer = _zlib.compressobj(_LEVEL, wbits=_GZIP)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()
