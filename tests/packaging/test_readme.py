"""The README's Docker and Apptainer lines, pasted; .ci/container pastes them where there are real engines."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(make_runs) -> Path:
    return make_runs(2)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["docker", "apptainer"])
def test_the_lines_run_when_pasted(engine: str, block, stand_ins, calls, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out put"
    out.mkdir()
    environment = stand_ins("python3", engine) | {"BIDS_DIR": str(runs), "OUTPUT_DIR": str(out), "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block("README.md", engine)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("sub-*/func/*_stat-effect_statmap.nii.gz"))) == 2
    assert [words[1] for words in calls()] == ["build", "run"]


def test_the_input_is_bound_read_only(block) -> None:
    for engine in ("docker", "apptainer"):
        words = shlex.split(block("README.md", engine), comments=True)
        assert "$BIDS_DIR:/data:ro" in words
        assert "$OUTPUT_DIR:/out" in words


def test_the_image_is_saved_under_the_name_that_is_built_from(block) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (archive, name) = re.search(r"`docker save -o (\S+) (\S+)`", text).groups()
    assert f"docker build -t {name} ." in block("README.md", "docker")
    assert f"docker-archive:{archive}" in block("README.md", "apptainer")
