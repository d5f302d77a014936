"""Compiling of kernels, kept on disk so that a user waits for it once.

Numba's own cache has three gaps that matter here: it does not see that a
function in *another* file changed, it ignores a cache that was compiled ahead
into a read-only image, and it fails outright where neither the package's
folder nor HOME is writable. The cache below closes them.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache

_HERE = Path(__file__).resolve().parent


@cache
def _source_stamp() -> str:
    """Hash every kernel file: a kernel inlines functions of its neighbours."""
    digest = hashlib.sha256()
    for path in sorted(_HERE.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
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


@cache
def _folders() -> tuple[Path, ...]:
    """Where compiled kernels are looked for, in order."""
    folders = [_HERE / "__pycache__"]
    if os.environ.get("NUMBA_CACHE_DIR"):
        folders.insert(0, Path(os.environ["NUMBA_CACHE_DIR"]) / "ibma-app")
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folders.append(Path(home) / "ibma-app" / "kernels")
    return tuple(folders)


class _Locator:
    """What numba asks of a cache's place."""

    folder = _HERE

    def __init__(self, lineno: int) -> None:
        self._lineno = lineno
        self._py_file = "ibma_app.stats"  # in numba's warnings

    @classmethod
    def from_function(cls, function: Callable[..., Any], path: str) -> "_Locator":
        """Make the locator of one function."""
        return cls(function.__code__.co_firstlineno)

    def ensure_cache_path(self) -> None:
        """Make the folder (numba calls it before it saves)."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        """Return the folder."""
        return str(self.folder)

    def get_source_stamp(self) -> str:
        """Return what must not have changed."""
        return _source_stamp()

    def get_disambiguator(self) -> str:
        """Tell apart functions of one name."""
        return str(self._lineno)


def _cache_in(place: Path, function: Callable[..., Any]) -> FunctionCache:
    """Build numba's cache of one function in one folder."""
    locator = type("_LocatorThere", (_Locator,), {"folder": place})
    implementation = type("_Implementation", (CompileResultCacheImpl,), {"_locator_classes": [locator]})
    return type("_CacheThere", (FunctionCache,), {"_impl_class": implementation})(function)


class _Caches:
    """One function's caches: all are read, the first writable one is written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._places = [(folder, _cache_in(folder, function)) for folder in _folders()]

    @property
    def cache_path(self) -> str:
        """Where it would be written."""
        return str(self._places[0][0])

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the compiled function, or None."""
        for folder, cached in self._places:
            if folder.is_dir():
                try:
                    found = cached.load_overload(signature, context)
                except OSError:
                    continue
                if found is not None:
                    return found
        return None

    def save_overload(self, signature: Any, data: Any) -> None:
        """Keep a compiled function where that is possible; it is no error where it is not."""
        for folder, cached in self._places:
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


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call: no global lock, no reordered sums, no threads.

    Parameters
    ----------
    function : callable
        Written in numba's subset of Python, always called with the same types.
    """
    dispatcher = njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    dispatcher._cache = _Caches(function)
    return dispatcher
