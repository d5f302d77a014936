"""The run level by the command line: files, sidecars, chain, layouts."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture(scope="module")
def made(maker):
    return maker("runs_by_code")


@pytest.fixture(scope="module")
def study(made, tmp_path_factory) -> Path:
    """Two subjects with two runs each, 2 % of the first condition, go."""
    return made.make_study(tmp_path_factory.mktemp("study"), ("01", "02", "03"), ("1", "2"), effect=2.0)


@pytest.fixture(scope="module")
def output(study, cli) -> Path:
    out = study.parent / "out"
    ran = cli(study, out, "run", "-t", "x", "--contrasts", "d=go-stop", "mean=(go+stop)/2", "any=go, stop",
              "--confounds", "motion6", "--participant-label", "01", "02")  # fmt: skip
    assert ran.code == 0, ran.stderr
    return out


FUNC = Path("sub-01/func")
STEM = "sub-01_task-x_run-1_space-MNI152NLin2009cAsym"


def _map(out: Path, name: str) -> np.ndarray:
    return nib.load(out / FUNC / f"{STEM}_{name}_statmap.nii.gz").get_fdata()


def _sidecar(out: Path, name: str) -> dict:
    return json.loads((out / FUNC / f"{STEM}_{name}_statmap.json").read_text())


def test_files(output):
    names = {path.name.removeprefix(f"{STEM}_") for path in (output / FUNC).glob(f"{STEM}*.nii.gz")}
    wanted = {f"contrast-{c}_stat-{k}" for c in ("d", "mean") for k in ("effect", "variance", "t", "z", "p")}
    wanted |= {f"contrast-any_stat-{k}" for k in ("F", "z", "p")}
    wanted |= {f"stat-{k}" for k in ("mean", "rsquared", "rho", "residsd")}
    assert names == {f"{one}_statmap.nii.gz" for one in wanted}
    assert (output / FUNC / f"{STEM}_design.tsv").is_file()
    assert {path.name for path in output.glob("sub-*")} >= {"sub-01", "sub-02"}
    assert "sub-03" not in {path.name for path in output.glob("sub-*")}


def test_sidecars(output):
    found = _sidecar(output, "contrast-d_stat-effect")
    assert found["Units"] == "percent"
    assert found["UnitsSource"].startswith("100 × height ")
    assert found["RegressorHeight"] > 0
    assert found["ContrastWeights"] == {"go": 1.0, "stop": -1.0}
    assert found["RepetitionTime"] == 2.0
    assert (found["StartTime"], found["StartTimeSource"]) == (0.97, "StartTime of the BOLD's sidecar")
    assert found["HRF"] == "spm"
    assert found["NoiseModel"].startswith("AR(2)")
    assert found["HighPass"] == "the 3 cosines of the confounds table"
    assert found["Confounds"][:2] == ["trans_x", "trans_y"]
    assert found["ScrubbedVolumes"] == []
    assert found["LargestVIF"] >= 1
    assert found["Model"]["X"][:2] == ["go", "stop"]
    assert found["Model"]["X"][-1] == 1
    assert 20 < found["DegreesOfFreedom"] <= found["ResidualDegreesOfFreedom"] == 90 - 12
    assert found["Sources"][0].startswith("bids:fmriprep:sub-01/func/")
    assert found["Sources"][-1] == "bids:raw:sub-01/func/sub-01_task-x_run-1_events.tsv"
    assert _sidecar(output, "contrast-d_stat-variance")["Units"] == "(percent)^2"
    assert _sidecar(output, "contrast-any_stat-F")["Units"] == "1"
    links = json.loads((output / "dataset_description.json").read_text())["DatasetLinks"]
    assert set(links) == {"fmriprep", "raw"}


def test_maps_belong_together(output):
    effect, variance, t, z, p = (
        _map(output, f"contrast-d_stat-{kind}") for kind in ("effect", "variance", "t", "z", "p")
    )
    inside = effect != 0
    assert not inside[0].any()
    assert inside[1:].all()
    np.testing.assert_allclose(effect[inside] / np.sqrt(variance[inside]), t[inside], rtol=1e-5)
    assert (np.sign(z[inside]) == np.sign(t[inside])).all()
    assert (np.abs(z[inside]) <= np.abs(t[inside])).all()
    assert (p[~inside] == 1).all()
    assert effect[inside].mean() == pytest.approx(2.0, abs=0.3)
    assert _map(output, "contrast-mean_stat-effect")[inside].mean() == pytest.approx(1.0, abs=0.15)
    assert _map(output, "stat-mean")[inside].mean() == pytest.approx(1000, rel=0.02)
    assert _map(output, "stat-rho")[inside].mean() == pytest.approx(0.0, abs=0.03)
    assert _map(output, "stat-residsd")[inside].mean() == pytest.approx(10.0, rel=0.02)


def test_the_design_is_a_table_of_numbers(output):
    lines = (output / FUNC / f"{STEM}_design.tsv").read_text().splitlines()
    assert lines[0].split("\t")[:3] == ["go", "stop", "trans_x"]
    matrix = np.array([line.split("\t") for line in lines[1:]], dtype=float)
    assert matrix.shape == (90, 12)
    content = json.loads((output / FUNC / f"{STEM}_design.json").read_text())
    assert content["go"]["RegressorHeight"] > 0
    assert content["Contrasts"]["any"]["Test"] == "F"


def test_participant_and_group_follow_without_options(output, study, cli):
    ran = cli(study, output, "participant", "--no-report")
    assert ran.code == 0, ran.stderr
    readme = (output / "README.md").read_text()
    assert re.findall("<!-- part: (.*?) -->", readme) == ["run", "participant"]
    assert "The design had 6 confounds and as high-pass filter the 3 cosines" in readme
    assert "Using the maps of runs" in ran.stderr
    effect = nib.load(output / FUNC / "sub-01_task-x_space-MNI152NLin2009cAsym_contrast-d_stat-effect_statmap.nii.gz")
    assert effect.get_fdata()[1:].mean() == pytest.approx(2.0, abs=0.3)
    ran = cli(study, output, "group", "--no-report", "--inference", "fdr", "-d", study / "derivatives" / "fmriprep",
              "--contrast", "d")  # fmt: skip
    assert ran.code == 0, ran.stderr
    found = next((output / "group").glob("*contrast-d*stat-effect_statmap.json"))
    content = json.loads(found.read_text())
    assert content["Units"] == "percent"
    assert content["NumberOfMaps"] == 2


def test_dry_run_writes_nothing(study, cli, tmp_path):
    ran = cli(study, tmp_path / "none", "run", "--contrasts", "d=go-stop", "--dry-run")
    assert ran.code == 0, ran.stderr
    assert STEM in ran.stdout
    assert "+1 go; -1 stop" in ran.stdout
    assert re.search(
        f"{STEM} +│ …_events.tsv +│ …_desc-confounds_timeseries.tsv +│ …_desc-brain_mask.nii.gz", ran.stdout
    )
    assert not (tmp_path / "none").exists()


def test_the_same_run_gives_the_same_bytes(output, study, cli, tmp_path):
    ran = cli(study, tmp_path / "out", "run", "-d", study / "derivatives" / "fmriprep", "--contrasts", "d=go-stop",
              "--confounds", "motion6", "--participant-label", "01", "--mem", "500M", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    name = f"{STEM}_contrast-d_stat-variance_statmap.nii.gz"
    assert (tmp_path / "out" / FUNC / name).read_bytes() == (output / FUNC / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--contrasts", "d=go-halt"], 64, "The design has no column 'halt'. Its columns are: go, stop"),
        (["--contrasts", "d"], 64, "lacks a name"),
        (["--contrasts", "f=go-stop, stop-go"], 64, "its rows depend on each other"),
        (["--contrasts", "a-b=go", "a_b=stop"], 0, ""),
        (["--confounds", "motion12"], 65, "no column motion12. Did you mean motion"),
        (["--space", "T1w"], 18, "there are: MNI152NLin2009cAsym"),
        (["-t", "rest"], 18, "there are: x"),
        (["-t", "X"], 18, "(there are: x) Did you mean x?"),
        (["--participant-label", "1"], 18, "(there are: 01, 02, 03) Did you mean 01?"),
        (["--participant-label", "01", "2"], 0, "No selected run has sub-2 (there are: 01). Did you mean 02?"),
        (["--mask", "template"], 64, "not the run level's"),
    ],
)
def test_options_that_do_not_fit(study, cli, tmp_path, words, code, text):
    label = [] if "--participant-label" in words else ["--participant-label", "01"]
    ran = cli(study, tmp_path / "out", "run", *words, *label, "--no-report", *["--dry-run"][: code in (0, 64)])
    assert ran.code == code, ran.stderr
    assert text in ran.stderr


def test_settings(made, cli, tmp_path):
    study = made.make_study(tmp_path, runs=("1",))
    config = tmp_path / "run.toml"
    config.write_text(
        'contrasts = ["go=go"]\nconfounds = ["motion6"]\n[run]\nhrf = "glover + derivative"\nnoise = "ols"\n'
        'high_pass = 0.0\nscrub_fd = 0.18\ndrop_volumes = 2\nstart_time = 0.5\nunits = "none"\n'
    )
    ran = cli(study, tmp_path / "out", "run", "--config-file", config, "--no-report")
    assert ran.code == 0, ran.stderr
    found = _sidecar(tmp_path / "out", "contrast-go_stat-effect")
    assert found["HRF"] == "glover + derivative"
    assert found["NoiseModel"].startswith("independent")
    assert found["HighPass"] == "none"
    assert found["DroppedVolumes"] == 2
    assert min(found["ScrubbedVolumes"]) >= 2
    assert found["StartTimeSource"] == "the setting start_time"
    assert (found["Units"], found["UnitsSource"]) == ("unknown", "As the BOLD has them (units = none).")
    lines = (tmp_path / "out" / FUNC / f"{STEM}_design.tsv").read_text().splitlines()
    assert lines[0].split("\t")[:4] == ["go", "go_derivative", "stop", "stop_derivative"]
    assert len(lines) == 1 + 88


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('noise = "ar2"', "Did you mean ar? Choose from: ar, ar1, ols"),
        ("hihg_pass = 0.1", "has no 'hihg_pass'. Did you mean high_pass?"),
        ("drop_volumes = 1.5", "is not a whole number that drop_volumes can be"),
        ('residuals = "yes"', "is not true or false"),
        ("fir_delays = [1, 1]", "not a list of different whole numbers"),
    ],
)
def test_settings_that_cannot_be(study, cli, tmp_path, line, words):
    (tmp_path / "run.toml").write_text(f"[run]\n{line}\n")
    ran = cli(study, tmp_path / "out", "run", "--config-file", tmp_path / "run.toml", "--dry-run")
    assert ran.code == 64
    assert words in ran.stderr


def test_residuals_when_they_are_asked_for(made, cli, tmp_path):
    """y - X b in the units of the BOLD: what is explained lies in the design, whose contrast is the effect."""
    study = made.make_study(tmp_path, runs=("1",), n_volumes=70)
    config = tmp_path / "run.toml"
    config.write_text('contrasts = ["d=go-stop"]\nconfounds = ["motion6"]\n[run]\nresiduals = true\n'
                      'units = "none"\ndrop_volumes = 3\nscrub_fd = 0.2\n')  # fmt: skip
    words = ("run", "--config-file", config, "--no-report")
    ran = cli(study, tmp_path / "out", *words)
    assert ran.code == 0, ran.stderr
    path = tmp_path / "out" / FUNC / f"{STEM}_desc-residuals_bold.nii.gz"
    image, bold = nib.load(path), nib.load(next((study / "derivatives").rglob("*_desc-preproc_bold.nii.gz")))
    assert image.shape == (*bold.shape[:3], 67)
    assert image.header.get_zooms()[3] == 2.0
    left, series = image.get_fdata(), bold.get_fdata()[..., 3:]
    assert not left[0].any()  # outside of the mask
    lines = (tmp_path / "out" / FUNC / f"{STEM}_design.tsv").read_text().splitlines()
    matrix = np.array([line.split("\t") for line in lines[1:]], dtype=float)
    explained = (series - left)[1:].reshape(-1, 67).T
    b = np.linalg.lstsq(matrix, explained, rcond=None)[0]
    np.testing.assert_allclose(matrix @ b, explained, atol=2e-5 * 1000)  # single precision
    effect = _map(tmp_path / "out", "contrast-d_stat-effect")[1:].ravel()
    np.testing.assert_allclose(b[0] - b[1], effect, atol=1e-3)
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    scrubbed = [volume - 3 for volume in sidecar["ScrubbedVolumes"]]
    assert scrubbed
    # what the noise, which is white here, would be from its neighbours
    assert left[1:][..., scrubbed].std() < 0.6 * left[1:].std()
    assert (sidecar["StartTime"], sidecar["RepetitionTime"], sidecar["TaskName"]) == (0.97 + 3 * 2, 2.0, "x")
    again = cli(study, tmp_path / "tiny", *words, "--mem", "1M")
    assert again.code == 0, again.stderr
    assert (tmp_path / "tiny" / FUNC / path.name).read_bytes() == path.read_bytes()
    # they are no BOLD to be modelled
    assert "desc-residuals" not in cli(tmp_path / "out", tmp_path / "none", "run", "--dry-run", "-d", study).stdout
