"""What a dataset says of itself, and the BIDS validator's word on all that we write."""

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from ibma_app.core.errors import OutputError, UsageError
from ibma_app.core.grid import Grid
from ibma_app.core.statmap import Dataset
from ibma_app.dataset.description import (
    IGNORED,
    write_bidsignore,
    write_citation,
    write_description,
    write_readme,
)
from ibma_app.dataset.output_dir import open_output
from ibma_app.dataset.write import save_json, save_statmap, save_text, save_tsv

NILEARN = {"Name": "nilearn", "Version": "0.13.1"}


@pytest.fixture
def output(tmp_path):
    with open_output(tmp_path / "out") as output:
        yield output


def make_input(tmp_path, name="in put", **description):
    (tmp_path / name).mkdir(exist_ok=True)
    return Dataset(name.replace(" ", "-"), tmp_path / name, {"GeneratedBy": [NILEARN], **description})


def test_description(output, tmp_path):
    dataset = make_input(tmp_path, License="CC0", Authors=["A", "B"], DatasetDOI="doi:10.1/x")
    content = json.loads(write_description(output, "1.0", [dataset]).read_text())
    assert content["DatasetType"] == "derivative"
    assert (content["License"], content["Authors"]) == ("CC0", ["A", "B"])
    assert content["GeneratedBy"] == [{"Name": "ibma-app", "Version": "1.0"}, NILEARN]
    assert content["DatasetLinks"] == {"in-put": "../in%20put"}
    assert content["SourceDatasets"] == [{"URL": "../in%20put", "DOI": "doi:10.1/x"}]


def test_second_run_extends_and_keeps_what_users_wrote(output, tmp_path):
    path = write_description(output, "1.0", [make_input(tmp_path)])
    before = path.read_bytes()
    assert write_description(output, "1.0", [make_input(tmp_path)]).read_bytes() == before
    content = json.loads(before)
    assert len(content["Authors"]) == 2
    path.write_text(json.dumps({**content, "Name": "Mine", "Funding": ["x"]}))
    own = Dataset("", output.root, content)
    write_description(output, "1.1", [own, make_input(tmp_path, "other")])
    after = json.loads(path.read_text())
    assert (after["Name"], after["Funding"]) == ("Mine", ["x"])
    assert after["GeneratedBy"] == [{"Name": "ibma-app", "Version": "1.1"}, NILEARN]
    assert list(after["DatasetLinks"]) == ["in-put", "other"]
    for there in ("in put", "other"):
        (tmp_path / there / "dataset_description.json").write_text(json.dumps({"Name": there}))
    with pytest.raises(UsageError, match="--derivatives NAME="):
        write_description(output, "1.1", [Dataset("other", tmp_path / "in put", {"Name": "in put"})])


def test_a_dataset_may_move(output, tmp_path):
    write_description(output, "1.0", [make_input(tmp_path)])
    (tmp_path / "in put").rename(tmp_path / "moved")
    path = write_description(output, "1.0", [Dataset("in-put", tmp_path / "moved", {"GeneratedBy": [NILEARN]})])
    assert json.loads(path.read_text())["DatasetLinks"] == {"in-put": "../moved"}


def test_licences_that_differ(output, tmp_path):
    datasets = [make_input(tmp_path, name, License=text) for name, text in (("a", "CC0"), ("b", "PDDL"))]
    content = json.loads(write_description(output, "1.0", datasets).read_text())
    assert content["License"] == "As the source datasets: a: CC0; b: PDDL"


@pytest.mark.parametrize("text", ['{"Name": "Another", "GeneratedBy": [{"Name": "fmriprep"}]}', "{", "[]"])
def test_other_datasets_are_not_touched(output, tmp_path, text):
    path = output.root / "dataset_description.json"
    path.write_text(text)
    with pytest.raises(OutputError, match="OUTPUT_DIR"):
        write_description(output, "1.0", [make_input(tmp_path)])
    assert path.read_text() == text


def test_bidsignore_keeps_the_users_lines(output):
    (output.root / ".bidsignore").write_text("mine\nlogs/\n")
    lines = write_bidsignore(output).read_text().splitlines()
    assert lines[:2] == ["mine", "logs/"]
    assert sorted(lines) == sorted({"mine", *IGNORED})
    assert write_bidsignore(output).read_text().splitlines() == lines


def test_readme_of_the_user_stays(output):
    write_readme(output, "intro", {"a": "one", "b": "two"})
    text = write_readme(output, "intro", {"b": "three"}).read_text()
    assert text.startswith("intro\n")
    assert "one" in text, "the part of an analysis that did not run again stays"
    assert "three" in text
    assert "two" not in text
    (output.root / "CITATION.md").write_text("mine")
    assert write_citation(output, "intro", {"a": "ours"}).read_text() == "mine"


def find_validator():
    beside = Path(sysconfig.get_path("scripts")) / "bids-validator-deno"
    return str(beside) if beside.exists() else shutil.which("bids-validator-deno")


def fill(output):
    """Write every kind of file, at both levels."""
    mask = np.ones((3, 3, 3), dtype=bool)
    grid = Grid(np.diag([2.0, 2, 2, 1]), mask)
    subject = "sub-01_ses-1_task-x_space-MNI152NLin6Asym_res-2_contrast-a"
    group = "task-x_space-MNI152NLin6Asym_res-2_contrast-a"
    stems = [f"sub-01/ses-1/func/{subject}_stat-{kind}_statmap" for kind in ("effect", "n")]
    stems += [f"group/{group}_test-age_desc-reml_stat-{kind}_statmap" for kind in ("effect", "log10p", "F")]
    stems += [f"group/{group}_test-age_desc-reml_corr-fdr_{end}" for end in ("stat-z_statmap", "mask")]
    for stem in stems:
        dtype = np.int16 if "_stat-n_" in stem else np.float32
        save_statmap(output, f"{stem}.nii.gz", np.ones(27), grid, dtype=dtype)
        save_json(output, f"{stem}.json", {"Description": "x", "Sources": ["bids:in-put:sub-01/a.nii.gz"]})
    for end in ("clusters", "corr-fdr_clusters", "design"):
        stem = f"group/{group}_test-age_desc-reml_{end}"
        save_tsv(output, f"{stem}.tsv", ["cluster_id", "x"], [{"cluster_id": "1a", "x": 1.0}])
        save_json(output, f"{stem}.json", {"cluster_id": {"Description": "x"}})
    for name in ("report.html", "sub-01.html", "group_a.html", "figures/sub-01_a.svg", "logs/1/run.toml"):
        save_text(output, name, "x")
    for name in ("studies.tsv", "studies.json", "study-A/study-A_space-x_contrast-a_stat-t_statmap.json"):
        save_text(output, name, "{}" if name.endswith("json") else "study_id\nA")


@pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
def test_validator_finds_no_error(output, tmp_path):
    fill(output)
    write_description(output, "1.0", [make_input(tmp_path)])
    write_bidsignore(output)
    write_readme(output, "Statistic maps. " * 20, {"group_x": "Methods."})
    write_citation(output, "We combined maps. " * 20, {})
    command = [find_validator(), str(output.root), "--format", "json"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    issues = json.loads(run.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert {issue["code"] for issue in issues} <= {"JSON_KEY_RECOMMENDED"}
    assert run.returncode == 0
