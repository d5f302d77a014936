"""The bytes of an image's files: no more than are needed, unpacked, and what is wrong with them in words."""

import stat
from pathlib import Path

from ibma_app.core.errors import InputError, ReadWriteError
from ibma_app.images import gzipped

AGAIN = "Copy or download it again, or leave it out"
POINTERS = (b"version https://git-lfs", b"/annex/objects", b"../.git/annex")


def image_files(path: Path) -> tuple[Path, Path]:
    """Tell which files hold the header and the data: one file, or an Analyze-style pair."""
    name = path.name.removesuffix(".gz")
    ending = path.name[len(name) :]
    stem, dot, extension = name.rpartition(".")
    if not dot or extension.lower() not in ("img", "hdr"):
        return path, path
    other = {"img": "hdr", "hdr": "img", "IMG": "HDR", "HDR": "IMG"}.get(extension, "hdr")
    choices = [path.with_name(f"{stem}.{other}{end}") for end in dict.fromkeys((ending, "", ".gz"))]
    partner = next((choice for choice in choices if choice.exists()), None)
    if partner is None:
        if not path.exists():
            raise InputError(f"{path} does not exist.")
        raise InputError(f"{path} is half of an image: {choices[0].name} is missing beside it.")
    return (partner, path) if extension.lower() == "img" else (path, partner)


def read_contents(path: Path, limit: int) -> bytes:
    """Read the first bytes of a file's content, decompressed if they are gzip.

    Parameters
    ----------
    path : Path
    limit : int
        How many bytes are needed. What is not compressed may be a little longer.

    Raises
    ------
    InputError
        It is missing, cannot be opened, or is no file (a folder, a pipe).
    ReadWriteError
        It is empty, damaged, or a placeholder of git-annex or Git LFS.
    """
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InputError(f"{path} is no regular file but a pipe or a device. Write its content to a file first.")
        with path.open("rb") as stream:
            raw = stream.read(min(status.st_size, packed_length(limit)))
    except FileNotFoundError:
        fetch = " (it is a link to content that is not here: fetch it, e.g. with datalad get)"
        hint = fetch if path.is_symlink() else ""
        raise InputError(f"{path} does not exist{hint}.") from None
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}.") from None
    except OSError as error:
        raise ReadWriteError(f"{path} cannot be read: {error.strerror or error}. {AGAIN}.") from None
    if not raw:
        raise ReadWriteError(f"{path} is empty (0 bytes). {AGAIN}.")
    if any(pointer in raw[:200] for pointer in POINTERS):
        raise ReadWriteError(f"{path} is a placeholder without content: fetch it (datalad get, git lfs pull).")
    return unpack(path, raw, limit)


def packed_length(length: int) -> int:
    """Return how many bytes at most hold content of a length: what cannot be compressed grows a little."""
    return length + length // 64 + 65536  # gzip's blocks and members have headers


def unpack(path: Path, raw: bytes, limit: int) -> bytes:
    """Decompress the first ``limit`` bytes of what is gzip; give all else as it is.

    Raises
    ------
    ReadWriteError
        It is damaged; the message calls it ``path``.
    """
    if not raw.startswith(gzipped.MAGIC):
        return raw
    try:
        return gzipped.decompress(raw, limit)
    except gzipped.DamagedError as error:
        raise ReadWriteError(f"{path} is truncated or damaged ({error}). {AGAIN}.") from None
