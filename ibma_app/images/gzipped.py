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
    """Decompress gzip, all its members; zeros that pad the end are passed over.

    Parameters
    ----------
    raw : bytes
    limit : int, optional
        Give the first bytes alone, up to so many; what follows is not checked.

    Raises
    ------
    DamagedError
        It ends early, or is damaged.
    """
    parts = []
    try:
        if limit is not None:
            return bytes(_open().decompress(raw, limit))
        while raw:
            stream = _open()
            parts.append(stream.decompress(raw))
            if not stream.eof:
                raise DamagedError("it ends before its end-of-stream marker")
            raw = stream.unused_data.lstrip(b"\0")
    except _zlib.error as error:
        raise DamagedError(str(error)) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _open() -> Any:
    return _zlib.decompressobj(wbits=_GZIP)


def compress(content: bytes | memoryview) -> bytes:
    """Compress to gzip, without name and time: the same content gives the same bytes."""
    packed: bytes = _zlib.compress(content, _LEVEL, wbits=_GZIP)
    return packed
