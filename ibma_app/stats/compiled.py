"""Compiles kernels, and keeps them on disk so that a user waits for it once.

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
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder

_HERE = Path(__file__).resolve().parent

# four sums side by side become one vector instruction: a quarter less time, the same bits
config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]


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


@cache
def cache_folders() -> tuple[Path, ...]:
    """Return the folders in which compiled kernels are searched, in order; they are saved to the first writable one."""
    folders = [_HERE / "__pycache__"]
    if os.environ.get("NUMBA_CACHE_DIR"):
        folders.insert(0, Path(os.environ["NUMBA_CACHE_DIR"]) / "ibma-app")
    else:
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        with suppress(RuntimeError):  # a uid without a home
            folders.append(Path(home).expanduser() / "ibma-app" / "kernels")
    return tuple(folders)


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


class _Caches:
    """One function's caches: all are read, the first writable one is written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._places = [(folder, _cache_in(folder, function)) for folder in cache_folders()]

    @property
    def cache_path(self) -> str:
        """The first folder."""
        return str(self._places[0][0])

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the compiled function, or None."""
        for folder, cached in self._places:
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
        """Save a compiled function to the first folder that can be written; to none if there is none."""
        for environment in data._find_referenced_environments():  # of inner functions: their exceptions need it
            data.codegen.set_env(environment.env_name, environment)
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


class _UnfinishedLibrary(JITCodeLibrary):
    """The code of a function that only kernels call: optimised and assembled with the kernel, not before.

    Numba would do both for it alone, and again for every caller up to the
    kernel, each with all that it calls: half of the time of compiling. Where a
    numba to come does not know the methods below, it does so again.
    """

    def _optimize_final_module(self) -> None:
        """Leave it to the kernel, into which all is linked."""

    def _finalize_final_module(self) -> None:
        """Take note of what linking asks for; no machine code."""
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return no address, as of a function without a way in from Python."""
        return 0

    @property
    def codegen(self) -> Any:
        """Set no environment (what exceptions are made from); the kernel's library sets all it has."""
        return SimpleNamespace(set_env=lambda name, environment: None)


class _InnerCompiler(CompilerBase):
    """Compile into a library that is finished with the kernel's."""

    def define_pipelines(self) -> list[Any]:
        """Take numba's own passes."""
        self.state.library = _UnfinishedLibrary(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


_OPTIONS: dict[str, Any] = {
    "nogil": True,  # threads may share the work
    "error_model": "numpy",  # 1/0 is inf, as everywhere else; sums keep their order: no fastmath
    "no_cfunc_wrapper": True,
}
_INNER: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "pipeline_class": _InnerCompiler}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a kernel at its first call from Python, and keep it on disk.

    Parameters
    ----------
    function : callable
        Written in numba's subset of Python, always called with the same types.
    """
    dispatcher: Any = njit(**_OPTIONS)(function)
    dispatcher._cache = _Caches(function)
    return dispatcher


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call, as part of each of them."""
    return njit(**_INNER)(function)


def folded(function: Callable[..., Any]) -> Any:
    """Compile a function inline into its callers: for functions that take many arrays and are called for each voxel.

    An array is passed as several words, which can take longer than the
    arithmetic.
    """
    return njit(forceinline=True, **_INNER)(function)
