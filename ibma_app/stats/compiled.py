"""Compiles kernels: functions that loop over voxels, in numba's subset of Python."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from numba import config, njit
from numba.core.codegen import JITCodeLibrary, get_host_cpu_features
from numba.core.compiler import CompilerBase, DefaultPassBuilder

from ibma_app.stats.kernel_cache import KernelCache

# four sums side by side become one vector instruction: a quarter less time, the same bits
config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]

_CPU_NAMES = "IBMA_CPU_NAMES"  # the environment variable with the kinds of processor that an image has kernels for
_FEATURES: dict[str, tuple[str, ...]] = {  # what a processor must have, in LLVM's words
    "generic": (),
    "x86-64-v3": (
        *("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"),
        *("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"),
    ),
}


def choose_cpu(names: str, features: str) -> str:
    """Return the first kind of processor in a list whose features are all there.

    Parameters
    ----------
    names : str
        Names of kinds, best first, e.g. ``x86-64-v3 generic``; names that are
        not known here are passed over.
    features : str
        What a processor has and has not, as numba and LLVM write it:
        ``+avx,-avx2``.

    Returns
    -------
    str
        A kind's name; empty where none fits, and kernels are compiled for the processor itself.
    """
    there = {feature.removeprefix("+") for feature in features.split(",") if feature.startswith("+")}
    known = (name for name in names.split() if name in _FEATURES)
    return next((name for name in known if there.issuperset(_FEATURES[name])), "")


def _compile_for_a_kind() -> None:
    """Compile for a kind of processor, not for this one, where the environment says so: an image serves many."""
    names = os.environ.get(_CPU_NAMES, "")
    kind = choose_cpu(names, get_host_cpu_features()) if names else ""
    if kind and config.CPU_NAME is None:  # type: ignore[attr-defined]
        config.CPU_NAME = kind  # type: ignore[attr-defined]
        config.CPU_FEATURES = ""  # type: ignore[attr-defined]


_compile_for_a_kind()


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
    dispatcher._cache = KernelCache(function)
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
