"""Dockerfile, Singularity.def and CircleCI's configuration, as far as they can be checked without running them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str, *words: object) -> subprocess.CompletedProcess:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (the dev extra)")
    return subprocess.run([found, *map(str, words)], capture_output=True, text=True, check=False, timeout=120)


def stages() -> list[str]:
    """Split the Dockerfile at its FROM lines."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    return re.split(r"^FROM ", text, flags=re.M)[1:]


def test_hadolint_finds_nothing() -> None:
    done = tool("hadolint", ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_the_final_stage_builds_nothing_and_is_nobody() -> None:
    builder, final = stages()
    assert "pip install" in builder
    assert not re.search(r"\bpip\b|\bgcc\b|\bgit\b|build-essential", final)
    assert not re.search(r"^USER ", builder + final, re.M)
    assert final.rstrip().endswith('ENTRYPOINT ["ibma-app"]')
    for wanted in ("ARG VERSION", "> /version", "TEMPLATEFLOW_HOME=/opt/templateflow", "HOME=/tmp", "LABEL "):
        assert wanted in final


def test_what_the_image_needs_enters_the_build() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"/src/(docker/\S+\.py)", stages()[0])
    assert len(copied) == 2
    assert all((ROOT / name).is_file() for name in [*kept, *copied] if "." in name)
    assert {"pyproject.toml", "README.md", "LICENSE", "ibma_app", "docker"} == set(kept)


def test_requirements_are_those_of_the_project(tmp_path: Path) -> None:
    import tomllib

    # as in the image: the script lies beside pyproject.toml
    for name in ("docker/list_requirements.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    extras = re.search(r"list_requirements\.py ([\w ]+) >", stages()[0])[1].split()
    listed = subprocess.run(
        [sys.executable, "list_requirements.py", *extras],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    # all that makes the app do more; what is left is for its developers
    assert set(extras) == set(optional) - {"test", "dev", "docs"}
    assert listed == project["dependencies"] + [line for extra in extras for line in optional[extra]]


def test_apptainers_recipe_has_its_sections() -> None:
    text = (ROOT / "Singularity.def").read_text(encoding="utf-8")
    assert re.findall(r"^%(\w+)", text, re.M) == ["labels", "help", "runscript", "test"]
    assert text.startswith("Bootstrap: docker\n")
    assert 'exec /opt/ibma/bin/ibma-app "$@"' in text


def test_circleci_knows_what_is_configured() -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.circle-ci", ROOT / ".circleci" / "config.yml")
    assert done.returncode == 0, done.stdout


def test_the_scripts_are_bash() -> None:
    scripts = [*(ROOT / ".ci").iterdir(), ROOT / "brainlife" / "main", *(ROOT / "docker").glob("*.sh")]
    for script in scripts:
        done = tool("bash", "-n", script)
        assert done.returncode == 0, done.stderr
