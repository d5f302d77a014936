"""Hostile runs by the command line: each gives the right thing or the right words, and the others are done."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

T = 48
GOOD, CONTRASTS = "01", ("--contrasts", "d=go-stop", "go=go")


class Run:
    """The files of one run."""

    def __init__(self, raw: Path, bold: Path) -> None:
        self.bold = bold
        self.mask = bold.with_name(bold.name.replace("preproc_bold", "brain_mask"))
        stem = bold.name.partition("_space")[0]
        self.confounds = bold.with_name(f"{stem}_desc-confounds_timeseries.tsv")
        self.events = raw / bold.parent.parent.name / "func" / f"{stem}_events.tsv"

    def series(self, change, dtype=np.float32) -> None:
        image = nib.load(self.bold)
        values = np.asanyarray(image.dataobj).astype(np.float32)
        header = image.header.copy()
        header.set_data_dtype(dtype)
        nib.Nifti1Image(change(values), image.affine, header).to_filename(self.bold)

    def late(self) -> None:
        lines = self.events.read_text().splitlines()
        self.events.write_text("\n".join([lines[0], *(f"9{line}" for line in lines[1:])]) + "\n")

    def empty_confound(self) -> None:
        header, *rows = [line.split("\t") for line in self.confounds.read_text().splitlines()]
        place = header.index("trans_x")
        for row in rows:
            row[place] = "n/a"
        self.confounds.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n")

    def no_repetition_time(self) -> None:
        sidecar = self.bold.with_name(self.bold.name.replace(".nii.gz", ".json"))
        content = json.loads(sidecar.read_text())
        del content["RepetitionTime"]
        sidecar.write_text(json.dumps(content))
        image = nib.load(self.bold)
        nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine).to_filename(self.bold)

    def scaled(self) -> None:
        """int16 with a slope and an intercept, as some scanners' BOLD has."""
        image = nib.load(self.bold)
        header = image.header.copy()
        header.set_data_dtype(np.int16)
        stored = np.rint((image.get_fdata() - 900) / 0.02)
        made = nib.Nifti1Image(stored.astype(np.int16), image.affine, header)
        made.header.set_slope_inter(0.02, 900)
        made.to_filename(self.bold)

    def other_grid(self) -> None:
        nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)).to_filename(self.mask)

    def flat(self) -> None:
        def change(values):
            values[3] = 500.0
            values[4, 0, 0, 7] = np.nan
            return values

        self.series(change)


HOSTILE = {
    "events after the end": (Run.late, 65, "has none of the contrasts (d: the run has no events of go"),
    "a confound without numbers": (Run.empty_confound, 65, "the column trans_x has no number at all. Leave it out of"),
    "no table of events": (lambda run: run.events.unlink(), 65, "no events.tsv of this run was found"),
    "a table without events": (lambda run: run.events.write_text("onset\tduration\ttrial_type\n"), 65,
                               "it has no events, only a header"),
    "no repetition time": (Run.no_repetition_time, 65, "no sidecar states RepetitionTime"),
    "truncated BOLD": (lambda run: os.truncate(run.bold, 9000), 74, "is truncated"),
    "no image at all": (lambda run: run.bold.write_bytes(b"<html>"), 74, "is not a NIfTI or Analyze image"),
    "a mask of another grid": (Run.other_grid, 65, "are not on one grid"),
    "one volume": (lambda run: run.series(lambda values: values[..., :1]), 65, "has 1 volume(s)"),
    "three axes": (lambda run: run.series(lambda values: values[..., 0]), 65, "has 1 volume(s)"),
    "no voxel varies": (lambda run: run.series(lambda values: 0 * values + 7), 65, "no voxel of the mask varies"),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(maker, tmp_path_factory) -> Path:
    """A good run, a subject for each hostile one, and one that lacks a condition."""
    made, root = maker("runs_by_code"), tmp_path_factory.mktemp("hostile")
    raw, fmriprep = made.describe(root / "raw", "raw"), made.describe(root / "raw/derivatives/fmriprep", "derivative")
    for number, (change, *_) in enumerate([(lambda run: None,), *HOSTILE.values()], start=1):
        text = made.events_text(6, seed=number)
        change(Run(raw, made.write_run(raw, fmriprep, f"{number:02d}", run=None, n_volumes=T, text=text)))
    return raw


def _run(cli, data: Path, out: Path, *words):
    return cli(data, out, "run", *CONTRASTS, "--confounds", "motion6", "--no-report", *words)


def _files(out: Path, sub: str) -> list[str]:
    return [path.name for path in out.rglob(f"*sub-{sub}*") if path.is_file() and "logs" not in path.parts]


def test_the_others_are_done_and_nothing_is_half_written(data, cli, tmp_path):
    ran = _run(cli, data, tmp_path / "out", "-v")
    assert ran.code == 1
    assert len(_files(tmp_path / "out", GOOD)) == 2 * (2 * 5 + 4) + 2
    for number, (_, _, words) in enumerate(HOSTILE.values(), start=2):
        assert words in ran.stderr
        assert _files(tmp_path / "out", f"{number:02d}") == []
    assert f"{len(HOSTILE)} of {len(HOSTILE) + 1} runs failed" in ran.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == [".bidsignore"]
    participants = (tmp_path / "out" / "participants.tsv").read_text().split()
    assert participants == ["participant_id", f"sub-{GOOD}"]


@pytest.mark.parametrize("number", range(2, len(HOSTILE) + 2), ids=HOSTILE)
def test_its_code_when_it_is_alone(data, cli, tmp_path, number):
    _, code, words = list(HOSTILE.values())[number - 2]
    ran = _run(cli, data, tmp_path / "out", "--participant-label", f"{number:02d}")
    assert ran.code == code, ran.stderr
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list((tmp_path / "out").rglob("*_statmap.*"))


@pytest.fixture
def one(maker, tmp_path) -> tuple[Path, Run]:
    """A good run of its own."""
    made, raw = maker("runs_by_code"), tmp_path / "raw"
    made.describe(raw, "raw")
    fmriprep = made.describe(raw / "derivatives/fmriprep", "derivative")
    bold = made.write_run(raw, fmriprep, n_volumes=T, text=made.events_text(6))
    return raw, Run(raw, bold)


def _map(out: Path, name: str) -> np.ndarray:
    return nib.load(next(out.rglob(f"*{name}_statmap.nii.gz"))).get_fdata()


def test_integers_with_a_slope_are_what_they_stand_for(one, cli, tmp_path):
    raw, run = one
    assert _run(cli, raw, tmp_path / "floats").code == 0
    run.scaled()
    assert _run(cli, raw, tmp_path / "integers").code == 0
    for name in ("contrast-d_stat-effect", "contrast-d_stat-variance", "stat-mean", "stat-residsd"):
        exact, found = (_map(tmp_path / kind, name) for kind in ("floats", "integers"))
        # rounding of at most .01 in noise of 10
        np.testing.assert_allclose(found, exact, rtol=5e-3, atol=1e-3 * np.abs(exact).max())


def test_voxels_that_do_not_vary_are_left_out_and_told(one, cli, tmp_path):
    raw, run = one
    run.flat()
    ran = _run(cli, raw, tmp_path / "out")
    assert ran.code == 0
    lost = 7 * 5 + 1
    assert f"{lost} of {5 * 7 * 5} voxels do not vary, or are not finite, and are left out" in ran.stderr
    effect, p = _map(tmp_path / "out", "contrast-d_stat-effect"), _map(tmp_path / "out", "contrast-d_stat-p")
    assert not effect[3].any()
    assert (p[3] == 1).all()
    assert effect[4, 0, 0] == 0
    assert np.count_nonzero(effect) == 5 * 7 * 5 - lost


def test_a_condition_that_a_run_lacks(one, cli, tmp_path):
    """Its other contrasts are made, and it says what it lacks; some events after the end are told."""
    raw, run = one
    lines = run.events.read_text().splitlines()
    (raw / "task-x_events.tsv").write_text("\n".join(lines) + "\n")
    run.events.write_text("\n".join([lines[0], *(line for line in lines if "go" in line), "400\t1\tgo"]) + "\n")
    fmriprep = raw / "derivatives" / "fmriprep"
    for path in list(fmriprep.rglob("*run-1*")):
        path.with_name(path.name.replace("run-1", "run-2")).write_bytes(path.read_bytes())
    ran = _run(cli, raw, tmp_path / "out")
    assert ran.code == 0, ran.stderr
    assert "contrast d is missing: the run has no events of stop" in ran.stderr
    assert "1 event(s) begin after the last volume" in ran.stderr
    names = {path.name.partition("task-x_")[2] for path in (tmp_path / "out").rglob("*stat-effect_statmap.nii.gz")}
    space = "space-MNI152NLin2009cAsym"
    assert names == {
        f"run-{run}_{space}_contrast-{contrast}_stat-effect_statmap.nii.gz"
        for run, contrast in (("1", "go"), ("2", "d"), ("2", "go"))
    }
    design = json.loads(next((tmp_path / "out").rglob("*run-1*_design.json")).read_text())
    assert design["MissingContrasts"] == {"d": "the run has no events of stop"}


def test_a_condition_that_a_lone_participant_lacks(one, maker, cli, tmp_path):
    """A warning, as others have it or nobody else is there; a name that nobody has among several is refused."""
    raw, run = one
    lines = run.events.read_text().splitlines()
    run.events.write_text("\n".join([lines[0], *(line for line in lines if "go" in line)]) + "\n")
    alone = ("--participant-label", "01", "--confounds", "motion6", "--no-report")
    text = "no run that is selected has events of 'stop' (there are: go). They lack this contrast."
    for others in (False, True):
        out = tmp_path / f"out{others}"
        ran = cli(raw, out, "run", *CONTRASTS, *alone)
        assert ran.code == 0, ran.stderr
        assert f"--contrasts 'd=go-stop': {text}" in ran.stderr
        assert "contrast d is missing: the run has no events of stop" in ran.stderr
        assert [path.name.partition("contrast-")[2][:2] for path in out.rglob("*stat-z_statmap.nii.gz")] == ["go"]
        made = maker("runs_by_code")
        made.write_run(raw, raw / "derivatives/fmriprep", "02", n_volumes=T, text=made.events_text(6))
    ran = cli(raw, tmp_path / "none", "run", "--contrasts", "d=go-halt", *alone, "--dry-run")
    assert ran.code == 64
    assert "The design has no column 'halt'. Its columns are: go, stop" in ran.stderr
    ran = cli(raw, tmp_path / "none", "run", "--contrasts", "d=go-(stop+go)/2", *alone, "--dry-run")
    assert ran.code == 0, ran.stderr
    assert "+0.5 go; -0.5 stop" in ran.stdout
