"""gzip in memory by zlib-ng: two thirds of zlib's time to read, a third to write (decision 0015)."""

from typing import Any

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


def _open() -> Any:
    return _zlib.decompressobj(wbits=_GZIP)


def compress(content: bytes | memoryview) -> bytes:
    """Compress to gzip, without name and time: the same content gives the same bytes."""
    packed: bytes = _zlib.compress(content, _LEVEL, wbits=_GZIP)
    return packed
