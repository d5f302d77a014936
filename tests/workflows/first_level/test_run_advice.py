"""What messages of the run level advise is done, and works; words are parsed out of the messages."""

import copy
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

STEM = "sub-01_task-x_run-1"
SPACE = "MNI152NLin2009cAsym"


class Study:
    """A study of one short run: ``raw`` and ``fmriprep`` side by side, and what a case does to its files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model: dict = {}
        self.func = root / "fmriprep/sub-01/func"
        self.bold = self.func / f"{STEM}_space-{SPACE}_desc-preproc_bold.nii.gz"
        self.mask = self.func / f"{STEM}_space-{SPACE}_desc-brain_mask.nii.gz"
        self.events = root / f"raw/sub-01/func/{STEM}_events.tsv"
        self.confounds = self.func / f"{STEM}_desc-confounds_timeseries.tsv"

    def edit(self, path: Path, old: str, new: str, count: int = -1) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, count))

    def write_model(self, place: tuple = (), value: object = None) -> None:
        """Write m.json: the model of the study, one place of it changed."""
        model = copy.deepcopy(self.model)
        here = model
        for key in place[:-1]:
            here = here[key]
        if place:
            here[place[-1]] = value
        (self.root / "m.json").write_text(json.dumps(model))

    def write_events(self, *rows: str) -> None:
        self.events.write_text("\n".join(("onset\tduration\ttrial_type", *rows)) + "\n")

    def sidecar(self, **more: object) -> None:
        path = self.bold.with_name(self.bold.name.replace(".nii.gz", ".json"))
        content = json.loads(path.read_text()) | more
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    def copy(self, old: str, new: str) -> None:
        for path in list(self.func.glob(f"{STEM}_space-*")):
            if old in path.name:
                shutil.copy(path, path.with_name(path.name.replace(old, new)))

    def column(self, name: str, cells: list[str] | None) -> None:
        """Replace a column of the confounds, add it, or remove it (None)."""
        header, *rows = [line.split("\t") for line in self.confounds.read_text().splitlines()]
        place = header.index(name) if name in header else len(header)
        values = [[name], *([one] for one in cells)] if cells else [[]] * (len(rows) + 1)
        lines = [row[:place] + value + row[place + 1 :] for row, value in zip([header, *rows], values, strict=True)]
        self.confounds.write_text("\n".join("\t".join(line) for line in lines) + "\n")

    def moved_mask(self, distance: float) -> None:
        """Write a mask that lies so far (mm) beside the BOLD."""
        mask = nib.load(self.mask, mmap=False)
        nib.Nifti1Image(mask.get_fdata().astype(np.uint8), mask.affine + distance * np.eye(4, k=3)).to_filename(
            self.root / "m.nii.gz"
        )

    def image(self, path: Path, values: np.ndarray, tr: float | None = None) -> None:
        affine = nib.load(path, mmap=False).affine
        image = nib.Nifti1Image(values, affine)
        if tr is not None:
            image.header.set_xyzt_units("mm", "sec")
            image.header.set_zooms((4, 4, 4, tr))
        image.to_filename(path)


@dataclass(frozen=True)
class Case:
    """A command that is refused, or warns, and what follows from its message."""

    words: str
    code: int  # 0: a warning
    says: str  # a pattern in the message
    then: str | None = None  # the words that follow ({0}: a group of the pattern); None: they stay
    break_it: Callable[[Study], object] = lambda study: None
    mend: Callable[[Study], object] = lambda study: None
    bids: str = "raw"


GO, PLAIN = "--contrasts d=go-stop --confounds none", "--confounds none"
N = 48  # volumes
CASES: dict[str, Case] = {
    "a column that is none": Case(f"{PLAIN} --contrasts d=go-halt", 64, r"Its columns are: go, (stop)",
                                  f"{PLAIN} --contrasts d=go-{{0}}"),
    "a contrast without a name": Case(f"{PLAIN} --contrasts go-stop", 64, r"lacks a name.*\b(\w+)=EXPR",
                                      f"{PLAIN} --contrasts {{0}}=go-stop"),
    "rows that follow from each other": Case(f"{PLAIN} --contrasts f=go-stop,stop-go", 64,
                                             "Leave out those that follow", f"{PLAIN} --contrasts f=go-stop"),
    "weights that cancel": Case(f"{PLAIN} --contrasts z=go-go", 64, "all weights are zero", GO),
    "two contrasts of one label": Case(f"{PLAIN} --contrasts a_b=go 'a b=stop'", 64, "Rename one",
                                       f"{PLAIN} --contrasts a_b=go c=stop"),
    "a contrast without letters": Case(f"{PLAIN} --contrasts !=go", 64, "give it a name", f"{PLAIN} --contrasts go=go"),
    "several spaces": Case(GO, 16, r"Name one: (--space \w+)", GO + " {0}",
                           lambda s: s.copy(SPACE, "T1w")),
    "two images of one run": Case(
        GO, 16, r'where FILE holds \{"bold": \{"desc": "preproc"\}\}', GO + " --bids-filter-file f.json",
        lambda s: s.copy("_desc-preproc", ""),
        lambda s: (s.root / "f.json").write_text('{"bold": {"desc": "preproc"}}'),
    ),
    "two images of one run, one without run-": Case(
        GO, 16, r'where FILE holds \{"bold": \{"run": "1"\}\}', GO + " --bids-filter-file f.json",
        lambda s: s.copy("_run-1_", "_"), lambda s: (s.root / "f.json").write_text('{"bold": {"run": "1"}}'),
    ),
    "a single echo": Case(
        GO, 16, r'choose one by --bids-filter-file: (\{"bold": \{"echo": "2"\}\})', GO + " --bids-filter-file f.json",
        lambda s: (s.copy("_space", "_echo-2_space"), s.bold.unlink()),
        lambda s: (s.root / "f.json").write_text('{"bold": {"echo": "2"}}'),
    ),
    "a mask of other levels": Case(f"{GO} --mask template", 64, "or leave it out", GO),
    "a mask that is not there": Case(f"{GO} --mask m.nii.gz", 66, r"m\.nii\.gz: there is no such file",
                                     f"{GO} --mask fmriprep/sub-01/func/{STEM}_space-{SPACE}_desc-brain_mask.nii.gz"),
    "a mask on another grid": Case(
        f"{GO} --mask m.nii.gz", 65, "Give the mask of the same space and resolution", GO,
        lambda s: nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)).to_filename(s.root / "m.nii.gz"),
    ),
    "a mask half a mm off": Case(
        f"{GO} --mask m.nii.gz", 65, r"its voxels lie up to 0\.5 mm from there", GO,
        lambda s: s.moved_mask(0.5),
    ),
    "an empty mask": Case(GO, 65, "the mask is empty.*by --mask", f"{GO} --mask m.nii.gz",
                          lambda s: (shutil.copy(s.mask, s.root / "m.nii.gz"),
                                     s.image(s.mask, np.zeros(nib.load(s.mask).shape, np.uint8)))),
    "no events beside the BOLD": Case(GO, 65, r"give the raw dataset as BIDS_DIR.* -d (\S+)", GO + " -d {0}",
                                      bids="fmriprep"),
    "no confounds beside the BOLD": Case("--contrasts d=go-stop --confounds motion6", 65, "Say (--confounds none)",
                                         "--contrasts d=go-stop {0}", lambda s: s.confounds.unlink()),
    "a misspelt confound": Case("--contrasts d=go --confounds motion12", 65, r"Did you mean (\w+)",
                                "--contrasts d=go --confounds {0}"),
    "a strategy whose columns are not there": Case(
        "--contrasts d=go --confounds simple", 65, r"Choose another strategy \((\w+)",
        "--contrasts d=go --confounds {0}", lambda s: s.column("csf", None),
    ),
    "compcor of an unknown mask": Case(
        "--contrasts d=go --confounds compcor", 65, r"Name columns instead, e\.g\. '(.*?)'",
        "--contrasts d=go --confounds '{0}'", lambda s: s.confounds.with_suffix(".json").unlink(),
    ),
    "scrubbing without displacement": Case(
        "--contrasts d=go --confounds scrubbing", 65, "Leave scrubbing out",
        "--contrasts d=go --confounds simple", lambda s: s.column("framewise_displacement", None),
    ),
    "a confound without numbers": Case(
        "--contrasts d=go --confounds motion6 flat", 65, "Leave it out of --confounds",
        "--contrasts d=go --confounds motion6", lambda s: s.column("flat", ["n/a"] * N),
    ),
    "a confound with a gap": Case(
        "--contrasts d=go --confounds motion6 gap", 65, "or complete it", None,
        lambda s: s.column("gap", [*"1234", "n/a", *"5" * (N - 5)]),
        lambda s: s.column("gap", [*"12345", *"6" * (N - 5)]),
    ),
    "columns that depend": Case(
        "--contrasts d=go --confounds motion6 again", 65, "leave out one of these columns",
        "--contrasts d=go --confounds motion6",
        lambda s: s.column("again", [line.split("\t")[0] for line in s.confounds.read_text().splitlines()[1:]]),
    ),
    "no degrees of freedom": Case(
        "--contrasts d=go --confounds motion24 compcor 'x*'", 65, "Use fewer confounds",
        "--contrasts d=go --confounds motion6",
        lambda s: [s.column(f"x{k}", [f"{v:.4f}" for v in np.random.default_rng(k).normal(size=N)]) for k in range(20)],
    ),
    "a condition called like a confound": Case(
        "--contrasts d=go --confounds motion6", 65, "Rename the condition", None,
        lambda s: s.edit(s.events, "stop", "trans_x"), lambda s: s.edit(s.events, "trans_x", "stop"),
    ),
    "a TR in ms": Case(GO, 65, "it is in seconds.* Correct the sidecar", None, lambda s: s.sidecar(RepetitionTime=2000),
                       lambda s: s.sidecar(RepetitionTime=2)),
    "no TR": Case(
        GO, 65, r'Add \{"RepetitionTime": seconds\} to its JSON', None,
        lambda s: (s.sidecar(RepetitionTime=None), s.image(s.bold, nib.load(s.bold).get_fdata(dtype=np.float32))),
        lambda s: s.sidecar(RepetitionTime=2),
    ),
    "two TR": Case(GO, 65, "Correct the one that is wrong", None, lambda s: s.sidecar(RepetitionTime=2.5),
                   lambda s: s.sidecar(RepetitionTime=2)),
    "a start that is none": Case(GO, 65, "StartTime.*it is in seconds", None, lambda s: s.sidecar(StartTime="mid"),
                                 lambda s: s.sidecar(StartTime=1)),
    "too few volumes": Case(f"{GO} --config-file c.toml", 65, "drop_volumes", None,
                            lambda s: (s.root / "c.toml").write_text(f"[run]\ndrop_volumes = {N - 1}\n"),
                            lambda s: (s.root / "c.toml").write_text("[run]\ndrop_volumes = 1\n")),
    "a setting of another name": Case(f"{GO} --config-file c.toml", 64, r"Did you mean (high_pass)", None,
                                      lambda s: (s.root / "c.toml").write_text("[run]\nhighpass = 0.01\n"),
                                      lambda s: (s.root / "c.toml").write_text("[run]\nhigh_pass = 0.01\n")),
    "a truncated series": Case(GO, 74, "is truncated.* (Copy|Download)", None,
                               lambda s: (shutil.copy(s.bold, s.root / "b"), os.truncate(s.bold, 9000)),
                               lambda s: shutil.copy(s.root / "b", s.bold)),
    "an onset in words": Case(GO, 65, r"line \d: onset is .*give a number.*, or leave the event out", None,
                              lambda s: s.edit(s.events, "\n4", "\nfour 4", 1),
                              lambda s: s.edit(s.events, "\nfour 4", "\n4")),
    "a duration that is missing": Case(GO, 65, r"give a number \((0) for events without", None,
                                       lambda s: s.write_events("4\tn/a\tgo", "20\t1\tstop"),
                                       lambda s: s.edit(s.events, "n/a", "0")),
    "a negative duration": Case(GO, 65, "line 2: an event of go has a negative duration.* or leave the event out", None,
                                lambda s: s.write_events("4\t-1\tgo", "20\t1\tstop"),
                                lambda s: s.edit(s.events, "-1", "1")),
    "events with commas": Case(GO, 65, "Tabs separate cells", None, lambda s: s.edit(s.events, "\t", ","),
                               lambda s: s.edit(s.events, ",", "\t")),
    "a row that is short": Case(GO, 65, "line 3: 2 cells.*Tabs separate cells", None,
                                lambda s: s.write_events("4\t1\tgo", "20\t1 stop"),
                                lambda s: s.edit(s.events, "1 stop", "1\tstop")),
    "events of another name": Case(
        GO, 65, "there is no column onset.*Rename", None, lambda s: s.edit(s.events, "onset", "Onset"),
        lambda s: s.edit(s.events, "Onset", "onset"),
    ),
    "confounds of another run": Case(
        "--contrasts d=go --confounds motion6", 65, r"remove the table and say (--confounds none)",
        "--contrasts d=go {0}",
        lambda s: s.confounds.write_text("\n".join(s.confounds.read_text().splitlines()[:-2]) + "\n"),
        lambda s: s.confounds.unlink(),
    ),
    "a task that is not there": Case(f"{GO} -t rest", 18, r"task-rest \(there are: (\w+)", GO + " -t {0}"),
    "options of other levels": Case(f"{GO} --formula '1 + age'", 0, "does not use these options.*--formula", GO),
    "a model and contrasts": Case("-m m.json --contrasts d=go", 64, "or leave --contrasts out", "-m m.json",
                                  lambda s: s.write_model()),
    "a model with a misspelt column": Case(
        "-m m.json", 65, r"Model\.X\[2\]: there is no column tran_x\. Did you mean trans_x\?", None,
        lambda s: s.write_model(("Nodes", 0, "Model", "X"), [1, "trial_type.*", "tran_x"]),
        lambda s: s.write_model(("Nodes", 0, "Model", "X"), [1, "trial_type.*", "trans_x"]),
    ),
    "a node of another name": Case("-m m.json --node run", 64, r"no such Run node; it has: (\w+)\.",
                                   "-m m.json --node {0}", lambda s: s.write_model()),
    "a model that convolves words": Case(
        "-m m.json", 65, "trial_type is text .* Make columns of its values first, with Factor", None,
        lambda s: s.write_model(("Nodes", 0, "Transformations", "Instructions"),
                                [{"Name": "Convolve", "Model": "spm", "Input": ["trial_type"]}]),
        lambda s: s.write_model(),
    ),
    "a model, and an onset in words": Case(
        "-m m.json", 65, r"line 2: onset is 'soon'; give a number", None,
        lambda s: (s.write_model(), s.write_events("soon\t1\tgo", "20\t1\tstop")),
        lambda s: s.edit(s.events, "soon", "4"),
    ),
    "a model, and an event without duration": Case(
        "-m m.json", 65, r"give a number \((0): no duration\)", None,
        lambda s: (s.write_model(), s.write_events("4\tn/a\tgo", "20\t1\tstop")),
        lambda s: s.edit(s.events, "n/a", "0"),
    ),
    "a model of other subjects": Case(
        "-m m.json --participant-label 01", 64, r"01 is not among the images of the model .*subject (\w+)",
        "-m m.json --participant-label 01", lambda s: s.write_model(("Input", "subject"), ["02"]),
        lambda s: s.write_model(("Input", "subject"), ["01", "02"]),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory, maker) -> Path:
    """Make the study once; cases work on copies."""
    root, made = tmp_path_factory.mktemp("study"), maker("runs_by_code")
    raw = made.describe(root / "raw", "raw")
    fmriprep = made.describe(root / "fmriprep", "derivative", GeneratedBy=[{"Name": "fMRIPrep"}])
    made.write_run(raw, fmriprep, n_volumes=N, text=made.events_text(6))
    return root


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_message_advises_works(case: Case, template, tmp_path, cli, maker):
    root = tmp_path / "s"
    shutil.copytree(template, root)
    study = Study(root)
    study.model = maker("run_inputs").go_stop_model(maker("flanker_model").FLANKER)
    case.break_it(study)

    def run(bids, words):
        data = () if bids == "fmriprep" or " -d " in words else ("-d", "fmriprep")
        return cli(bids, "out", "run", *data, *shlex.split(words), "--no-report", cwd=root)

    first = run(case.bids, case.words)
    assert first.code == case.code, first.stderr
    found = re.search(case.says, first.stderr)
    assert found, f"the message does not say {case.says!r}:\n{first.stderr}"
    if case.code:
        assert not list(root.glob("out/**/*_statmap.nii.gz"))
    case.mend(study)
    then = case.words if case.then is None else case.then.format(*found.groups())
    after = run("raw", then)
    assert after.code == 0, f"{then}\n{after.stderr}"
    assert not re.search(case.says, after.stderr)
    assert list(root.glob(f"out/sub-01/func/{STEM}_*stat-z_statmap.nii.gz"))


def test_a_mask_a_hair_off_is_used(template, tmp_path, cli):
    """0.02 mm of voxels of 4 mm: the same bytes as with the mask itself."""
    shutil.copytree(template, tmp_path / "s")
    study, found = Study(tmp_path / "s"), []
    study.moved_mask(0.02)
    for mask in ("auto", "m.nii.gz"):
        words = ("-d", "fmriprep", *shlex.split(GO), "--mask", mask, "--no-report")
        ran = cli("raw", f"out-{mask}", "run", *words, cwd=study.root)
        assert ran.code == 0, ran.stderr
        (path,) = study.root.glob(f"out-{mask}/sub-01/func/*stat-effect_statmap.nii.gz")
        found.append(path.read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["s" + "x" * 280, "\u9762\u5b54 " * 90, "a > b, " * 40])
def test_conditions_of_any_length_and_script(name, template, tmp_path, cli):
    """Maps and pictures have one label, which fits into a file's name."""
    shutil.copytree(template, tmp_path / "s")
    study, out = Study(tmp_path / "s"), tmp_path / "out"
    study.edit(study.events, "\tstop", f"\t{name.strip()}")
    ran = cli("raw", out, "run", "-d", "fmriprep", "--confounds", "none", cwd=study.root)
    assert ran.code == 0, ran.stderr
    maps = {path.name.partition("contrast-")[2].partition("_")[0] for path in out.rglob("*stat-effect_statmap.nii.gz")}
    pictures = {path.name.partition("contrast-")[2].partition("_")[0] for path in out.rglob("*stat-effect*.svg")}
    assert len(maps) == 2
    assert pictures == maps
