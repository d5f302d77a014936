"""PyBIDS's index of a dataset's images in a database on disk (``--bids-database-dir``).

It is filled from ibma-app's own listing (PyBIDS's ``indexer`` may be any
callable): no metadata is read, and only images are listed. 5,000 subjects take
seconds instead of minutes. Without a database PyBIDS is not used: its index
would return what it was filled with.
"""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ibma_app.core.errors import OutputError
from ibma_app.dataset.entities import LONG_NAMES, order_entities
from ibma_app.dataset.filters import Candidate

_SPELT_OUT = ("subject", "session", "acquisition", "ceagent", "tracer", "reconstruction", "direction", "modality")
_PYBIDS_NAMES = {LONG_NAMES[name]: name for name in _SPELT_OUT}
_SHORT_NAMES = {name: key for key, name in _PYBIDS_NAMES.items()}
_NAME_PARTS = ("suffix", "extension", "fault")
_CONFIG = {
    "name": "statmaps",
    "entities": [{"name": name} for name in (*_PYBIDS_NAMES.values(), *_NAME_PARTS)],
}
_INDEX_VERSION = "3"
_FILE = "layout_index.sqlite"  # as PyBIDS calls it
_UNFINISHED = 86_400  # s after which an unfinished database is removed


def index_in_database(
    root: Path, images: Iterable[Candidate], databases: Path, selection: Any, folders: Sequence[tuple[str, int]]
) -> list[Candidate]:
    """Read a dataset's images from its PyBIDS database, which is made first unless there is one of its present state.

    Parameters
    ----------
    root : Path
        Of the dataset.
    images : iterable of Candidate
        To fill the database with; not used when it exists.
    databases : Path
        Folder of the databases of all datasets and selections.
    selection : object
        How the images were selected; anything that JSON can represent.
    folders : sequence of (str, int)
        The dataset's folders with the times of their last changes.

    Raises
    ------
    OutputError
        It cannot be made, or read.
    """
    folder = databases / _digest([str(root), _CONFIG, selection])
    final = folder / _digest(folders)  # named by the dataset's state, as PyBIDS does not update a database
    try:
        if (final / _FILE).is_file() and _is_later(final / _FILE, folders):
            return _read_tags(_open_layout(root, final, ()))
        found = list(images)
        _make_database(root, folder, final, found)
        return found
    except OSError as error:
        raise OutputError(
            f"{folder}: the PyBIDS database cannot be made or read: {error.strerror or error}. Name another folder "
            "with --bids-database-dir."
        ) from error
    except Exception as error:  # of libraries that PyBIDS uses
        reason = getattr(error, "orig", error)
        raise OutputError(
            f"{folder}: the PyBIDS database cannot be made or read ({reason}). Remove the folder, or name another with "
            "--bids-database-dir."
        ) from error


def _digest(what: Any) -> str:
    """Make a short name from anything that JSON can represent."""
    return hashlib.sha256(json.dumps([_INDEX_VERSION, what]).encode()).hexdigest()[:16]


def _open_layout(root: Path, database: Path, images: Sequence[Candidate]) -> Any:
    """Open a PyBIDS layout with its database; a new one is filled with the images."""
    indexer = _make_indexer(images)
    with _home_in(database):
        from bids.layout import BIDSLayout
    return BIDSLayout(str(root), validate=False, config=[_CONFIG], database_path=database, indexer=indexer)


@contextmanager
def _home_in(folder: Path) -> Iterator[None]:
    """Let HOME be a folder that can be read: on import PyBIDS looks for settings there (ours are `_CONFIG`)."""
    before = {name: os.environ.pop(name, None) for name in ("HOME", "PYBIDS_CONFIG")}
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["HOME"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _make_database(root: Path, folder: Path, final: Path, images: Sequence[Candidate]) -> None:
    """Make a database under another name, and rename it when it is complete; remove those of earlier states."""
    aside = folder / f".{final.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        aside.mkdir(parents=True)
        _open_layout(root, aside, images).connection_manager.engine.dispose()
        _move_in(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _tidy(folder, final)


def _is_later(database: Path, folders: Sequence[tuple[str, int]]) -> bool:
    """Return whether a database is so much newer than the folders that no file was added unnoticed.

    Where times are whole seconds, a file that is added within a second of the
    folder's last change does not change the folder's time.
    """
    newest = max((changed for _, changed in folders), default=0)
    tick = 2_000_000_000 if all(changed % 1_000_000_000 == 0 for _, changed in folders) else 10_000_000
    return database.stat().st_mtime_ns - newest >= tick


def _move_in(aside: Path, final: Path) -> None:
    """Rename a complete database to its final name, replacing an existing one."""
    try:
        aside.replace(final)
    except OSError:
        if not final.is_dir():
            raise
        (aside / _FILE).replace(final / _FILE)


def _tidy(folder: Path, final: Path) -> None:
    """Remove databases of earlier states, and unfinished ones of runs that were killed."""
    for other in folder.iterdir():
        left = other.name.startswith(".") and time.time() - other.stat().st_mtime > _UNFINISHED
        if other != final and (left or not other.name.startswith(".")):
            shutil.rmtree(other, ignore_errors=True)


def _make_indexer(images: Sequence[Candidate]) -> Callable[[Any], None]:
    """Return the callable that fills a layout with the images."""

    def fill(layout: Any) -> None:
        from bids.layout.models import BIDSImageFile, Entity, Tag

        session = layout.connection_manager.session
        tags = [(str(one.path), name, value) for one in images for name, value in _tag(one).items()]
        known = {name for (name,) in session.query(Entity.name)}
        session.add_all([Entity(name) for name in sorted({name for _, name, _ in tags} - known)])
        session.flush()
        kind = BIDSImageFile.__mapper_args__["polymorphic_identity"]
        # rows rather than objects, whose constructors in PyBIDS take most of the time
        files = [
            {"path": str(one.path), "filename": one.path.name, "dirname": str(one.path.parent),
             "is_dir": False, "class_": kind}
            for one in images
        ]  # fmt: skip
        columns = ("file_path", "entity_name", "_value")
        constants = {"_dtype": "str", "is_metadata": False}
        rows = [{**dict(zip(columns, tag, strict=True)), **constants} for tag in tags]
        if files:
            session.execute(BIDSImageFile.__table__.insert(), files)
            session.execute(Tag.__table__.insert(), rows)
        session.commit()

    return fill


def _tag(candidate: Candidate) -> dict[str, str]:
    """Return an image's entities by their PyBIDS names, and the parts of its name."""
    tags = {_PYBIDS_NAMES.get(key, key): label for key, label in candidate.entities.items()}
    parts = {name: getattr(candidate, name) for name in _NAME_PARTS}
    return {**tags, **{name: value for name, value in parts.items() if value}}


def _read_tags(layout: Any) -> list[Candidate]:
    """Read the whole index in one pass over its tags (a query per file takes minutes)."""
    from bids.layout.models import Tag

    files: dict[str, dict[str, str]] = {}
    rows = layout.connection_manager.session.query(Tag.file_path, Tag.entity_name, Tag._value)
    for path, name, value in rows:
        files.setdefault(path, {})[_SHORT_NAMES.get(name, name)] = value
    layout.connection_manager.engine.dispose()
    candidates = []
    for path, tags in sorted(files.items()):
        suffix, extension, fault = (tags.pop(name, None) for name in _NAME_PARTS)
        candidates.append(Candidate(Path(path), order_entities(tags), suffix or "", extension or "", fault))
    return candidates
