"""Published models print their plan on datasets that are made of the models themselves."""

import copy
import json
import re

import pytest

NOT_CONVOLVED = {"ds001233-cuedSFM_specs.json": "accuracy.correct", "ds004556-feedback_specs.json": "rating"}
FAULTY = {"ds003481-verbs_specs.json"}  # as published: 4 weights for 3 conditions
FEW = ("ds000102-flanker", "ds000114-fingerfootlips", "ds001734-MGT")


@pytest.fixture
def plan_of(tmp_path, cli, maker):
    """Return ``plan_of(path) -> what --dry-run printed``, of one run of the first subject."""

    def show(path):
        document = json.loads(path.read_text(encoding="utf-8"))
        root = tmp_path / path.stem
        raw, derived = maker("made_datasets").write_dataset(root, document)
        ran = cli(raw, root / "out", "run", "-d", f"fmriprep={derived}", "-m", path, "--dry-run")
        assert ran.code == (65 if path.name in FAULTY else 0), ran.stderr
        assert not (root / "out").exists()
        return document, ran

    return show


def check_plan(path, document, ran):
    text = ran.stdout
    assert "cannot be modelled" not in text
    assert f"1 run of 1 subject (sub-{document['Input']['subject'][0]}_" in text
    nodes = document["Nodes"]
    for place, node in enumerate(nodes, start=1):
        assert f"\n{place}. {node['Name']} ({node['Level']}): " in text
    contrasts = [one for one in nodes[0]["Contrasts"] if len(one["Weights"]) == len(one["ConditionList"])]
    for one in contrasts:
        assert f"   Contrast {one['Name']} (t): " in text
    flows = ", ".join(one["Name"] for one in contrasts[:12])
    assert text.count(f"   Flows on to {nodes[1]['Name']}: {flows}") == 1
    conditions = {name.removeprefix("trial_type.") for one in contrasts for name in one["ConditionList"]}
    (design,) = re.findall(r"   Design: (\d+) columns in every run", text)
    assert int(design) >= len(conditions) + 7
    assert "   Without " not in text
    assert ("The participant level comes between" in text) == (len(nodes) == 2)
    assert ("is not convolved: its events are boxcars" in text) == (path.name in NOT_CONVOLVED)
    assert f"{NOT_CONVOLVED.get(path.name, '')} is not convolved" in text or path.name not in NOT_CONVOLVED
    if path.name in FAULTY:
        assert "Nodes[0].Contrasts[4].Weights: has 4 weights for 3 conditions" in ran.stderr


@pytest.mark.parametrize("name", FEW)
def test_a_few_published_models(name, shared, plan_of):
    path = shared / "realdata" / "stats_models" / "models" / f"{name}_specs.json"
    check_plan(path, *plan_of(path))


def test_names_that_no_run_has_are_told(tmp_path, cli, maker):
    document = copy.deepcopy(maker("flanker_model").FLANKER)
    document["Input"]["subject"] = ["01", "02"]
    raw, derived = maker("made_datasets").write_dataset(tmp_path, document)
    document["Nodes"][0]["Contrasts"][0]["ConditionList"][1] = "trial_type.congruen"
    model = tmp_path / "model.json"
    model.write_text(json.dumps(document), encoding="utf-8")
    ran = cli(raw, tmp_path / "out", "run", "-d", derived, "-m", model, "--dry-run")
    assert ran.code == 0
    assert "Without inVcon: sub-01_task-flanker" in ran.stdout
    assert ran.stderr == "warning: No selected run has sub-02 (there are: 01).\n"
    assert "Warning: Nodes[0].Contrasts[0].ConditionList[1]: no run has events of trial_type.congruen." in ran.stdout


def test_the_model_of_run_options_has_the_contrasts_that_are_kept(tmp_path, cli, maker):
    document = copy.deepcopy(maker("flanker_model").FLANKER)
    document["Input"]["subject"] = ["01"]
    raw, derived = maker("made_datasets").write_dataset(tmp_path, document)
    ran = cli(
        raw, tmp_path / "out", "run", "-d", derived, "-m", "default", "--confounds", "none", "--contrast", "congruent"
    )
    assert (ran.code, ran.stderr) == (0, "")
    node = json.loads(ran.stdout)["Nodes"][0]
    assert [one["Name"] for one in node["Contrasts"]] == ["congruent"]
    assert node["Model"]["X"] == [1, "trial_type.*", "cosine*", "non_steady_state_outlier*"]


@pytest.mark.slow
def test_all_published_models(shared, plan_of):
    paths = sorted((shared / "realdata" / "stats_models" / "models").glob("*.json"))
    assert len(paths) >= 39
    for path in paths:
        check_plan(path, *plan_of(path))
