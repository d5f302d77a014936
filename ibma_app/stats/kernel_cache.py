"""Compiled kernels on disk, so that a user waits for each once.

Numba's own cache has three gaps that matter here: it does not see that a
function in *another* file changed, it ignores a cache that was compiled ahead
into a read-only image, and it fails outright where neither the package's
folder nor HOME is writable. The cache below closes them.
"""

import hashlib
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache

_HERE = Path(__file__).resolve().parent
_LAST_RESORT = "IBMA_KERNELS_LAST_RESORT"  # the environment variable that names it


@cache
def _sources(module: str) -> frozenset[str]:
    """Return a module of this room and those it imports from: a kernel inlines their functions."""
    text = (_HERE / f"{module}.py").read_text(encoding="utf-8")
    found = {module}
    for name in re.findall(r"^from ibma_app\.stats\.(\w+) import", text, re.MULTILINE):
        found |= _sources(name)
    return frozenset(found)


@cache
def _source_stamp(module: str) -> str:
    """Hash what the kernels of a module are made of."""
    digest = hashlib.sha256()
    for name in sorted(_sources(module)):
        digest.update((_HERE / f"{name}.py").read_bytes())
    return digest.hexdigest()


@cache
def _is_writable(folder: Path) -> bool:
    """Whether a file can be made in ``folder``, which is made when missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def cache_folders() -> tuple[Path, ...]:
    """Return the folders in which compiled kernels are searched, in order; they are saved to the first writable one."""
    folders = [_HERE / "__pycache__"]
    if os.environ.get("NUMBA_CACHE_DIR"):
        folders.insert(0, Path(os.environ["NUMBA_CACHE_DIR"]) / "ibma-app")
    else:
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        with suppress(RuntimeError):  # a uid without a home
            folders.append(Path(home).expanduser() / "ibma-app" / "kernels")
    if os.environ.get(_LAST_RESORT):
        folders.append(Path(os.environ[_LAST_RESORT]))
    return tuple(folders)


def saving_folder() -> Path | None:
    """Return the folder to which compiled kernels are saved; None where none can be written."""
    return next((folder for folder in cache_folders() if _is_writable(folder)), None)


@contextmanager
def last_resort(folder: Path) -> Iterator[None]:
    """Let this process, and those that it starts, save to a folder the kernels that they can save nowhere else."""
    os.environ[_LAST_RESORT] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_LAST_RESORT, None)


class _Locator:
    """What numba needs to know of a cache's folder."""

    folder = _HERE

    def __init__(self, lineno: int, module: str) -> None:
        self._lineno = lineno
        self._py_file = module  # in numba's warnings
        self._module = module

    @classmethod
    def from_function(cls, function: Callable[..., Any], path: str) -> "_Locator":
        """Make the locator of one function."""
        return cls(function.__code__.co_firstlineno, Path(path).stem)

    def ensure_cache_path(self) -> None:
        """Make the folder (numba calls it before it saves)."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        """Return the folder."""
        return str(self.folder)

    def get_source_stamp(self) -> str:
        """Return the hash that a cached kernel must have."""
        return _source_stamp(self._module)

    def get_disambiguator(self) -> str:
        """Return what distinguishes functions of one name."""
        return str(self._lineno)


def _cache_in(place: Path, function: Callable[..., Any]) -> FunctionCache:
    """Build numba's cache of one function in one folder."""
    locator = type("_LocatorThere", (_Locator,), {"folder": place})
    implementation = type("_Implementation", (CompileResultCacheImpl,), {"_locator_classes": [locator]})
    return type("_CacheThere", (FunctionCache,), {"_impl_class": implementation})(function)


# of an index that was cut short, or names a type that another version of this room had
_UNREADABLE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, ValueError)


class KernelCache:
    """One function's caches: all are read, the first writable one is written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._known: dict[Path, FunctionCache] = {}

    @property
    def cache_path(self) -> str:
        """The first folder."""
        return str(cache_folders()[0])

    def _places(self) -> Iterator[tuple[Path, FunctionCache]]:
        """Yield the folders, each with its cache."""
        for folder in cache_folders():
            if folder not in self._known:
                self._known[folder] = _cache_in(folder, self._function)
            yield folder, self._known[folder]

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the compiled function, or None."""
        for folder, cached in self._places():
            try:
                found = cached.load_overload(signature, context) if folder.is_dir() else None
            except OSError:
                continue
            except _UNREADABLE:
                if _is_writable(folder):
                    cached.flush()
                continue
            if found is not None:
                return found
        return None

    def save_overload(self, signature: Any, data: Any) -> None:
        """Save a compiled function to the first folder that takes it; to none if none does."""
        for environment in data._find_referenced_environments():  # of inner functions: their exceptions need it
            data.codegen.set_env(environment.env_name, environment)
        for folder, cached in self._places():
            if _is_writable(folder):
                try:
                    cached.save_overload(signature, data)
                except OSError:
                    continue
                return

    def enable(self) -> None:
        """Numba's interface; nothing to do."""

    def disable(self) -> None:
        """Numba's interface; nothing to do."""

    def flush(self) -> None:
        """Numba's interface; nothing to do."""
