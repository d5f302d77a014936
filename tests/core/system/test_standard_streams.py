"""Standard streams that are closed, full, or read by nobody: the right exit code, and nothing is lost or misplaced."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ibma_app

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


@pytest.fixture(scope="module")
def maps(tmp_path_factory, describe_dataset, write_statmap) -> Path:
    root = describe_dataset(tmp_path_factory.mktemp("streams") / "maps")
    rng = np.random.default_rng(4)
    for number in range(5):
        names = {"sub": f"{number:02d}", "space": "T1w", "contrast": "ab"}
        write_statmap(root, "effect", rng.normal(1, 1, (4, 4, 3)), **names)
    return root


@pytest.fixture(scope="module")
def table(maps) -> Path:
    """A table of one study's map, for ibma-import."""
    path = maps.parent / "maps.tsv"
    effect = min(maps.rglob("*_statmap.nii.gz"))
    path.write_text(f"study_id\tpath\tkind\tcontrast\nlee\t{effect}\tz\t疼痛 é\n", encoding="utf-8")
    return path


@pytest.fixture
def shell(tmp_path):
    """Return ``shell(entry, words, redirections) -> process``: a function of the command line, started by a shell."""

    def run(entry: str, words: list, redirections: str = "", **env: str) -> subprocess.CompletedProcess:
        code = f"import sys; from ibma_app.cli import {entry}; sys.exit({entry}())"
        source = str(Path(ibma_app.__file__).resolve().parents[1])
        return subprocess.run(
            ["bash", "-c", f'"$@" {redirections}; exit "${{PIPESTATUS[0]}}"', "bash",
             sys.executable, "-P", "-c", code, *map(str, words)],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": source, "HOME": str(tmp_path), **env},
            cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["--bids-exec-spec"]], ids=lambda words: words[0])
def test_what_is_asked_for_goes_nowhere_where_stdout_is_closed(shell, words):
    ran = shell("main", words, ">&-")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@needs_full
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["--bids-exec-spec"]], ids=lambda words: words[0])
def test_a_full_disk_under_stdout_is_an_io_error(shell, words):
    ran = shell("main", words, "> /dev/full")
    assert ran.returncode == 74
    assert ran.stderr == "ibma-app: error: Standard output cannot be written: No space left on device.\n"


@pytest.mark.parametrize("redirections", ["2>&-", "<&- >&- 2>&-", "| true"])
def test_a_dry_run_whose_table_nobody_sees_ends_well(shell, maps, tmp_path, redirections):
    ran = shell("main", [maps, tmp_path / "out", "group", "--dry-run"], redirections)
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert ("sub-04" in ran.stdout) == (redirections == "2>&-")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code"), [(["nowhere", "out", "group"], 66), (["in", "out", "group", "--nonsense"], 64)]
)
@pytest.mark.slow
@pytest.mark.parametrize("redirections", ["2>&-", pytest.param("2> /dev/full", marks=needs_full)])
def test_an_error_that_cannot_be_printed_keeps_its_code(shell, words, code, redirections):
    assert shell("main", words, redirections).returncode == code


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirections", ["<&- >&- 2>&-", "2>&1 | true", pytest.param("2> /dev/full", marks=needs_full)]
)
def test_a_run_whose_messages_nobody_sees_computes_the_same(shell, maps, tmp_path, redirections):
    files = {}
    for name, how in (("seen", ""), ("unseen", redirections)):
        words = [maps, tmp_path / name, "group", "--estimator", "ols", "--inference", "fdr", "--no-report"]
        ran = shell("main", words, how)
        assert ran.returncode == 0, ran.stderr
        files[name] = {path.name: path.read_bytes() for path in (tmp_path / name / "group").iterdir()}
    (status,) = (tmp_path / "unseen" / "logs").glob("*/run.json")
    assert json.loads(status.read_text())["state"] == "finished"
    assert "Fitting ols" in status.with_name("log.txt").read_text()  # the messages are kept there
    assert len(files["seen"]) > 10
    assert files["seen"] == files["unseen"]


@pytest.mark.parametrize("redirections", [">&-", "2>&1 | true"])
def test_an_import_whose_table_nobody_reads_is_done(shell, table, tmp_path, redirections):
    ran = shell("import_main", ["table", table, tmp_path / "out"], redirections)
    assert ran.returncode == 0, ran.stderr
    assert len(list((tmp_path / "out").rglob("*_statmap.nii.gz"))) == 1


def test_quiet_imports_print_nothing_and_quiet_dry_runs_what_they_are_asked_for(ibma_import, table, tmp_path):
    loud = ibma_import("table", table, tmp_path / "loud", "--space", "MNI152NLin6Asym", "--sample-size", "20")
    assert "What is imported" in loud.stdout
    assert "1 contrast(s) in" in loud.stderr
    quiet = ibma_import("table", table, tmp_path / "quiet", "--space", "MNI152NLin6Asym", "--sample-size", "20", "-q")
    assert quiet.code == 0
    assert quiet.stdout == ""
    assert all(line.startswith("warning: ") for line in quiet.stderr.splitlines())
    asked = ibma_import("table", table, tmp_path / "dry", "-q", "--dry-run")
    assert "What would be imported" in asked.stdout


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", r"\u75bc\u75db \xe9"), ("latin-1", r"\u75bc\u75db"), ("utf-8", "疼痛 é")],
)
def test_letters_that_an_encoding_lacks_are_printed_as_escapes(shell, table, tmp_path, encoding, shown):
    words = ["table", table, tmp_path / "out", "--dry-run"]
    ran = shell("import_main", words, "| cat -v" if encoding == "latin-1" else "", PYTHONIOENCODING=encoding)
    assert ran.returncode == 0, ran.stderr
    assert shown in ran.stdout
