"""Every command in the fenced blocks of README and docs/ is run, on small data made here.

A shell reads the blocks as they stand, with programs of our names that note
their words; the noted commands then run in this process. Commands that need a
container, a scheduler, a network or minutes are parsed by the program's own
parser: they are listed in `PARSED`.
"""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ibma_app.cli import publish_main

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {"quickstart-fmriprep.md": "needs BOLD series: tests/workflows/first_level runs its commands"}
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in ELSEWHERE)]
OURS = ("ibma-app", "ibma-import", "ibma-publish", "ibma-demo")
OTHERS = (
    "docker",
    "apptainer",
    "sbatch",
    "pip",
    "python",
    "python3",
    "pytest",
    "mkdocs",
    "git",
    "pre-commit",
    "on_slurm.py",
)
SPACE = "MNI152NLin6Asym"

PARSED = {
    "ibma-demo": "takes half a minute: tests/workflows/demo runs it, and .ci/run the README's own line",
    "docker": "needs a daemon: tests/packaging/test_readme.py and .ci/container run the lines",
    "apptainer": "needs an image: tests/packaging runs the lines with stand-ins, .ci/container with real engines",
    "python": "on_slurm.py needs a SLURM cluster",
    "ibma-import neurovault": "needs a network: tests/importers/neurovault runs it on a local server",
    "ibma-publish --upload": "needs a network and an account: tests/publishing runs it on a local server",
}
"""Commands that are parsed here instead of being run, and why."""

NOTE = """#!/bin/bash
{{ printf '%s\\0' "{name}" "$@"; printf '\\n\\0'; }} >> "$CALLS"
{answer}
"""

Words = list[str]


def blocks(page: Path) -> list[str]:
    """List what a page's fenced blocks tell a shell: bash blocks, and lines that begin with ``$``."""
    found = []
    for indent, kind, block in re.findall(r"^( *)```(\w*)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S):
        text = re.sub(rf"^{indent}", "", block, flags=re.M)
        if kind == "bash":
            found.append(text)
        elif not kind:
            found += [f"{line.removeprefix('$ ')}\n" for line in text.splitlines() if line.startswith("$ ")]
    return found


def count_commands(text: str) -> int:
    """Count the places of a script where one of our programs is called."""
    return len(re.findall(rf"(?:^|&&|;|\bdo)\s*(?:{'|'.join(OURS)})\s", re.sub(r"\\\n", " ", text), re.M))


WITH_COMMANDS = [page for page in PAGES if any(count_commands(block) for block in blocks(page))]


def note_commands(page: Path, folder: Path) -> list[Words]:
    """Let a shell read a page's blocks in a folder; return the commands that it would have started."""
    programs = folder / ".programs"
    programs.mkdir()
    for name in (*OURS, *OTHERS):
        path = programs / name
        path.write_text(NOTE.format(name=name, answer="echo 1" if name == "sbatch" else ""), encoding="utf-8")
        path.chmod(0o755)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text("")
    text = "\n".join(blocks(page)).replace("<run>", "RUN")
    assert not re.search(r"<\w+>", text), "a placeholder that a shell takes for a file"
    calls = folder / ".calls"
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin", "CALLS": str(calls), "BIDS_DIR": "BIDS_DIR", "OUTPUT_DIR": "OUTPUT_DIR",
        "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "1", "HOME": str(folder),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=environment, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    noted = calls.read_text(encoding="utf-8").split("\n\0")
    return [call.rstrip("\0").split("\0") for call in noted if call]


FILES = {
    "README.md": (
        "OUTPUT_DIR/group/*test-old_desc-reml_stat-effect*",
        "META_DIR/group/*contrast-pain_desc-reml_stat-tau2*",
        "maps/sub-01/func/*",
        "maps/study-pain/*_stat-t_*",
    ),
    "usage.md": (
        "OUTPUT_DIR/group/*test-fame_desc-ols_stat-t_*",
        "META_DIR/group/*contrast-pain_desc-reml_stat-tau2*",
        f"POOLED_DIR/group/space-{SPACE}_desc-reml_stat-tau2_*",
    ),
    "quickstart-lab.md": ("results/group/*_desc-reml_stat-z_*", "results-age/group/*test-older*corr-tfce_mask*"),
    "quickstart-meta-analysis.md": (
        "maps/study-*/*_stat-t_statmap.nii.gz",
        "results-moderator/group/*test-stronger*",
    ),
    "quickstart-longitudinal.md": (
        "results/group/*test-change_desc-randomIntercept_stat-F_*",
        "results/group/*desc-randomIntercept_stat-icc_*",
        "results-months/group/*test-faster*",
        "results-robust/group/*test-change_desc-ols_stat-F_*",
    ),
    "importing.md": ("results/group/*desc-stoufferRfx_stat-z_*", "results/group/*desc-reml_stat-tau2_*"),
    "importing-table.md": (
        "pooled/group/seg-DesikanKilliany_contrast-patientsMinusControls_desc-reml_stat-effect_*.tsv",
    ),
    "surfaces.md": (
        "OUTPUT_DIR/group/*hemi-R_space-fsaverage3*corr-tfce_mask.gii",
        "results/group/seg-DesikanKilliany_contrast-CortThick_desc-reml_stat-tau2_statmap.tsv",
    ),
    "pain21.md": ("results-g/group/*desc-ols_stat-effect_*", "results-12/group/*desc-stouffer_stat-z_*"),
}
"""Some of what must be there afterwards."""

SLOW = ("usage.md", "quickstart-meta-analysis.md", "importing.md", "pain21.md")


def test_every_page_with_commands_has_its_data(maker):
    assert {page.name for page in WITH_COMMANDS} <= maker("page_folders").DATA.keys()
    assert len(WITH_COMMANDS) >= 14


def _fit(words: Words, folder: Path, page: str) -> Words:
    """Fit a command to small data: few relabellings, no pages; the folder of a run has the run's name."""
    if "RUN" in " ".join(words):
        newest = max((folder / "OUTPUT_DIR" / "logs").glob("*_group_*"), key=lambda path: path.stat().st_mtime_ns)
        words = [word.replace("RUN", newest.name) for word in words]
    more = [] if "--dry-run" in words else ["--no-report", "--nprocs", "1"]
    return [*words, *more, *([] if "--permutations" in words else ["--permutations", "40"])]


def _add_column(table: Path, name: str, value: Callable[[int], str]) -> None:
    """Add the column that a page asks the reader to add, unless an earlier command of the page had it added."""
    head, *rows = table.read_text().splitlines()
    if name in head.split("\t"):
        return
    assert rows
    lines = [f"{head}\t{name}", *(f"{row}\t{value(number)}" for number, row in enumerate(rows))]
    table.write_text("\n".join(lines) + "\n")


def _is_parsed(words: Words) -> bool:
    return any(name.split() == [word for word in words if word in name.split()] for name in PARSED)


def _parse(words: Words) -> None:
    """Parse what is not run, by the program's own parser."""
    from ibma_app.workflows.options.parse import parse_demo, parse_options
    from ibma_app.workflows.options.parse_import import parse_import
    from ibma_app.workflows.options.parse_publish import parse_publish

    program, *rest = words
    if program == "ibma-demo":
        assert parse_demo(rest).output_dir.name
    elif program == "ibma-publish":
        assert parse_publish(rest).upload
    elif program == "ibma-import":
        assert parse_import(rest).software == "neurovault"
    elif "/data" in rest:  # a container: what follows the image is the app's
        options = parse_options(rest[rest.index("/data") :])
        assert (options.bids_dir, options.output_dir) == (Path("/data"), Path("/out"))
    elif rest[:1] == ["on_slurm.py"]:
        assert parse_options(rest[1:]).estimator


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else []) for page in PAGES],
)
def test_the_commands_of_a_page_run(page: Path, tmp_path, cli, ibma_import, maker, describe_dataset, write_statmap):
    scripts = blocks(page)
    if not any(re.search(r"\bibma-|on_slurm", text) for text in scripts):
        pytest.skip("no commands of ours")
    folders = maker("page_folders")
    make = folders.Maker(tmp_path, maker, describe_dataset, write_statmap)
    folders.DATA.get(page.name, folders.DATA["cluster.md"])(make)
    noted = note_commands(page, tmp_path)
    programs = {"ibma-app": cli, "ibma-import": ibma_import, "ibma-publish": type(cli)(publish_main, tmp_path)}
    if page.name == "publishing.md":
        words = ("BIDS_DIR", "results", "group", "--estimator", "ols", "--inference", "fdr", "--no-report")
        assert cli(*words, cwd=tmp_path).code == 0
    assert sum(words[0] in OURS for words in noted) >= sum(map(count_commands, scripts))
    for words in noted:
        if "results-moderator" in words:
            _add_column(tmp_path / "maps" / "studies.tsv", "intensity", lambda row: str(40 + 7 * row))
        if "results-clusters" in words or "cluster" in words:
            _add_column(tmp_path / "maps" / "studies.tsv", "cluster", lambda row: f"sample{row // 2}")
        if _is_parsed(words):
            _parse(words)
        elif words[0] in programs:
            words = _fit(words, tmp_path, page.name) if words[0] == "ibma-app" else words
            ran = programs[words[0]](*words[1:], cwd=tmp_path)
            assert ran.code == 0, f"{shlex.join(words)}\n{ran.stderr}"
    for pattern in FILES.get(page.name, ()):
        assert list(tmp_path.glob(pattern)), f"{pattern}: no such file"


def _read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, dtype=np.float64)


def test_examples_of_compute_pool_and_smoothing_give_the_right_values(
    tmp_path, cli, maker, describe_dataset, write_statmap
):
    """The commands of docs/usage.md, word for word, on subjects with one map of each contrast."""
    folders = maker("page_folders")
    folders.DATA["usage.md"](folders.Maker(tmp_path, maker, describe_dataset, write_statmap))
    for path in (tmp_path / "BIDS_DIR").rglob("*_run-2_*"):
        path.unlink()
    for path in (tmp_path / "BIDS_DIR").rglob("*_run-1_*"):
        path.rename(path.with_name(path.name.replace("_run-1", "")))
    script = re.sub(r"\\\n", " ", "".join(blocks(ROOT / "docs" / "usage.md")))
    chosen = [shlex.split(line) for line in script.splitlines() if re.search("--(compute|pool|smoothing) ", line)]
    assert len(chosen) == 4
    for number, words in enumerate(chosen):
        words[2] += str(number)
        ran = cli(*_fit(words, tmp_path, "usage.md")[1:], cwd=tmp_path)
        assert ran.code == 0, ran.stderr

    def effects(contrast: str) -> np.ndarray:
        found = sorted((tmp_path / "BIDS_DIR").rglob(f"*contrast-{contrast}_stat-effect_statmap.nii.gz"))
        return np.array([_read(path) for path in found])

    def result(number: int, name: str) -> np.ndarray:
        (path,) = tmp_path.glob(f"*_DIR{number}/group/{name}_statmap.nii.gz")
        return _read(path)

    stem = f"task-x_space-{SPACE}_contrast"
    famous = (effects("iniff") + effects("imff")) / 2
    np.testing.assert_allclose(result(0, f"{stem}-famous_desc-ols_stat-effect"), famous.mean(axis=0), atol=1e-6)
    fading = effects("iniff") - effects("imff") - effects("iniuf") + effects("imuf")
    np.testing.assert_allclose(result(0, f"{stem}-fading_desc-ols_stat-effect"), fading.mean(axis=0), atol=1e-6)
    variance = fading.var(axis=0, ddof=1) / 8
    np.testing.assert_allclose(result(0, f"{stem}-fading_desc-ols_stat-variance"), variance, rtol=1e-5)

    assert (result(2, f"space-{SPACE}_desc-reml_stat-n") == 4).all()  # studies of three names are one analysis
    assert (result(3, f"space-{SPACE}_desc-reml_stat-n") == 3).all()

    from nilearn.image import smooth_img

    def smoothed(values: np.ndarray) -> np.ndarray:
        """By nilearn, in a box with room for the kernel: what is not covered is 0."""
        image = nib.Nifti1Image(np.pad(values, 5).astype(np.float32), np.diag([4.0, 4, 4, 1]))
        return smooth_img(image, 6).get_fdata()[5:-5, 5:-5, 5:-5]

    whole, covered = smoothed(effects("iniff").mean(axis=0)), smoothed(np.ones((4, 5, 3)))
    ours = result(1, f"{stem}-iniff_desc-ols_stat-effect")
    np.testing.assert_allclose(ours, whole / covered, rtol=1e-4, atol=1e-5)
    assert np.abs(whole).mean() < 0.8 * np.abs(ours).mean()  # what the page says of edges: all voxels here are near one


def question_rows() -> list[Any]:
    """List the rows of the table of questions in docs/usage.md: options that answer each."""
    text = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    table = text.partition("| question | options |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (?:`(.+?)`|\(none\)|.*?) \|$", table, re.M)
    return [pytest.param(options, id=question) for question, options in rows if not question.startswith("---")]


@pytest.fixture(scope="module")
def repeated(tmp_path_factory, maker, describe_dataset, write_statmap) -> Path:
    """Subjects with two sessions and three conditions each, in two groups; a table with three groups beside it."""
    make = maker("page_folders").Maker(tmp_path_factory.mktemp("questions"), maker, describe_dataset, write_statmap)
    root = describe_dataset(make.root / "maps")
    rows, three = ["participant_id\tage\tgroup"], ["participant_id\tgroup"]
    for sub in range(1, 13):
        rows.append(f"sub-{sub:02d}\t{20 + 3 * sub + sub % 3}\t{'patient' if sub % 2 else 'control'}")
        three.append(f"sub-{sub:02d}\t{'abc'[sub % 3]}")
        for session in "12":
            for contrast in "abc":
                names = {"sub": f"{sub:02d}", "ses": session, "task": "x", "space": SPACE, "contrast": contrast}
                make.write(root, "effect", make.rng.normal(0.6, 1, (4, 5, 3)), **names)
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    (make.root / "three.tsv").write_text("\n".join(three) + "\n")
    return root


@pytest.mark.parametrize("options", question_rows())
def test_the_table_of_questions_is_answered(options: str, repeated: Path, tmp_path, cli):
    words = shlex.split(options)
    words += ["--session-label", "1"] if "session" not in options else []
    words += ["--contrast", "a"] if "contrast" not in options else []
    words += ["--covariates", str(repeated.parent / "three.tsv")] if "[T.b]" in options else []
    ran = cli(repeated, tmp_path / "out", "group", *words, "--estimator", "ols", "--inference", "fdr", "--no-report")
    assert ran.code == 0, ran.stderr
    tests = re.findall(r"--test \"?(\w+)=", options)
    for test in tests:
        assert list((tmp_path / "out" / "group").glob(f"*_test-{test}_desc-ols_stat-z_*")), test
    assert tests or "--test" not in options
