"""docs/cluster.md as it stands: sbatch is played, its array tasks are processes that run at the same time."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # eight jobs at a time, each a process of its own

ROOT = Path(__file__).resolve().parents[2]

# `sbatch` starts an array's tasks together and waits at the dependency; it knows what the page uses, no more
SBATCH = '''#!{python}
"""Play sbatch: job 1 is the array; what depends on it runs when all its tasks ended well."""
import os, pathlib, re, subprocess, sys

*options, script = sys.argv[1:]
given = dict(word.removeprefix("--").partition("=")[::2] for word in options)
header = dict(re.findall(r"^#SBATCH --([\\w-]+)=(.*)$", pathlib.Path(script).read_text(), re.M))
assert {{"job-name", "cpus-per-task", "mem", "time"}} <= set(header), header
assert set(given) <= {{"parsable", "array", "dependency"}}, given
environment = {{**os.environ, "SLURM_CPUS_PER_TASK": header["cpus-per-task"]}}
state = pathlib.Path("job-1.state")
if "dependency" in given:
    assert given["dependency"] == "afterok:1", given
    assert state.read_text() == "COMPLETED", "DependencyNeverSatisfied"
if "array" in given:
    first, last = map(int, given["array"].split("-"))
    tasks = []
    for task in range(first, last + 1):
        log = open(f"task-{{task}}.log", "w")
        index = {{**environment, "SLURM_ARRAY_TASK_ID": str(task)}}
        tasks.append(subprocess.Popen(["bash", script], env=index, stdout=log, stderr=log))
    codes = [task.wait() for task in tasks]
    state.write_text("COMPLETED" if not any(codes) else f"FAILED {{codes}}")
    print(1)
else:
    code = subprocess.call(["bash", script], env=environment)
    print("Submitted batch job 2")
    sys.exit(code)
'''


@pytest.fixture(scope="module")
def runs(make_runs) -> Path:
    return make_runs(8)


@pytest.fixture(scope="module")
def page(block):
    return lambda name: block("docs/cluster.md", f"slurm-{name}")


@pytest.fixture
def submit(tmp_path: Path, page, stand_ins):
    """Return ``submit(bids_dir)``: the page's four blocks, in an empty folder."""

    def run(bids_dir: Path) -> tuple[subprocess.CompletedProcess, Path]:
        folder = tmp_path / "cluster"
        folder.mkdir()
        for name in ("participant", "group"):
            (folder / f"{name}.sbatch").write_text(page(name), encoding="utf-8")
        environment = stand_ins("python3", "apptainer", "sbatch", sbatch=SBATCH)
        environment |= {"BIDS_DIR": str(bids_dir), "OUTPUT_DIR": str(folder / "out")}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", page("list") + page("submit")],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        return done, folder

    return run


def test_eight_jobs_write_what_one_writes(submit, runs: Path, cli, contents, calls, tmp_path: Path) -> None:
    done, folder = submit(runs)
    logs = "\n".join(path.read_text() for path in sorted(folder.glob("task-*.log")))
    assert done.returncode == 0, done.stderr + logs
    assert len(list(folder.glob("task-*.log"))) == 8
    out = folder / "out"
    # nothing that a job was writing is left, nor its lock
    assert [path.name for path in out.iterdir() if path.name.startswith(".ibma")] == []
    alone = tmp_path / "alone" / "out"  # as deep: links to the input are relative
    for level in ("participant", "group"):
        ran = cli(runs, alone, level, "--nprocs", "1")
        assert ran.code == 0, ran.stderr
    together, one = contents(out), contents(alone)
    assert together.keys() == one.keys()
    assert [name for name in one if together[name] != one[name]] == []
    assert len(calls()) == 9


def test_the_group_waits_for_a_participant_that_failed(submit, runs: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(runs, tmp_path / "broken")
    for number in range(4, 9):
        shutil.rmtree(broken / f"sub-{number:02d}")
    for path in (broken / "sub-03" / "func").glob("*_stat-variance_statmap.nii.gz"):
        path.write_bytes(b"not an image")
    done, folder = submit(broken)
    assert done.returncode != 0
    assert "DependencyNeverSatisfied" in done.stderr
    assert not (folder / "out" / "group").exists()
    finished = {path.name.partition("_")[0] for path in (folder / "out").rglob("*_stat-effect_statmap.nii.gz")}
    assert finished == {"sub-01", "sub-02"}
    assert "sub-03" in (folder / "task-3.log").read_text()
