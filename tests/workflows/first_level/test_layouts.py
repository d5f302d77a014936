"""Layouts of fMRIPrep's output, by the command line: which files belong to a run, and how results are called."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

T = 48
SPACE = "MNI152NLin2009cAsym"


class Layout:
    """A raw dataset with fMRIPrep's output below it, made file by file."""

    def __init__(self, made, cli, root: Path) -> None:
        self.made, self.cli, self.out = made, cli, root / "out"
        self.raw = made.describe(root / "raw", "raw")
        self.fmriprep = made.describe(self.raw / "derivatives" / "fmriprep", "derivative")

    def add(self, sub: str = "01", **how) -> Path:
        how = {"n_volumes": T, "text": self.made.events_text(6), **how}
        return self.made.write_run(self.raw, self.fmriprep, sub, **how)

    def run(self, *words, code: int = 0, level: str = "run", confounds: tuple[str, ...] = ("motion6",)):
        more = ("--contrasts", "d=go-stop", "--confounds", *confounds) if level == "run" else ()
        ran = self.cli(self.raw, self.out, level, *more, *words, "--no-report")
        assert ran.code == code, ran.stderr
        return ran

    def found(self, kind: str = "effect") -> list[str]:
        """The maps that were written, by the names of their folders and runs."""
        return sorted(
            path.relative_to(self.out).as_posix().removesuffix(f"_contrast-d_stat-{kind}_statmap.nii.gz")
            for path in self.out.rglob(f"sub-*/**/*_contrast-d_stat-{kind}_statmap.nii.gz")
        )

    def sidecar(self, name: str) -> dict:
        return json.loads((self.out / f"{name}_contrast-d_stat-effect_statmap.json").read_text())


@pytest.fixture
def layout(maker, cli, tmp_path) -> Layout:
    return Layout(maker("runs_by_code"), cli, tmp_path)


def rename(folder: Path, old: str, new: str, *, copy: bool = False) -> None:
    """Rename (or copy) the files whose names have a part."""
    for path in sorted(folder.rglob(f"*{old}*")):
        target = path.with_name(path.name.replace(old, new))
        shutil.copy(path, target) if copy else path.rename(target)


def test_sessions_beside_none(layout):
    layout.add("01", ses="a", run=None)
    layout.add("01", ses="b", run=None, seed=1)
    layout.add("02", run=None)
    layout.run()
    names = [f"sub-01/ses-{s}/func/sub-01_ses-{s}_task-x_run-1_space-{SPACE}" for s in "ab"]
    assert layout.found() == [*names, f"sub-02/func/sub-02_task-x_run-1_space-{SPACE}"]
    sources = layout.sidecar(names[1])["Sources"]
    assert len(sources) == 4
    assert all("ses-b" in source for source in sources)
    layout.run(level="participant")
    assert f"sub-01/ses-a/func/sub-01_ses-a_task-x_space-{SPACE}" in layout.found()
    layout.run("--combine", "run", "session", level="participant")
    assert f"sub-01/func/sub-01_task-x_space-{SPACE}" in layout.found()
    plan = layout.run("--session-label", "b", "--dry-run").stdout
    assert "ses-b" in plan
    assert "ses-a" not in plan
    assert "sub-02" not in plan


def test_several_spaces_and_what_is_no_volume(layout):
    layout.add()
    func = layout.fmriprep / "sub-01" / "func"
    rename(func, f"_space-{SPACE}", "_space-T1w", copy=True)
    rename(func, f"_space-{SPACE}", "", copy=True)  # native
    preproc = next(func.glob(f"*space-{SPACE}_desc-preproc_bold.nii.gz"))
    for name in ("hemi-L_space-fsaverage_bold.func.gii", "space-fsLR_den-91k_bold.dtseries.nii"):
        shutil.copy(preproc, func / f"sub-01_task-x_run-1_{name}")
    for name in (f"space-{SPACE}_boldref", "desc-hmc_boldref", "desc-coreg_boldref"):
        shutil.copy(next(func.glob("*brain_mask.nii.gz")), func / f"sub-01_task-x_run-1_{name}.nii.gz")
    ran = layout.run(code=16)
    assert f"several spaces: {SPACE}, T1w, native. Name one: --space {SPACE}" in ran.stderr
    layout.run("--space", "T1w")
    assert layout.found() == ["sub-01/func/sub-01_task-x_run-1_space-T1w"]
    sources = layout.sidecar(layout.found()[0])["Sources"]
    assert sources[1].endswith("_space-T1w_desc-brain_mask.nii.gz")
    query = layout.out.with_name("native.json")
    query.write_text('{"bold": {"space": null}}')
    layout.run("--bids-filter-file", query)
    assert layout.found()[0] == "sub-01/func/sub-01_task-x_run-1"


@pytest.mark.parametrize("extra", ["_res-2", "_cohort-3"])
def test_resolutions_and_cohorts(layout, extra):
    space = f"MNIPediatricAsym{extra}" if "cohort" in extra else f"{SPACE}{extra}"
    layout.add(space=space)
    rename(layout.fmriprep, extra, extra[:-1] + "1", copy=True)
    layout.run()
    one, two = layout.found()
    assert (one, two) == tuple(
        f"sub-01/func/sub-01_task-x_run-1_space-{space[: -len(extra)]}{extra[:-1]}{number}" for number in (1, extra[-1])
    )
    for name, number in ((one, "1"), (two, extra[-1])):
        assert extra[:-1] + number in layout.sidecar(name)["Sources"][1]  # the mask
    key = extra.strip("_").partition("-")[0]
    query = layout.out.with_name("query.json")
    query.write_text(json.dumps({"bold": {key: "1"}}))
    shutil.rmtree(layout.out)
    layout.run("--bids-filter-file", query)
    assert layout.found() == [one]
    layout.run(level="participant")
    assert one.replace("_run-1", "") in layout.found()


def test_magnitude_and_phase(layout):
    layout.add()
    rename(layout.fmriprep, "_run-1_", "_run-1_part-mag_")
    rename(layout.fmriprep, "part-mag_space", "part-phase_space", copy=True)
    layout.run()
    assert layout.found() == [f"sub-01/func/sub-01_task-x_run-1_space-{SPACE}"]
    assert "part-mag" in layout.sidecar(layout.found()[0])["Sources"][0]


def test_echoes_beside_what_combines_them(layout):
    layout.add()
    for echo in "123":
        rename(layout.fmriprep, f"_run-1_space-{SPACE}_desc-preproc", f"_run-1_echo-{echo}_desc-preproc", copy=True)
    layout.run()
    assert layout.found() == [f"sub-01/func/sub-01_task-x_run-1_space-{SPACE}"]
    query = layout.out.with_name("echo.json")
    query.write_text('{"bold": {"echo": "2"}}')
    layout.run("--bids-filter-file", query, confounds=("none",))
    assert "sub-01/func/sub-01_task-x_run-1_echo-2" in layout.found()


def test_masks_of_several_volumes(layout):
    layout.add()
    path = next(layout.fmriprep.rglob("*brain_mask.nii.gz"))
    image = nib.load(path)
    mask = np.repeat(np.asarray(image.dataobj)[..., None], 3, axis=3)
    mask[1, :, :, 2] = 0
    nib.Nifti1Image(mask, image.affine).to_filename(path)
    layout.run()
    effect = nib.load(next(layout.out.rglob("*stat-effect_statmap.nii.gz"))).get_fdata()
    assert not effect[:2].any()
    assert effect[2:].all()


def test_events_of_another_spelling_or_above(layout):
    layout.add(run="1")
    layout.add(run="2", text="")
    layout.add("02", run="1", text="")
    func = layout.raw / "sub-01" / "func"
    rename(func, "run-1", "run-01")
    late = layout.made.events_text(6, seed=4)
    (layout.raw / "task-x_events.tsv").write_text(late)
    (layout.raw / "sub-01" / "sub-01_task-x_run-02_events.tsv").write_text(late.replace("go", "gone"))
    ran = layout.run(code=1)
    # the nearest table counts: the second run's conditions are others, and the contrast is its own to lack
    assert "run-2_space-MNI152NLin2009cAsym has none of the contrasts (d: the run has no events of go)" in ran.stderr
    assert [layout.sidecar(name)["Sources"][-1] for name in layout.found()] == [
        "bids:raw:sub-01/func/sub-01_task-x_run-01_events.tsv",
        "bids:raw:task-x_events.tsv",
    ]


def test_repetition_time_of_the_raw_datasets_root(layout):
    bold = layout.add()
    sidecar = bold.with_name(bold.name.replace(".nii.gz", ".json"))
    sidecar.write_text('{"SliceTimingCorrected": false}')
    image = nib.load(bold)
    image.header.set_zooms((4, 4, 4, 0))
    nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine, image.header).to_filename(bold)
    (layout.raw / "task-x_bold.json").write_text('{"RepetitionTime": 1.6, "TaskName": "x", "StartTime": 9}')
    layout.run()
    found = layout.sidecar(layout.found()[0])
    assert (found["RepetitionTime"], found["StartTime"]) == (1.6, 0.0)


OLD = {
    "trans_x": "X", "trans_y": "Y", "trans_z": "Z", "rot_x": "RotX", "rot_y": "RotY", "rot_z": "RotZ",
    "csf": "CSF", "white_matter": "WhiteMatter", "global_signal": "GlobalSignal", "std_dvars": "stdDVARS",
    "framewise_displacement": "FramewiseDisplacement", "cosine00": "Cosine00", "cosine01": "Cosine01",
    "cosine02": "Cosine02", "a_comp_cor_00": "aCompCor00", "a_comp_cor_01": "aCompCor01",
}  # fmt: skip


@pytest.mark.parametrize("era", ["regressors", "without expansions", "camel case"])
def test_confounds_of_older_versions(layout, era):
    """Designs are the same: what old tables lack follows from what they have, and old names are known."""
    layout.add()
    layout.run(confounds=("motion24", "csf", "a_comp_cor_0[01]"))
    name = layout.found()[0]
    new = (layout.out / f"{name}_design.tsv").read_text()
    table = next(layout.fmriprep.rglob("*_desc-confounds_timeseries.tsv"))
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    columns = dict(zip(lines[0], zip(*lines[1:], strict=True), strict=True))
    if era != "regressors":
        columns = {key: cells for key, cells in columns.items() if key in OLD}
    if era == "camel case":
        columns = {OLD[key]: cells for key, cells in columns.items()}
    rows = ["\t".join(row) for row in zip(*columns.values(), strict=True)]
    table.unlink()
    old = table.with_name(table.name.replace("timeseries", "regressors"))
    old.write_text("\n".join(["\t".join(columns), *rows]) + "\n")
    ran = layout.run(confounds=("motion24", "csf", "a_comp_cor_0[01]"))
    again = (layout.out / f"{name}_design.tsv").read_text()
    assert again.splitlines()[0] == new.splitlines()[0]
    ours, theirs = (np.array([line.split("\t") for line in text.splitlines()[1:]], float) for text in (again, new))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    assert ("are made of" in ran.stderr) == (era != "regressors")


def test_rest_beside_tasks(layout):
    layout.add()
    layout.add(task="rest", text="")
    ran = layout.run()
    assert "None of the 1 run(s) of task-rest has events: they are left out (-t rest insists)." in ran.stderr
    assert layout.found() == [f"sub-01/func/sub-01_task-x_run-1_space-{SPACE}"]
    assert "no events.tsv of this run was found" in layout.run("-t", "rest", code=65).stderr
    layout.add(task="other", text=layout.made.events_text(6, conditions=("a", "b")))
    words = "of task other: The design has no column 'go'. Its columns are: a, b. There are 2 tasks: choose by -t."
    assert words in layout.run(code=64).stderr
    layout.run("-t", "x")
