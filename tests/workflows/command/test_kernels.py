"""Where compiled kernels are kept is logged; a run that cannot keep them says so, once."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import ibma_app
from ibma_app.stats import kernel_cache
from ibma_app.workflows.command import kernels
from ibma_app.workflows.command.kernels import keep_kernels

CANNOT = "Kernels were compiled that cannot be kept"


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Leave no folder that can be written: files where they should be."""
    (tmp_path / "package").mkdir()
    for name in ("package/__pycache__", "cache"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(kernel_cache, "_HERE", tmp_path / "package")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    kernels._warn.cache_clear()
    return tmp_path


def run_that_compiles(work_dir: Path) -> Path:
    """Do as a run whose workers could save a kernel nowhere else; return where they did."""
    with keep_kernels(work_dir):
        folder = Path(os.environ["IBMA_KERNELS_LAST_RESORT"])
        assert kernel_cache.saving_folder() == folder
        (folder / "mixed._fit-1.py311.1.nbc").touch()
    return folder


def test_a_run_that_keeps_nothing_warns_once(nowhere, caplog):
    with caplog.at_level(logging.DEBUG, "ibma_app"):
        folders = {run_that_compiles(nowhere) for _ in range(2)}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{CANNOT} (in {nowhere}/cache/ibma-app or {nowhere}/package/__pycache__)")
    assert "Set NUMBA_CACHE_DIR" in warnings[0]
    assert f"{nowhere}/package/__pycache__; new ones can be kept in none of them." in caplog.text
    assert not any(folder.exists() for folder in folders)
    assert "IBMA_KERNELS_LAST_RESORT" not in os.environ


def test_no_warning_where_nothing_was_compiled(nowhere, caplog):
    """As in an image, which is read-only and holds all kernels."""
    with caplog.at_level(logging.WARNING, "ibma_app"), keep_kernels(nowhere):
        pass
    assert caplog.text == ""


def test_the_folder_is_logged(nowhere, monkeypatch, caplog):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(nowhere / "kept"))
    with caplog.at_level(logging.DEBUG, "ibma_app"), keep_kernels(nowhere):
        pass
    assert caplog.messages == [
        f"Compiled kernels are looked for in {nowhere}/kept/ibma-app or {nowhere}/package/__pycache__; "
        f"new ones are kept in {nowhere}/kept/ibma-app."
    ]


@pytest.mark.slow
def test_participants_side_by_side(tmp_path, describe_dataset, write_statmap, run_python):
    """Processes share what they compile, the run warns once, and its advice helps."""
    site = tmp_path / "site"
    package = Path(ibma_app.__file__).parent
    shutil.copytree(package, site / "ibma_app", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "ibma_app/stats/__pycache__").write_text("")
    (tmp_path / "home").write_text("")
    maps = describe_dataset(tmp_path / "maps")
    values = np.random.default_rng(0).normal(size=(2, 2, 60))
    for sub in ("01", "02", "03"):
        for run in (0, 1):
            names = {"sub": sub, "run": str(run + 1), "task": "x", "contrast": "c"}
            write_statmap(maps, "effect", values[0, run], metadata={"DegreesOfFreedom": 50}, **names)
            write_statmap(maps, "variance", values[1, run] ** 2 + 0.1, **names)
    words = ("-m", "ibma_app", maps, tmp_path / "out", "participant", "--no-report", "--nprocs", "2")
    env = {"PYTHONPATH": str(site), "NUMBA_DEBUG_CACHE": "1"}  # numba tells on stdout what it saves and loads
    env |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": "", "NUMBA_CACHE_DIR": ""}
    ran = run_python(*words, env=env)
    assert ran.code == 0, ran.stderr
    assert ran.stderr.count(CANNOT) == 1
    assert str(site / "ibma_app/stats/__pycache__") in ran.stderr
    assert "data saved" in ran.stdout
    advised = {**env, "NUMBA_CACHE_DIR": str(tmp_path / "shared")}
    first, second = (run_python(*words, env=advised) for _ in range(2))
    assert CANNOT not in first.stderr + second.stderr
    assert "data saved" in first.stdout
    assert "data saved" not in second.stdout
    assert "data loaded" in second.stdout
