"""The script that compiles kernels ahead, while an image is built: all its runs work, and it reaches every kernel."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "compile_kernels.py"


@pytest.mark.slow
def test_no_kernel_is_left_to_be_compiled_in_a_container(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "kernels that a container would have to compile: none"
