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

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OURS = ("ibma-app", "ibma-import", "ibma-demo")
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


# ---- the data that the pages speak of


class Maker:
    """Makes the folders that the pages speak of, in one folder."""

    def __init__(self, root: Path, maker: Any, describe: Any, write: Any) -> None:
        self.root, self.maker, self.describe, self.write = root, maker, describe, write
        self.rng = np.random.default_rng(12)

    def subjects(self, below: str, *, contrasts: tuple[str, ...], runs: bool, n: int = 8, task: str = "x") -> Path:
        """A dataset of first-level maps with participants.tsv."""
        root = self.describe(self.root / below)
        rows = ["participant_id\tage\tgroup"]
        for sub in range(1, n + 1):
            rows.append(f"sub-{sub:02d}\t{20 + 3 * sub + sub % 3}\t{'patient' if sub % 2 else 'control'}")
            for run in ("1", "2") if runs else ("",):
                for contrast in contrasts:
                    names = {"sub": f"{sub:02d}", "task": task, "space": SPACE, "contrast": contrast}
                    names |= {"run": run} if run else {}
                    self.pair(root, names, sidecar={"DegreesOfFreedom": 60})
        (root / "participants.tsv").write_text("\n".join(rows) + "\n")
        return root

    def pair(self, root: Path, names: dict[str, str], sidecar: dict[str, Any]) -> None:
        """Effect and variance of one map, within the brain."""
        self.write(root, "effect", self.rng.normal(0.6, 1, (4, 5, 3)), metadata=sidecar, **names)
        self.write(root, "variance", self.rng.uniform(0.2, 0.6, (4, 5, 3)), metadata=sidecar, **names)

    def studies(self, below: str, n: int = 6) -> Path:
        """A collection of studies."""
        root = self.describe(self.root / below)
        rows = ["study_id\tsample_size"]
        for number in range(n):
            rows.append(f"s{number}\t{15 + 2 * number}")
            names = {"study": f"s{number}", "space": SPACE, "contrast": "pain"}
            self.pair(root, names, {"DegreesOfFreedom": 14 + 2 * number, "Units": "percent"})
        (root / "studies.tsv").write_text("\n".join(rows) + "\n")
        return root

    def group_results(self, **folders: tuple[str, ...]) -> None:
        """Group results of SPM, FSL, AFNI and NIDM-Results at the paths where a page has them."""
        groups = self.maker("group_folders")
        for software, paths in folders.items():
            for number, path in enumerate(paths):
                variance = 0.05 + 0.05 * self.rng.random(groups.SHAPE)
                truth = groups.Truth(self.rng.normal(0.5, 0.4, groups.SHAPE), variance, 15 + number)
                aside = self.root / ".made" / f"{software}{number}"
                aside.parent.mkdir(exist_ok=True)
                made = getattr(groups, f"write_{software}")(self.maker, aside, truth)
                final = self.root / path
                final.parent.mkdir(parents=True, exist_ok=True)
                (aside if software == "afni" else made).rename(final)

    def afni_nifti(self, below: str) -> None:
        """A NIfTI file of AFNI: labels and statistics stand in an extension of the header."""
        attributes = (
            ("BRICK_LABS", "String", '"SetA_mean~SetA_Tstat"'),
            ("BRICK_STATAUX", "float", "1 3 1 22"),
            ("TEMPLATE_SPACE", "String", '"MNI"'),
        )
        text = "".join(
            f'<AFNI_atr ni_type="{kind}" ni_dimen="1" atr_name="{name}">{value}</AFNI_atr>'
            for name, kind, value in attributes
        )
        image = nib.Nifti1Image(self.rng.normal(0.5, 1, (4, 5, 3, 1, 2)).astype(np.float32), np.diag([4.0, 4, 4, 1]))
        image.set_sform(image.affine, 4)
        xml = f"<?xml version='1.0' ?>\n<AFNI_attributes>{text}</AFNI_attributes>\n"
        image.header.extensions.append(nib.nifti1.Nifti1Extension(4, xml.encode()))
        image.to_filename(self.root / below)

    def feat(self, below: str) -> None:
        """A first-level FEAT folder."""
        make = self.maker("feat_folder")
        values = {"faces": (self.rng.normal(10, 5, groups_shape()), np.full(groups_shape(), 4.0))}
        make.make_feat(self.root / below, {"faces": [1.0]}, values, heights=(1.0,), dof=100)

    def spm_first_level(self, below: str) -> None:
        """A first-level folder of SPM."""
        folder = self.root / below
        folder.mkdir(parents=True)
        self.maker("spm_folder").make_first_level(folder)

    def table(self, names: tuple[str, ...], sizes: int = 16) -> None:
        """maps.tsv with effect and standard error of each study."""
        rows = ["study_id\tpath\tkind\tcontrast\tsample_size\tdof"]
        affine = np.diag([4.0, 4, 4, 1])
        affine[:3, 3] = -6
        for name in names:
            for kind, values in (("effect", self.rng.normal(0.6, 1, (4, 5, 3))), ("se", np.full((4, 5, 3), 0.7))):
                nib.Nifti1Image(values.astype(np.float32), affine).to_filename(self.root / f"{name}_{kind}.nii.gz")
                rows.append(f"{name}\t{name}_{kind}.nii.gz\t{kind}\tpain > rest\t{sizes}\t{sizes - 1}")
        (self.root / "maps.tsv").write_text("\n".join(rows) + "\n")


def groups_shape() -> tuple[int, int, int]:
    """Of a small FEAT folder."""
    return (4, 5, 3)


def _readme(make: Maker) -> None:
    make.subjects("BIDS_DIR", contrasts=("a",), runs=True)
    make.studies("STUDIES_DIR")
    make.feat("sub-01_run-1.feat")
    make.group_results(spm=("pain/second_level",))


def _usage(make: Maker) -> None:
    conditions = {"iniff": ("famous", 1), "iniuf": ("unfamiliar", 1), "imff": ("famous", 2), "imuf": ("unfamiliar", 2)}
    make.subjects("BIDS_DIR", contrasts=tuple(conditions), runs=True)
    rows = ["participant_id\tcontrast\tstimulus\trepetition\trt"]
    for sub in range(1, 9):
        for number, (contrast, (stimulus, repetition)) in enumerate(conditions.items()):
            rows.append(f"sub-{sub:02d}\t{contrast}\t{stimulus}\t{repetition}\t{0.5 + 0.01 * sub + 0.02 * number}")
    (make.root / "conditions.tsv").write_text("\n".join(rows) + "\n")
    make.studies("studies")
    published = make.describe(make.root / "published")
    for study, contrast in (("a", "painGtRest"), ("b", "heatGtWarm"), ("c", "painGtRest"), ("d", "laserGtTouch")):
        names = {"study": study, "space": SPACE, "contrast": contrast}
        make.pair(published, names, {"DegreesOfFreedom": 18, "Units": "percent"})


def _lab(make: Maker) -> None:
    make.subjects("derivatives/nilearn", contrasts=("facesgthouses",), runs=True, task="faces")


def _meta_analysis(make: Maker) -> None:
    make.group_results(
        spm=("spm/diaz2017", "spm/lee2021", "spm/smith2019"),
        fsl=("fsl/kim2018.gfeat", "fsl/rossi2020.gfeat"),
        afni=("afni/jones2016",),
        nidm=("nidm/patel2022.nidm.zip",),
    )


def _importing(make: Maker) -> None:
    make.group_results(
        spm=("spm/a2017", "spm/b2021"), fsl=("fsl/c2018.gfeat",), afni=("afni/d2016",), nidm=("nidm/e2022.nidm.zip",)
    )


def _pain21(make: Maker) -> None:
    make.table(tuple(f"pain{number:02d}" for number in range(1, 22)))


def _nidm(make: Maker) -> None:
    make.group_results(nidm=("spm_example.nidm.zip", "two_contrasts.nidm.zip"))


def _cluster(make: Maker) -> None:
    make.subjects("BIDS_DIR", contrasts=("a",), runs=True, n=2)


DATA: dict[str, Callable[[Maker], None]] = {
    "README.md": _readme,
    "usage.md": _usage,
    "quickstart-lab.md": _lab,
    "quickstart-meta-analysis.md": _meta_analysis,
    "importing.md": _importing,
    "importing-afni.md": lambda make: make.afni_nifti("saccade.I_C.MNI.nii.gz"),
    "importing-fsl.md": lambda make: make.feat("sub-01.feat"),
    "importing-neurovault.md": lambda make: None,
    "importing-nidm.md": _nidm,
    "importing-spm.md": lambda make: make.spm_first_level("sub-01_spm"),
    "importing-table.md": lambda make: make.table(("pain04", "pain05", "pain06")),
    "pain21.md": _pain21,
    "cluster.md": _cluster,
    "gallery.md": lambda make: None,
    "index.md": lambda make: None,
}
"""What each page's commands are run on."""

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
    "importing.md": ("results/group/*desc-stoufferRfx_stat-z_*", "results/group/*desc-reml_stat-tau2_*"),
    "pain21.md": ("results-g/group/*desc-ols_stat-effect_*", "results-12/group/*desc-stouffer_stat-z_*"),
}
"""Some of what must be there afterwards."""

SLOW = ("quickstart-meta-analysis.md", "importing.md", "pain21.md")


def test_every_page_with_commands_is_run():
    assert {page.name for page in WITH_COMMANDS} <= DATA.keys()
    assert len(WITH_COMMANDS) >= 14


def _fit(words: Words, folder: Path, page: str) -> Words:
    """Fit a command to small data: few relabellings, no pages; the folder of a run has the run's name."""
    if "RUN" in " ".join(words):
        newest = max((folder / "OUTPUT_DIR" / "logs").glob("*_group_*"), key=lambda path: path.stat().st_mtime_ns)
        words = [word.replace("RUN", newest.name) for word in words]
    more = [] if "--dry-run" in words else ["--no-report", "--nprocs", "1"]
    return [*words, *more, *([] if "--permutations" in words else ["--permutations", "40"])]


def _add_intensity(table: Path) -> None:
    """Add the column that docs/quickstart-meta-analysis.md asks the reader to add."""
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{head}\tintensity", *(f"{row}\t{40 + 7 * k}" for k, row in enumerate(rows))]) + "\n")


def _is_parsed(words: Words) -> bool:
    return words[0] in PARSED or " ".join(words[:2]) in PARSED


def _parse(words: Words) -> None:
    """Parse what is not run, by the program's own parser."""
    from ibma_app.workflows.options.parse import parse_demo, parse_options
    from ibma_app.workflows.options.parse_import import parse_import

    program, *rest = words
    if program == "ibma-demo":
        assert parse_demo(rest)[0].name
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
    DATA.get(page.name, _cluster)(Maker(tmp_path, maker, describe_dataset, write_statmap))
    noted = note_commands(page, tmp_path)
    assert sum(words[0] in OURS for words in noted) >= sum(map(count_commands, scripts))
    for words in noted:
        if "results-moderator" in words:
            _add_intensity(tmp_path / "maps" / "studies.tsv")
        if _is_parsed(words):
            _parse(words)
        elif words[0] in ("ibma-app", "ibma-import"):
            words = _fit(words, tmp_path, page.name) if words[0] == "ibma-app" else words
            ran = (cli if words[0] == "ibma-app" else ibma_import)(*words[1:], cwd=tmp_path)
            assert ran.code == 0, f"{shlex.join(words)}\n{ran.stderr}"
    for pattern in FILES.get(page.name, ()):
        assert list(tmp_path.glob(pattern)), f"{pattern}: no such file"


def _read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, dtype=np.float64)


def test_examples_of_compute_pool_and_smoothing_give_the_right_values(
    tmp_path, cli, maker, describe_dataset, write_statmap
):
    """The commands of docs/usage.md, word for word, on subjects with one map of each contrast."""
    make = Maker(tmp_path, maker, describe_dataset, write_statmap)
    _usage(make)
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
    make = Maker(tmp_path_factory.mktemp("questions"), maker, describe_dataset, write_statmap)
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
