"""Messages that advise an option: what they say is done, and works."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

MNI = "MNI152NLin6Asym"
QUICK = ("--no-report", "--nprocs", "1", "--permutations", "30")


class Dataset:
    """A dataset of tiny maps, made map by map."""

    def __init__(self, root: Path, describe: Callable[..., Path], write: Callable[..., Path]) -> None:
        self.root, self.write = describe(root), write
        self.rng = np.random.default_rng(9)

    def add(
        self, *kinds: str, units: str = "", n: int = 0, dof: int = 0, shape: tuple = (4, 4, 3), **names: str
    ) -> None:
        sidecar = {"Units": units, "SampleSize": n, "DegreesOfFreedom": dof}
        for kind in kinds:
            values = self.rng.uniform(0.3, 0.6, shape) if kind == "variance" else self.rng.normal(0.7, 1, shape)
            told = {key: value for key, value in sidecar.items() if value}
            self.write(self.root, kind, values, metadata=told, **names)

    def subjects(self, *kinds: str, n: int = 6, **how: Any) -> None:
        for number in range(1, n + 1):
            self.add(*kinds, sub=f"{number:02d}", **{"space": "T1w", "contrast": "a", **how})

    def studies(self, *kinds: str, n: int = 5, **how: Any) -> None:
        for number in range(1, n + 1):
            self.add(*kinds, study=f"s{number}", **{"space": MNI, "contrast": "a", **how})

    def table(self, *columns: str) -> None:
        rows = ["\t".join(("participant_id", *columns))]
        for number in range(1, 7):
            cells = {"age": str(20 + 3 * number + number % 2), "group": "ab"[number % 2]}
            rows.append("\t".join((f"sub-{number:02d}", *(cells[column] for column in columns))))
        (self.root / "participants.tsv").write_text("\n".join(rows) + "\n")


@dataclass(frozen=True)
class Case:
    """A command that meets a message, and what is added to (or replaces) it, as the message says."""

    make: Callable[[Dataset], None]
    words: str
    advice: str  # must stand in the message; its group, or all of it, are the words that are added
    code: int = 0  # 0: a warning, which must be gone afterwards
    instead: str = ""  # words that the advice replaces
    also: str = ""  # what a reader adds who knows the data


def _scattered(d: Dataset) -> None:
    for study, contrast in (("a", "pain"), ("b", "heat"), ("c", "laser")):
        d.add("effect", "variance", study=study, space=MNI, contrast=contrast, units="percent")


def _spaces(d: Dataset) -> None:
    d.subjects("effect")
    d.subjects("effect", space=MNI)


def _units(d: Dataset) -> None:
    for number in range(1, 6):
        d.add("effect", "variance", study=f"s{number}", space=MNI, contrast="a", n=20, dof=19,
              units="percent" if number % 2 else "arbitrary")  # fmt: skip


def _lone_effects(d: Dataset) -> None:
    for number in range(1, 6):
        d.add("effect", study=f"s{number}", space=MNI, contrast="a", units="percent" if number % 2 else "a.u.")


def _mixture(d: Dataset) -> None:
    for number in range(1, 6):
        d.add("effect" if number == 2 else "t", study=f"s{number}", space=MNI, contrast="a", n=20, dof=19)


def _grids(d: Dataset) -> None:
    d.subjects("effect", n=4, space=MNI)
    for sub in ("05", "06"):
        d.add("effect", sub=sub, space=MNI, contrast="a", shape=(5, 4, 3))


def _half_covered(d: Dataset) -> None:
    d.subjects("effect", n=5)
    values = d.rng.normal(1, 1, (4, 4, 3))
    values[:2] = 0
    d.write(d.root, "effect", values, sub="06", space="T1w", contrast="a")
    values = d.rng.normal(1, 1, (4, 4, 3))
    values[2:] = 0
    d.write(d.root, "effect", values, sub="07", space="T1w", contrast="a")


def _sessions(d: Dataset) -> None:
    for session in "12":
        d.subjects("effect", "variance", ses=session, dof=40)
    d.table("age")


def _directions(d: Dataset) -> None:
    for direction in ("LR", "RL"):
        d.subjects("effect", "variance", dir=direction, dof=40)


def _acquisitions(d: Dataset) -> None:
    d.subjects("effect")
    for number in (7, 8, 9):
        d.add("effect", sub=f"{number:02d}", space="T1w", contrast="a", acq="fast")


def _with_table(d: Dataset) -> None:
    d.subjects("effect", "variance")
    d.table("age", "group")


CASES: dict[str, Case] = {
    "each study has a contrast of its own": Case(_scattered, "group", "--pool contrast", 16),
    "several spaces: choose one": Case(_spaces, "group", "--space", 16, also=MNI),
    "units differ: one's word": Case(_units, "group --estimator reml", "--units assume-same", 65),
    "units differ: standardised": Case(_units, "group --estimator reml", "--units hedges-g", 65),
    "units differ: the Z family": Case(
        _units, "group --estimator reml", r"\((--estimator [\w-]+)\)", 65, instead="--estimator reml"
    ),
    "units differ, effects alone": Case(_lone_effects, "group", "--units assume-same", 65),
    "units differ, effects alone, by name": Case(_lone_effects, "group --estimator ols", "--units assume-same", 65),
    "effects of some, t of others": Case(_mixture, "group", r"--exclude-study-label s2", 65),
    "no variance": Case(
        lambda d: d.subjects("effect"), "group --estimator reml", r"or use (--estimator \w+)", 65,
        instead="--estimator reml",
    ),
    "no sample size": Case(
        lambda d: d.studies("z"), "group --estimator stouffer-weighted", r"or use (--estimator \w+)", 65,
        instead="--estimator stouffer-weighted",
    ),
    "no effect": Case(
        lambda d: d.studies("z"), "group --estimator ols", r"\((--estimator [\w-]+)\)", 65, instead="--estimator ols"
    ),
    "other grids: of a map": Case(_grids, "group", r"e\.g\. (--grid \S+)\)", 16),
    "other grids: the template's": Case(_grids, "group", "--grid mni2mm", 16),
    "no voxel is covered": Case(_half_covered, "group", "lower (--min-coverage)", 65, also="0.8"),
    "one map of each run": Case(
        lambda d: d.subjects("effect", "variance", run="1", dof=40), "group",
        r"ibma-app BIDS_DIR OUTPUT_DIR participant", 16,
    ),
    "two sessions: combine them": Case(
        _sessions, "group --pool session", r"ibma-app BIDS_DIR OUTPUT_DIR participant --combine run ses", 16
    ),
    "two sessions: a variable": Case(
        _sessions, "group --pool session", "name what tells them apart in (--formula)", 16, instead="--pool session",
        also="'1 + session + C(participant_id)' --test later=session[T.2]",
    ),
    "a column for each subject": Case(
        _sessions, "group --formula '1 + session + C(participant_id)'", "(--test) NAME=EXPR", 65,
        also="later=session[T.2]",
    ),
    "directions are repetitions": Case(_directions, "participant", "--combine run dir", 0),
    "split by acquisition": Case(_acquisitions, "group", "--pool acquisition|--pool acq", 0),
    "dof unknown": Case(lambda d: d.subjects("effect", "variance", n=3), "participant", "--dof", 0, also="40"),
    "an intercept beside an age": Case(
        _with_table, "group --estimator ols --formula '1 + age'", r"Use (center\(age\)) in --formula", 0,
        instead="'1 + age'", also="--test mean=intercept",
    ),
    "an estimator without designs": Case(
        lambda d: (d.subjects("z"), d.table("group"))[0], "group --estimator stouffer --formula '1 + C(group)'",
        r"With designs use .*?(stouffer-rfx)", 64, instead="stouffer",
    ),
    "smoothing beside variances": Case(
        _with_table, "group --estimator reml --smoothing 6", r"--smoothing is for --estimator (\w+)", 64, instead="reml"
    ),
    "random fields without residuals": Case(
        lambda d: d.studies("z"), "group --estimator stouffer --inference rft-voxel",
        r"another inference \(\w+, (\w+)", 64, instead="rft-voxel",
    ),
    "a lenient cluster-forming p": Case(
        lambda d: d.subjects("effect", n=12), "group --estimator ols --inference rft-cluster --cluster-p 0.01",
        r"Use (--cluster-p \S+),", 0, instead="--cluster-p 0.01",
    ),
    "a test without a name": Case(_with_table, "group --estimator ols --formula '1 + age' --test age",
                                r"write --test (NAME)=EXPRESSION", 64, instead="--test age", also=""),
    "too little memory": Case(
        lambda d: d.subjects("effect", n=3, shape=(60, 60, 50)), "group --estimator ols --mem 1M", r"(--mem \d+M)", 64,
        instead="--mem 1M",
    ),
}  # fmt: skip


def _follow(case: Case, words: list[str], message: str, cli: Callable, where: tuple[Path, Path]) -> list[str]:
    """Do what a message says: run another command first, or change this one."""
    found = re.search(case.advice, message)
    assert found, f"the message does not say {case.advice!r}:\n{message}"
    said = (found[1] if found.groups() else found[0]).rstrip(".,")
    if said.startswith("ibma-app BIDS_DIR OUTPUT_DIR"):
        ran = cli(*where, *shlex.split(said)[3:], *QUICK[:3])
        assert ran.code == 0, ran.stderr
        return [word for word in words if word not in ("--pool", "session")]
    added = [*shlex.split(said), *shlex.split(case.also)]
    if not case.instead:
        return [*words, *added]
    gone = shlex.split(case.instead)
    at = next(k for k in range(len(words)) if words[k : k + len(gone)] == gone)
    if gone[0].startswith("--") and not added[0].startswith("--"):
        added = [gone[0], *added]
    if said == "NAME":
        added = ["--test", "old=age"]
    if "(" in said and not said.startswith("--"):
        added = [f"1 + {said}", *shlex.split(case.also)]
    return [*words[:at], *added, *words[at + len(gone) :]]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_message_advises_works(case: Case, tmp_path, cli, describe_dataset, write_statmap):
    root = tmp_path / "in"
    case.make(Dataset(root, describe_dataset, write_statmap))
    words = shlex.split(case.words)
    first = cli(root, tmp_path / "out", *words, *QUICK)
    assert first.code == case.code, first.stderr
    if case.code:
        assert not list((tmp_path / "out").glob("group/*"))
    changed = _follow(case, words, first.stderr, cli, (root, tmp_path / "out"))
    then = cli(root, tmp_path / "out", *changed, *QUICK)
    assert then.code == 0, f"{shlex.join(changed)}\n{then.stderr}"
    assert not re.search(case.advice, then.stderr) or "Use --cluster" in first.stderr
    assert list((tmp_path / "out").rglob("*_stat-z_statmap.nii.gz"))


def test_studies_beside_participants_get_an_output_of_their_own(tmp_path, cli, describe_dataset, write_statmap):
    subjects = Dataset(tmp_path / "subjects", describe_dataset, write_statmap)
    subjects.subjects("effect", "variance", dof=40)
    out = tmp_path / "out"
    assert cli(subjects.root, out, "participant", *QUICK).code == 0
    studies = Dataset(tmp_path / "studies", describe_dataset, write_statmap)
    studies.studies("z", n=4)
    ran = cli(studies.root, out, "group", *QUICK)
    assert ran.code == 16
    assert f"{studies.root} holds studies, but OUTPUT_DIR {out} holds participant maps" in ran.stderr
    ran = cli(studies.root, tmp_path / "own", "group", *QUICK)  # the advice
    assert ran.code == 0, ran.stderr
    assert list((tmp_path / "own").glob("group/*desc-stouffer_stat-z_*"))


@pytest.mark.parametrize("told_by", ["desc", "space", "task"])
def test_two_maps_of_one_study(told_by, tmp_path, cli, describe_dataset, write_statmap):
    """Each advice of the message is followed: one kept by a filter file, or what tells them apart."""
    data = Dataset(tmp_path / "in", describe_dataset, write_statmap)
    labels = {"desc": ("one", "two"), "space": (MNI, "MNI152NLin2009cAsym"), "task": ("x", "y")}[told_by]
    for number in range(1, 6):
        for label in labels:
            names = {"study": f"s{number}", "space": MNI, "contrast": "a", told_by: label}
            data.add("effect", "variance", units="percent", **names)
    ran = cli(data.root, tmp_path / "out", "group", *QUICK)
    assert ran.code == 16
    query = re.search(r"--bids-filter-file FILE, where FILE holds (\{.*?\}\})", ran.stderr)
    assert query, ran.stderr
    (tmp_path / "filter.json").write_text(json.dumps(json.loads(query[1])))
    then = cli(data.root, tmp_path / "kept", "group", "--bids-filter-file", tmp_path / "filter.json", *QUICK)
    assert then.code == 0, then.stderr
    (n,) = (tmp_path / "kept").rglob("*_stat-n_statmap.nii.gz")
    assert nib.load(n).get_fdata().max() == 5
    modelled = re.search(r"in --formula \(repeated measures\): (--formula .+? --estimator \w+)[.]", ran.stderr)
    assert bool(modelled) == (told_by == "task"), ran.stderr
    if modelled:
        then = cli(data.root, tmp_path / "modelled", "group", *shlex.split(modelled[1]), *QUICK)
        assert then.code == 0, then.stderr
        (n,) = (tmp_path / "modelled").rglob("*_stat-n_statmap.nii.gz")
        assert nib.load(n).get_fdata().max() == 10


def test_a_plan_shows_sizes_and_degrees_of_freedom(tmp_path, cli, describe_dataset, write_statmap):
    data = Dataset(tmp_path / "in", describe_dataset, write_statmap)
    for study in ("s1", "s2"):
        data.add("t", study=study, space=MNI, contrast="a", n=20)
    data.add("t", study="s9", space=MNI, contrast="a")
    rows = [row.split("│")[1:-1] for row in cli(data.root, tmp_path / "o", "group", "--dry-run").stdout.splitlines()]
    shown = {cells[1].strip(): (cells[3].strip(), cells[4].strip()) for cells in rows if len(cells) == 7}
    assert shown == {"study-s1_contrast-a": ("20", "19"), "study-s2_contrast-a": ("20", "19"),
                     "study-s9_contrast-a": ("unknown", "unknown")}  # fmt: skip


def test_what_fails_alike_is_told_once(tmp_path, cli, describe_dataset, write_statmap):
    data = Dataset(tmp_path / "in", describe_dataset, write_statmap)
    _sessions(data)
    ran = cli(data.root, tmp_path / "o", "group", "--formula", "1 + iq", "--dry-run")
    assert ran.code == 65
    assert "ses-1_space-T1w_contrast-a, ses-2_space-T1w_contrast-a failed: The formula names 'iq'" in ran.stderr
    assert ran.stderr.count("Columns to choose from: age") == 1
