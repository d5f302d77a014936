"""Compiled kernels are kept where that is possible, and run where it is not."""

import os
import pickle
import shutil
from pathlib import Path

import numba
import pytest
from numba.core.codegen import get_host_cpu_features

import ibma_app
from ibma_app.stats.compiled import choose_cpu

KERNEL = """
import numpy as np
from ibma_app.stats.combine import stouffer
import ibma_app.stats.combine as room
stouffer(np.ones((2, 3)), np.ones((2, 3), dtype=bool), np.ones(2))
stats = room._weighted_z.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), stats.cache_path)
"""

RAISING = """
from ibma_app.stats.compiled import compiled, inner

@inner
def _check(x, limit):
    if x > limit:
        raise ValueError("beyond", limit, x)
    return 2.0 * x

@inner
def _through(x):
    return _check(x, 3.0)

@compiled
def twice(x):
    return _through(x)
"""
RAISE = """
from ibma_app.stats.raising import twice
try:
    twice(4.0)
except ValueError as error:
    print(twice(1.5), *error.args, sum(twice.stats.cache_hits.values()))
"""


@pytest.fixture
def copied(tmp_path):
    """Return a copy of the package's stats room, without compiled kernels."""
    source = Path(ibma_app.__file__).parent
    target = tmp_path / "site" / "ibma_app"
    (target / "stats").mkdir(parents=True)
    shutil.copy(source / "__init__.py", target)
    for path in (source / "stats").glob("*.py"):
        shutil.copy(path, target / "stats")
    return tmp_path / "site"


def run(run_python, site, code=KERNEL, **env):
    names = {"HOME": str(site.parent / "home"), "XDG_CACHE_HOME": "", "NUMBA_CACHE_DIR": "", **env}
    done = run_python("-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}", env=names)
    assert done.code == 0, done.stderr
    return done.stdout.split()


def test_second_run_finds_what_the_first_compiled(run_python, copied):
    assert run(run_python, copied)[:2] == ["0", "1"]
    assert list((copied / "ibma_app/stats/__pycache__").glob("combine._weighted_z*.nbi"))
    assert run(run_python, copied)[:2] == ["1", "0"]


def test_kernels_alone_are_kept(run_python, copied):
    """What only they call is in their files."""
    (copied / "ibma_app/stats/raising.py").write_text(RAISING)
    run(run_python, copied, RAISE)
    assert {path.name.partition("-")[0] for path in copied.rglob("*.nbc")} == {"raising.twice"}


def test_exceptions_of_inner_functions(run_python, copied):
    """Two levels below the kernel, with values from there; compiled, and loaded."""
    (copied / "ibma_app/stats/raising.py").write_text(RAISING)
    assert run(run_python, copied, RAISE) == ["3.0", "beyond", "3.0", "4.0", "0"]
    assert run(run_python, copied, RAISE) == ["3.0", "beyond", "3.0", "4.0", "1"]


def test_a_changed_neighbour_is_noticed(run_python, copied):
    """numba itself looks at the kernel's own file only; combine.py inlines functions of logtails.py."""
    run(run_python, copied)
    path = copied / "ibma_app/stats/logtails.py"
    path.write_text(path.read_text() + "\n# changed\n")
    assert run(run_python, copied)[:2] == ["0", "1"]


RENAMED = b"cibma_app.stats.combine\nRenamed\n."  # a pickle of a class that is no more


@pytest.mark.parametrize("index", [RENAMED, *(pytest.param(i, marks=pytest.mark.slow) for i in (b"", b"\x80\x04 no"))])
def test_an_index_that_cannot_be_read_is_begun_anew(run_python, copied, index):
    """It may name a type that this version has no longer: kernels are kept by the types of their arguments."""
    run(run_python, copied)
    (path,) = (copied / "ibma_app/stats/__pycache__").glob("combine._weighted_z*.nbi")
    path.write_bytes(pickle.dumps(numba.__version__) + index)
    assert run(run_python, copied)[:2] == ["0", "1"]
    assert run(run_python, copied)[:2] == ["1", "0"]


def test_named_folder_comes_first(run_python, copied, tmp_path):
    run(run_python, copied, NUMBA_CACHE_DIR=str(tmp_path / "kept"))
    assert list((tmp_path / "kept").rglob("*.nbi"))
    assert not list(copied.rglob("*.nbi"))


OLD = "+cmov,+cx8,+mmx,+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+sahf,+avx,+xsave"
HASWELL = f"{OLD},+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,-avx512f"


@pytest.mark.parametrize(
    ("names", "features", "kind"),
    [
        ("x86-64-v3 generic", HASWELL, "x86-64-v3"),
        ("x86-64-v3 generic", f"{OLD},-avx2", "generic"),
        ("x86-64-v3 generic", "+neon", "generic"),  # another architecture
        ("generic x86-64-v3", HASWELL, "generic"),
        ("x86-64-v9 x86-64-v3", HASWELL, "x86-64-v3"),
        ("x86-64-v3", "", ""),
        ("", HASWELL, ""),
    ],
)
def test_kind_of_processor(names, features, kind):
    assert choose_cpu(names, features) == kind


def test_kernels_for_two_kinds_of_processor(run_python, copied):
    """As in the image: each set is compiled once, and taken where it was asked for."""
    for names in ("generic", "x86-64-v3 generic"):
        assert run(run_python, copied, IBMA_CPU_NAMES=names)[:2] in (["0", "1"], ["1", "0"])
        assert run(run_python, copied, IBMA_CPU_NAMES=names)[:2] == ["1", "0"]
    assert run(run_python, copied, IBMA_CPU_NAMES="generic")[:2] == ["1", "0"]
    two = choose_cpu("x86-64-v3", get_host_cpu_features()) == "x86-64-v3"
    assert len(list(copied.rglob("combine._weighted_z*.nbc"))) == 1 + two


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is read-only for root")
def test_read_only_everywhere(run_python, copied, tmp_path):
    for folder in (copied / "ibma_app/stats", copied / "ibma_app", copied):
        folder.chmod(0o555)
    assert run(run_python, copied, HOME="/nonexistent")[:2] == ["0", "1"]


def test_nowhere_to_write(run_python, copied):
    """A file where the folders should be: nothing can be kept, and nothing fails."""
    (copied / "ibma_app/stats/__pycache__").write_text("")
    (copied.parent / "home").write_text("")
    assert run(run_python, copied)[:2] == ["0", "1"]
    assert not list(copied.parent.rglob("*.nbi"))
