"""Read the files of a package from elsewhere, a zip archive or a folder, that may be malicious.

Nothing is unpacked to disk. Refused: names that leave the package, symbolic
links (in a folder: those that leave it), encrypted archives, and archives or
files far larger than statistic maps are (zip bombs).
"""

import lzma
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ibma_app.core.errors import DataError, InputError, ReadWriteError

MAX_FILES = 5_000
MAX_FILE = 2**30  # bytes of one file: a map of 0.5 mm voxels needs a quarter
MAX_TOTAL = 2**32  # bytes of all files, unpacked
MAX_DIRECTORY = 2**24  # bytes of an archive's list of files
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
)
_AGAIN = "Copy or download it again"


@dataclass(frozen=True)
class Package:
    """A zip archive or a folder, and the files in it (paths inside it, sorted)."""

    path: Path
    names: tuple[str, ...]
    is_zip: bool

    def where(self, name: str) -> str:
        """Return where a file is, for messages and sources."""
        return str(self.path / name)

    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        """Read one file of at most ``limit`` bytes.

        Raises
        ------
        InputError
            There is no such file, or it cannot be opened.
        DataError
            It is larger.
        ReadWriteError
            It is damaged.
        """
        raw = self.begin(name, limit + 1)
        if len(raw) > limit:
            raise DataError(f"{self.where(name)} has more than {limit // 2**20} MiB: refused.")
        return raw

    def begin(self, name: str, size: int) -> bytes:
        """Read the first ``size`` bytes of one file, or all of it.

        Raises
        ------
        InputError, ReadWriteError
            As `read`.
        """
        if name not in self.names:
            raise InputError(f"{self.where(name)} is missing, though the package speaks of it.")
        try:
            if self.is_zip:
                with _opened(self.path) as archive, archive.open(name) as stream:
                    return stream.read(size)
            with (self.path / name).open("rb") as file:
                return file.read(min(size, (self.path / name).stat().st_size))
        except _DAMAGE as error:
            raise ReadWriteError(f"{self.where(name)} is damaged ({error}). {_AGAIN}.") from error
        except OSError as error:
            raise InputError(f"{self.where(name)} cannot be read: {error.strerror or error}.") from error


def open_package(path: Path) -> Package:
    """List the files of a zip archive or of a folder.

    Raises
    ------
    InputError
        It is missing or cannot be opened.
    ReadWriteError
        It is a damaged archive.
    DataError
        It contains something that is refused (see the module).
    """
    if path.is_dir():
        return Package(path, tuple(sorted(_files_of(path))), is_zip=False)
    with _opened(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_FILES:
            raise DataError(f"{path} holds {len(members)} files; a package of results has a few dozen: refused.")
        total = 0
        for member in members:
            _judge(path, member)
            total += member.file_size
        if total > MAX_TOTAL:
            raise DataError(f"{path} would unpack to {total / 2**30:.1f} GiB: refused.")
        names = [member.filename for member in members if not member.is_dir()]
    if len(set(names)) != len(names):
        raise DataError(f"{path} holds two files of one name: refused.")
    return Package(path, tuple(sorted(names)), is_zip=True)


def inside(base: str, location: str) -> str:
    """Resolve a location that is written in a file of a package, relative to that file's folder.

    Parameters
    ----------
    base : str
        The folder inside the package ("" is its root).
    location : str
        ``Contrast.nii.gz``, ``file://./Contrast.nii.gz``, ``file:///./maps/Contrast.nii.gz``.

    Raises
    ------
    DataError
        It is an address on a network, or it leaves the package.
    """
    from urllib.parse import unquote

    text = re.sub(r"^file:(//)?/?(?=\./)", "", location)
    if re.match(r"(?i)file://", text):
        text = text[7:]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        raise DataError(f"The package says that a map lies at {location}: only its own files are read.")
    joined = PurePosixPath(base) / unquote(text)
    if joined.is_absolute() or ".." in joined.parts or "\\" in str(joined):
        raise DataError(f"The package says that a map lies at {location}, which leaves the package: refused.")
    return str(joined)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; errors become ours."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is no regular file but a pipe or a device.")
        _judge_directory(path)
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except _DAMAGE as error:
        raise ReadWriteError(f"{path} is no zip archive, or a damaged one ({error}). {_AGAIN}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    with archive:
        yield archive


def _judge_directory(path: Path) -> None:
    """Refuse an archive whose list of files is absurdly long before the list is read."""
    with path.open("rb") as file:
        file.seek(max(file.seek(0, 2) - 2**16 - 100, 0))
        end = file.read()
    at = end.rfind(b"PK\5\6")
    wide = end.rfind(b"PK\6\6", 0, max(at, 0))  # of archives beyond 4 GiB
    if wide >= 0 and len(end) >= wide + 56:
        size = int.from_bytes(end[wide + 40 : wide + 48], "little")
    else:
        size = int.from_bytes(end[at + 12 : at + 16], "little") if at >= 0 else 0
    if size > MAX_DIRECTORY:
        raise DataError(f"{path} has a list of files of {size / 2**20:.0f} MiB; a package holds a few dozen: refused.")


def _judge(path: Path, member: zipfile.ZipInfo) -> None:
    """Refuse a member that no legitimate package has."""
    name = member.filename
    pure = PurePosixPath(name)
    # orig_filename: zipfile itself cuts names at a NUL
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or re.match(r"[A-Za-z]:", name) or "\0" in (
        member.orig_filename
    ):  # fmt: skip
        raise DataError(f"{path} holds a file named {name!r}, which leaves the archive: refused.")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(f"{path} holds a symbolic link ({name}): refused.")
    if member.flag_bits & 1:
        raise DataError(f"{path} is encrypted ({name}). Unpack it, and give the folder.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path} holds {name} compressed in an unusual way. Unpack it, and give the folder.")
    if member.file_size > MAX_FILE:
        raise DataError(f"{path} holds {name} of {member.file_size / 2**30:.1f} GiB: refused.")


def _files_of(folder: Path) -> Iterator[str]:
    """List the files of a folder and its folders, and refuse links that leave it."""
    root = folder.resolve()
    pending, seen = [folder], 0
    while pending:
        try:
            entries = sorted(pending.pop().iterdir())
        except OSError as error:
            raise InputError(f"{folder} cannot be read: {error.strerror or error}.") from error
        for entry in entries:
            seen += 1
            if seen > MAX_FILES:
                raise DataError(f"{folder} holds more than {MAX_FILES} files: name the package's own folder.")
            if entry.is_symlink() and not entry.resolve().is_relative_to(root):
                raise DataError(f"{entry} is a symbolic link that leaves {folder}: refused. Copy the file itself.")
            if entry.is_dir() and not entry.is_symlink():
                pending.append(entry)
            elif entry.is_file():
                yield entry.relative_to(folder).as_posix()
