"""Machines that lack a home, a readable one, or a folder for temporary files: runs end well, or say what to do."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import ibma_app
from ibma_app.core.errors import OutputError
from ibma_app.core.system.folders import home_folder, temporary_folder

# a uid that the machine does not know, wherever this runs: its name and home are asked of pwd alone
NOBODY = """
import pwd, sys
def missing(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = missing
from ibma_app import cli
if __name__ == "__main__":
    sys.exit(getattr(cli, sys.argv[1])(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def maps(tmp_path_factory, describe_dataset, write_statmap) -> Path:
    root = describe_dataset(tmp_path_factory.mktemp("folders") / "maps")
    rng = np.random.default_rng(6)
    for number in range(4):
        names = {"sub": f"{number:02d}", "space": "T1w", "contrast": "ab"}
        for kind, values in (("effect", rng.normal(1, 1, (4, 4, 3))), ("variance", rng.uniform(0.2, 0.6, (4, 4, 3)))):
            write_statmap(root, kind, values, **names)
    return root


@pytest.fixture
def start(tmp_path):
    """Return ``start(entry, words, **environment) -> process``: as a uid without a name, with these variables only."""
    program = tmp_path / "nobody.py"
    program.write_text(NOBODY)

    def run(entry: str, *words: object, before: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess:
        plain = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(ibma_app.__file__).resolve().parents[1])}
        return subprocess.run(
            [*before, sys.executable, "-P", str(program), entry, *map(str, words)], env=plain | variables,
            cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    return run


@pytest.fixture
def unreadable(tmp_path):
    """Return a folder that cannot be entered, and what a command line begins with so that root cannot either."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0)
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and there is no setpriv (util-linux) to forbid it")
        lost = "-dac_override,-dac_read_search"
        before = ("setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}")
        if subprocess.run([*before, "true"], check=False, capture_output=True).returncode:
            pytest.skip("root may read everything, and this one may not give that up")
    yield folder, before
    folder.chmod(0o700)


def is_done(ran: subprocess.CompletedProcess) -> bool:
    assert "internal error" not in ran.stderr
    assert ran.returncode == 0, ran.stderr
    return True


@pytest.mark.slow
def test_both_levels_without_a_home_or_a_name(start, maps, tmp_path):
    out = tmp_path / "out"
    assert is_done(start("main", maps, out, "participant", "--nprocs", "2", "--bids-database-dir", tmp_path / "index"))
    assert is_done(start("main", maps, out, "group", "--estimator", "ols", "--nprocs", "1"))
    assert (out / "group_space-T1w_contrast-ab.html").is_file()
    assert len(list((tmp_path / "index").rglob("layout_index.sqlite"))) == 1


@pytest.mark.parametrize("software", ["table", "spm", "neurovault"])
def test_imports_without_a_home_or_a_name(start, maps, tmp_path, software):
    source = tmp_path / "maps.tsv"
    source.write_text(f"study_id\tpath\tkind\tcontrast\nlee\t{min(maps.rglob('*.nii.gz'))}\tz\tpain\n")
    if software == "table":
        assert is_done(start("import_main", "table", source, tmp_path / "out"))
        return
    ran = start("import_main", software, tmp_path / "nowhere", tmp_path / "out")
    assert ran.returncode == 66
    assert "internal error" not in ran.stderr


@pytest.mark.slow
def test_a_home_that_cannot_be_read(start, maps, tmp_path, unreadable):
    home, before = unreadable
    out = tmp_path / "out"
    index = ("--bids-database-dir", tmp_path / "index")
    assert is_done(start("main", maps, out, "participant", *index, before=before, HOME=str(home)))
    assert is_done(start("main", maps, out, "group", *index, "--estimator", "ols", before=before, HOME=str(home)))
    assert (out / "group_space-T1w_contrast-ab.html").is_file()


def test_settings_of_pybids_at_home_are_none_of_ours(start, maps, tmp_path):
    (tmp_path / "pybids_config.json").write_text("not JSON")
    (tmp_path / "elsewhere").mkdir()
    words = ("main", maps, tmp_path / "out", "group", "--dry-run", "--bids-database-dir", tmp_path / "index")
    ran = start(*words, HOME=str(tmp_path), before=("env", f"--chdir={tmp_path / 'elsewhere'}"))
    assert is_done(ran)
    assert "sub-03" in ran.stdout


def test_no_folder_for_temporary_files_is_said_and_the_advice_helps(maps, tmp_path, monkeypatch, cli):
    def none() -> str:
        if tempfile.tempdir is None:
            raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")
        return tempfile.tempdir

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    words = (maps, tmp_path / "out", "group", "--estimator", "ols", "--no-report")
    ran = cli(*words)
    assert ran.code == 73
    assert "There is no folder for temporary files" in ran.stderr
    ran = cli(*words, "--work-dir", tmp_path / "work")
    assert ran.code == 0, ran.stderr
    assert list((tmp_path / "work").iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", "")
    with pytest.raises(OutputError, match="Set TMPDIR"):
        temporary_folder()
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    assert temporary_folder() == tmp_path
    assert temporary_folder(Path("named")) == Path("named")


@pytest.mark.slow
def test_a_temporary_folder_with_a_long_name_is_no_hindrance(start, maps, tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    words = ("main", maps, tmp_path / "out", "participant", "--nprocs", "2", "--no-report")
    assert is_done(start(*words, TMPDIR=str(folder)))
    assert len(list((tmp_path / "out").rglob("*stat-effect_statmap.nii.gz"))) == 4


@pytest.mark.parametrize("words", [("maps", "out", "group"), ("/tmp", "out", "participant", "--dry-run")])
def test_a_current_folder_that_is_gone_is_named(start, maps, tmp_path, words):
    gone = tmp_path / "gone"
    gone.mkdir()
    ran = start("main", *words, before=("bash", "-c", f'cd "{gone}" && rmdir "{gone}" && exec "$@"', "bash"))
    assert ran.returncode == 66
    assert "The current folder is gone" in ran.stderr
    here = ("bash", "-c", f'mkdir "{gone}" && cd "{gone}" && rmdir "{gone}" && exec "$@"', "bash")
    assert is_done(start("main", maps, tmp_path / "out", "group", "--dry-run", before=here))  # the advice


def test_homes(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_folder() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path / "nothing"))
    assert home_folder() is None
