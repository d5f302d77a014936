"""Lists the images of a dataset in one walk over its folders; links are followed."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ibma_app.core.statmap import ENDINGS, VOLUMES
from ibma_app.core.system.long_work import tell_progress

_NOT_AT_ROOT = frozenset({"derivatives", "sourcedata", "code", "models", "stimuli"})
_IMAGES = (*VOLUMES, ".gii", "_statmap.tsv")

_Identity = tuple[int, int]


class Listing(NamedTuple):
    """The images and folders of a dataset."""

    images: list[str]  # paths relative to the root, with "/"
    folders: list[tuple[str, int]]  # path relative to the root, time of last change in ns


def list_images(
    root: Path,
    *,
    exclude: Collection[Path] = (),
    labels: Mapping[str, Collection[str]] | None = None,
    extensions: tuple[str, ...] = _IMAGES,
) -> Listing:
    """List the images in a folder and its subfolders, whatever their names.

    Parameters
    ----------
    root : Path
        A dataset. Its ``derivatives``, ``sourcedata``, ``code``, ``models``
        and ``stimuli``, and hidden files anywhere, are left out.
    exclude : collection of Path
        Folders that are not entered, also through links.
    labels : mapping, optional
        By key (``sub``): folders and files with other labels are left out, so
        that one participant among thousands is found quickly.
    extensions : tuple of str
        Endings of the names of images.

    Notes
    -----
    Symbolic links are followed, but paths keep the names of the links (targets
    may be git-annex objects). A link to a folder above itself is not followed.
    Links whose target is missing are listed.
    """
    skip = {_identify(path) for path in exclude} - {None}
    prefixes = {f"{key}-": frozenset(kept) for key, kept in (labels or {}).items()}
    images: list[str] = []
    folders: list[tuple[str, int]] = []
    pending: list[tuple[str, tuple[_Identity, ...]]] = [("", ())]
    with tell_progress(f"Looking for maps in {root}", None, of="folders") as found:
        while pending:
            below, above = pending.pop()
            found(1)
            folder = root / below
            try:
                status = folder.stat()
            except OSError:  # removed since it was listed
                continue
            here = (status.st_dev, status.st_ino)
            if here in above or (here in skip and below):
                continue
            folders.append((below, status.st_mtime_ns))
            for name, is_folder in _scan(folder):
                if (not below and name in _NOT_AT_ROOT) or _is_other(name, prefixes):
                    continue
                path = f"{below}/{name}" if below else name
                if is_folder:
                    pending.append((path, (*above, here)))
                elif name.endswith(extensions):
                    images.append(path)
    return Listing(sorted(images), sorted(folders))


def has_maps(root: Path, names: str) -> bool:
    """Return whether there is a statistic map below a folder whose name, without its ending, fits a pattern."""
    return any(path.name.endswith(ENDINGS) for path in root.glob(f"{names}_statmap.*"))


def _scan(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the names in a folder that are not hidden, and whether each is a folder (or a link to one)."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield entry.name, _is_folder(entry)
    except PermissionError:  # a folder without permission to enter is skipped
        return


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a folder or a link to one; a dangling link is reported later, by its name."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_other(name: str, prefixes: Mapping[str, Collection[str]]) -> bool:
    """Return whether a name has another label than the selected ones (``sub-02`` when ``sub-01`` is selected)."""
    for prefix, kept in prefixes.items():
        if name.startswith(prefix):
            label = name.removeprefix(prefix).split("_", 1)[0].split(".", 1)[0]
            return label not in kept
    return False


def _identify(path: Path) -> _Identity | None:
    """Return what identifies a folder whatever its path, or None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
