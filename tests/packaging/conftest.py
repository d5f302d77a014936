"""Stand-ins for the programs that platforms have: on a machine with none of them, their command lines are still run."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ibma_app

ROOT = Path(__file__).resolve().parents[2]

PYTHON = """#!/bin/sh
exec {python} "$@"
"""

# docker, apptainer: binds become host paths, the image's entry point becomes our python -m ibma_app
CONTAINER = '''#!{python}
"""What `docker run` and `apptainer run|exec` would start, started here; every call is noted in calls.jsonl."""
import json, os, pathlib, subprocess, sys

words = sys.argv[1:]
with open({calls!r}, "a") as calls:
    calls.write(json.dumps([pathlib.Path(sys.argv[0]).name, *words]) + "\\n")
verb = words.pop(0)
if verb == "build":
    sys.exit(0)
binds, valued = {{}}, ("-u", "--user", "--pwd", "-w", "--workdir", "--entrypoint", "--network", "--tmpfs")
while words[0].startswith("-"):
    flag = words.pop(0)
    if flag in ("-v", "-B", "--bind", "--volume"):
        source, inside, *_ = (words.pop(0) + ":").split(":")
        assert os.path.isdir(source), f"no folder {{source}} to bind"
        binds[inside or source] = source
    elif flag in valued:
        words.pop(0)
image = words.pop(0)
if verb == "run":
    words = ["python3", "-m", "ibma_app", *words]
words = [binds.get(word, word) for word in words]
words[0] = sys.executable if words[0] == "python3" else words[0]
sys.exit(subprocess.call(words))
'''


@pytest.fixture
def stand_ins(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Return ``stand_ins(*names) -> environment``: PATH begins with programs of these names.

    ``python3`` runs this Python, where ibma_app can be imported; ``docker``
    and ``apptainer`` run ibma_app here, with the binds undone, and note their
    words in calls.jsonl, a line each, beside the folder ``bin``.
    """

    def make(*names: str, **more: str) -> dict[str, str]:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name in names:
            text = more.pop(name, PYTHON if name == "python3" else CONTAINER)
            path = folder / name
            path.write_text(text.format(python=sys.executable, calls=str(tmp_path / "calls.jsonl")), encoding="utf-8")
            path.chmod(0o755)
        source = str(Path(ibma_app.__file__).resolve().parents[1])
        return {
            "PATH": f"{folder}:/usr/bin:/bin",
            "PYTHONPATH": source,
            "MPLBACKEND": "Agg",
            "LANG": "C.UTF-8",
            "SLURM_CPUS_PER_TASK": "1",
            **more,
        }

    return make


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """Return ``calls()``: what the stand-ins for containers were asked for."""
    return lambda: [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def make_runs(tmp_path_factory: pytest.TempPathFactory, describe_dataset, write_statmap) -> Callable[[int], Path]:
    """Return ``make_runs(subjects)``: a dataset with two tiny runs of each."""

    def make(subjects: int) -> Path:
        return _make_runs(describe_dataset(tmp_path_factory.mktemp("runs") / "maps"), subjects, write_statmap)

    return make


def _make_runs(root: Path, subjects: int, write_statmap) -> Path:
    rng = np.random.default_rng(8)
    for sub in range(1, subjects + 1):
        for run in "12":
            names = {"sub": f"{sub:02d}", "task": "x", "run": run, "space": "MNI152NLin6Asym", "contrast": "ab"}
            write_statmap(root, "effect", rng.normal(1, 1, (6, 5, 4)), metadata={"DegreesOfFreedom": 90}, **names)
            write_statmap(root, "variance", rng.uniform(0.2, 0.6, (6, 5, 4)), **names)
    return root


def _fenced(page: Path, name: str) -> str:
    found = re.search(rf"^<!-- ci: {name} -->\n```bash\n(.+?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    assert found, f"{page.name} has no block marked 'ci: {name}'"
    return found[1]


@pytest.fixture(scope="session")
def block() -> Callable[[str, str], str]:
    """Return ``block(page, name)``: the fenced block after the comment ``ci: name`` of a page of the repository."""
    return lambda page, name: _fenced(ROOT / page, name)
