"""A model fills in options and nothing else: by level, and as the command line would say them."""

import copy
import json

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, UsageError
from ibma_app.firstlevel.model.dataset_node import formula_of
from ibma_app.firstlevel.model.dataset_node import tests_of as named_tests
from ibma_app.firstlevel.model.reading.read_model import make_model
from ibma_app.workflows.options.from_model import fill_options
from ibma_app.workflows.options.parse import parse_options


@pytest.fixture
def flanker(maker):
    return copy.deepcopy(maker("flanker_model").FLANKER)


def software(**said):
    return {"ibma_app": said, "FSL": {"whatever": 1}}


def test_a_subject_node_is_fixed_effects_over_what_group_by_leaves_out(flanker):
    flanker["Input"] |= {"subject": ["01", "02"], "run": [1, 2], "space": ["MNI152NLin6Asym"]}
    filled = fill_options(make_model(flanker, None), "participant")
    assert filled.options == {
        "task_id": ("flanker",),
        "participant_label": ("01", "02"),
        "space": ("MNI152NLin6Asym",),
        "contrast": ("inVcon", "go"),
        "combine": ("run", "session"),
    }
    assert filled.settings == {"inputs": {"keep": {"run": ["1", "2"]}}}
    flanker["Nodes"][1]["GroupBy"].append("session")
    flanker["Nodes"][2]["GroupBy"].append("session")
    flanker["Nodes"][1]["Model"]["Software"] = software(Weights="equal", MinCoverage=0.5)
    filled = fill_options(make_model(flanker, None), "participant")
    assert filled.options["combine"] == ("run",)
    assert filled.options["min_coverage"] == 0.5
    assert filled.settings["estimator"] == {"fixed-effects": {"weights": "equal"}}


def test_a_dataset_node_is_a_formula_and_tests(flanker):
    node = flanker["Nodes"][2]
    assert fill_options(make_model(flanker, None), "group").options == {
        "task_id": ("flanker",), "contrast": ("inVcon", "go"), "formula": "1"
    }  # fmt: skip
    node["Model"] |= {"X": [1, "age", "reaction time"], "Software": software(Estimator=["reml", "ols"], Alpha=0.01)}
    options = fill_options(make_model(flanker, None), "group").options
    assert (options["formula"], options["estimator"], options["alpha"]) == (
        "1 + age + `reaction time`", ("reml", "ols"), 0.01
    )  # fmt: skip
    assert "test" not in options
    node["Contrasts"] = [
        {"Name": "older", "ConditionList": ["age", 1], "Weights": [1, "-1/4"], "Test": "t"},
        {"Name": "any", "ConditionList": ["age", "reaction time"], "Weights": [[1, 0], [0, -2]], "Test": "F"},
    ]
    del node["DummyContrasts"]
    options = fill_options(make_model(flanker, None), "group").options
    assert options["test"] == ("older=age - 0.25*intercept", "any=age, -2.0*reaction time")


def test_two_groups_of_subjects(flanker):
    node = flanker["Nodes"][2]
    node["Transformations"] = {
        "Transformer": "pybids-transforms-v1",
        "Instructions": [
            {"Name": "Factor", "Input": ["sex", "site"]},
            {"Name": "Demean", "Input": ["age"], "Output": ["age_c"]},
            {"Name": "Scale", "Input": ["iq"]},
        ],
    }
    node["Model"]["X"] = ["sex.F", "sex.M", "site.2", "age_c", "iq", "age_c:sex.F"]
    node["Contrasts"] = [{"Name": "FvM", "ConditionList": ["sex.F", "sex.M"], "Weights": [1, -1], "Test": "t"}]
    node["DummyContrasts"] = {"Contrasts": ["age_c"], "Test": "t"}
    options = fill_options(make_model(flanker, None), "group").options
    assert options["formula"] == (
        "0 + I(sex == 'F') + I(sex == 'M') + I(site == 2) + center(age) + scale(iq) + center(age):I(sex == 'F')"
    )
    assert options["test"] == ("age_c=center(age)", "FvM=I(sex == 'F') - I(sex == 'M')")
    node["Model"]["X"].append("age_c:sex")
    with pytest.raises(DataError, match=r"X\[6\]: 'sex' is no column after Factor"):
        fill_options(make_model(flanker, None), "group")


def test_formulas_stand_as_they_are(flanker):
    node = flanker["Nodes"][2]
    node["Model"] |= {"X": [1, "age"], "Formula": "1 + center(age)"}
    model = make_model(flanker, None)
    assert (formula_of(model.nodes[2], ""), named_tests(model.nodes[2], "")) == ("1 + center(age)", None)
    node["Contrasts"] = [{"Name": "old", "ConditionList": ["center(age)"], "Weights": [1], "Test": "t"}]
    del node["DummyContrasts"]
    assert named_tests(make_model(flanker, None).nodes[2], "") == ("old=center(age)",)


def test_edges_filter_images(flanker):
    flanker["Input"]["subject"] = ["01", "02", "03"]
    flanker["Nodes"].append({**flanker["Nodes"][2], "Name": "some"})
    flanker["Edges"] = [
        {"Source": "runs", "Destination": "subjects"},
        {"Source": "subjects", "Destination": "everyone", "Filter": {"contrast": ["go"]}},
        {"Source": "subjects", "Destination": "some", "Filter": {"contrast": ["inVcon"], "subject": ["03", "09"]}},
    ]
    model = make_model(flanker, None)
    with pytest.raises(UsageError, match=r"2 Dataset nodes: everyone, some\. Choose one with --node NAME"):
        fill_options(model, "group")
    assert fill_options(model, "group", "everyone").options["contrast"] == ("go",)
    some = fill_options(model, "group", "some").options
    assert (some["contrast"], some["participant_label"]) == (("inVcon",), ("03",))
    flanker["Edges"][2]["Filter"] = {"subject": ["09"]}
    with pytest.raises(DataError, match=r"Edges\[2\]\.Filter\.subject: leaves no image: Input has 01, 02, 03\."):
        fill_options(make_model(flanker, None), "group", "some")
    for one in flanker["Nodes"][0]["Contrasts"]:
        one["Test"] = "F"
    del flanker["Edges"], flanker["Nodes"][3]
    with pytest.raises(DataError, match="no contrast reaches subjects: F tests end where they are made"):
        fill_options(make_model(flanker, None), "participant")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"Estimators": "ols"}, r"Nodes\[2\]\.Model\.Software\.ibma_app\.Estimators: .* Did you mean Estimator\?"),
        ({"Estimator": "olse"}, r"Estimator: is 'olse'\. Did you mean ols\? Choose from: auto, "),
        ({"Alpha": "small"}, "Alpha: is 'small', and must be a number"),
        ({"Seed": 1.5}, "Seed: is 1.5, and must be a whole number"),
        ({"Weights": "equal"}, "Weights: is not known at the Dataset level"),
    ],
)
def test_what_is_said_to_us_and_not_understood(said, words, flanker):
    flanker["Nodes"][2]["Model"]["Software"] = software(**said)
    with pytest.raises(DataError, match=words):
        fill_options(make_model(flanker, None), "participant")  # at any level


def test_a_mean_of_means_is_refused(flanker):
    session = {**copy.deepcopy(flanker["Nodes"][1]), "Level": "Session", "Name": "sessions"}
    session["GroupBy"] = ["subject", "session", "contrast"]
    flanker["Nodes"].insert(1, session)
    assert fill_options(make_model(flanker, None), "participant").options["combine"] == ("run", "session")
    flanker["Nodes"][2]["Model"]["Software"] = software(Weights="equal")
    with pytest.raises(DataError, match=r'Nodes\[2\]\.Model\.Software\.ibma_app\.Weights: "equal" after Nodes\[1\]'):
        fill_options(make_model(flanker, None), "participant")


def test_subjects_that_would_count_twice_are_refused(flanker):
    flanker["Nodes"][1]["GroupBy"].append("session")
    with pytest.raises(
        DataError, match=r'Nodes\[2\]\.GroupBy: lacks "session", by which Nodes\[1\] keeps images apart'
    ):
        fill_options(make_model(flanker, None), "group")


def test_the_command_line_chooses_images_and_methods_but_not_another_design(tmp_path, flanker):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(flanker), encoding="utf-8")
    words = [str(tmp_path), "out", "group", "-m", str(path)]
    options = parse_options([*words, "--estimator", "ols", "--contrast", "go"])
    assert (options.estimator, options.contrast, options.task_id) == (("ols",), ("go",), ("flanker",))
    assert parse_options([*words, "--formula", "1"]).formula == "1"
    assert parse_options([*words, "--exclude-participant-label", "09"]).exclude_participant_label == ("09",)
    with pytest.raises(UsageError, match=r"--formula '1 [+] age' contradicts the model .*, whose node everyone has"):
        parse_options([*words, "--formula", "1 + age"])
    with pytest.raises(UsageError, match=r"--test 'a=intercept' contradicts the model .* has none"):
        parse_options([*words, "--test", "a=intercept"])
    with pytest.raises(
        UsageError, match=r"--contrast goo is not among the images of the model .* [(]contrast inVcon, go[)]"
    ):
        parse_options([*words, "--contrast", "goo"])
    flanker["Nodes"][2]["Model"]["Software"] = software(Settings={"estimator": {"ols": {"error": "x"}}})
    path.write_text(json.dumps(flanker), encoding="utf-8")
    with pytest.raises(UsageError, match=r"model\.json: \[estimator\.ols\] error: there is no 'error'"):
        parse_options(words)


@pytest.fixture
def runs_of_subjects(tmp_path, describe_dataset, write_statmap, rng):
    """Return a dataset of two runs of five subjects, with three contrasts."""
    root = describe_dataset(tmp_path / "in")
    for number, run, contrast in ((n, r, c) for n in range(5) for r in "12" for c in ("inVcon", "go", "other")):
        names = {"sub": f"0{number}", "task": "flanker", "run": run, "space": "MNI152NLin6Asym", "contrast": contrast}
        write_statmap(root, "effect", rng.normal(1, 1, (4, 4, 4)), metadata={"DegreesOfFreedom": 90}, **names)
        write_statmap(root, "variance", rng.uniform(0.5, 1, (4, 4, 4)), **names)
    table = "participant_id\tage\n" + "".join(f"sub-0{number}\t{20 + number**2}\n" for number in range(5))
    (root / "participants.tsv").write_text(table, encoding="utf-8")
    return root


@pytest.fixture
def age_model(tmp_path, flanker):
    """Return the file of a model whose dataset has a covariate."""
    flanker["Nodes"][2]["Model"] |= {"X": [1, "age"], "Software": software(Estimator="reml", Inference="fdr")}
    flanker["Nodes"][2] |= {"Contrasts": [{"Name": "old", "ConditionList": ["age"], "Weights": [1], "Test": "t"}]}
    del flanker["Nodes"][2]["DummyContrasts"]
    model = tmp_path / "model-flanker_smdl.json"
    model.write_text(json.dumps(flanker), encoding="utf-8")
    return model


@pytest.mark.slow
def test_two_groups_by_a_model(tmp_path, cli, describe_dataset, write_statmap, rng, flanker):
    """Factor of participants.tsv, two columns without an intercept, their difference: a test of two samples."""
    root = describe_dataset(tmp_path / "in")
    values = rng.normal(0, 1, (6, 3, 3, 3))
    for place, volume in enumerate(values):
        write_statmap(root, "effect", volume, sub=f"0{place}", task="flanker", space="MNI152NLin6Asym", contrast="go")
    rows = "".join(f"sub-0{place}\t{'F' if place < 2 else 'M'}\n" for place in range(6))
    (root / "participants.tsv").write_text(f"participant_id\tsex\n{rows}", encoding="utf-8")
    node = flanker["Nodes"][2]
    factor = {"Name": "Factor", "Input": ["sex"]}
    node["Transformations"] = {"Transformer": "pybids-transforms-v1", "Instructions": [factor]}
    node["Model"] |= {"X": ["sex.F", "sex.M"], "Software": software(Estimator="ols", Inference="uncorrected")}
    node["Contrasts"] = [{"Name": "FvM", "ConditionList": ["sex.F", "sex.M"], "Weights": [1, -1], "Test": "t"}]
    del node["DummyContrasts"]
    flanker["Edges"] = [
        {"Source": "runs", "Destination": "subjects"},
        {"Source": "subjects", "Destination": "everyone", "Filter": {"contrast": ["go"]}},
    ]
    model = tmp_path / "model.json"
    model.write_text(json.dumps(flanker), encoding="utf-8")
    ran = cli(root, tmp_path / "out", "group", "-m", model, "--no-report")
    assert ran.code == 0, ran.stderr
    (effect,) = (tmp_path / "out").rglob("*contrast-go_test-FvM_desc-ols_stat-effect_statmap.nii.gz")
    wanted = values[:2].mean(axis=0) - values[2:].mean(axis=0)
    np.testing.assert_allclose(nib.load(effect).get_fdata(), wanted, atol=1e-6)


@pytest.mark.slow
def test_a_model_gives_the_bytes_of_the_options(contents, tmp_path, cli, runs_of_subjects, age_model):
    chosen = ("-t", "flanker", "--contrast", "inVcon", "go")
    design = ("--formula", "1 + age", "--test", "old=age", "--estimator", "reml", "--inference", "fdr")
    out = tmp_path / "out"
    written = []
    for of_participants, of_group in ((("-m", age_model), ("-m", age_model)), (chosen, (*chosen, *design))):
        for level, words in (("participant", of_participants), ("group", of_group)):
            ran = cli(runs_of_subjects, out, level, *words)
            assert ran.code == 0, ran.stderr
        written.append(contents(out))
        out.rename(tmp_path / f"out{len(written)}")
    with_model, with_options = written
    assert any("test-old_desc-reml_stat-z" in name for name in with_model)
    assert not any("contrast-other" in name for name in with_model)
    assert set(with_model) == set(with_options)
    assert [name for name, content in with_model.items() if content != with_options[name]] == []


def test_a_dry_run_says_the_plan_in_words(tmp_path, cli, runs_of_subjects, age_model):
    ran = cli(runs_of_subjects, tmp_path / "out", "participant", "-m", age_model, "--dry-run")
    assert ran.code == 0
    assert "2. subjects (Subject): precision-weighted fixed effects for each subject and contrast" in ran.stdout
    assert "Formula: 1 + age; columns: intercept, age." in ran.stdout
    assert "What would be combined" in ran.stdout
    assert "sub-04_task-flanker_space-MNI152NLin6Asym_contrast-go" in ran.stdout
    assert "contrast-other" not in ran.stdout
    assert not (tmp_path / "out").exists()


def test_runs_of_the_input_alone_are_combined(tmp_path, cli, runs_of_subjects, flanker):
    flanker["Input"]["run"] = [2]
    model = tmp_path / "model.json"
    model.write_text(json.dumps(flanker), encoding="utf-8")
    ran = cli(runs_of_subjects, tmp_path / "out", "participant", "-m", model, "--dry-run")
    assert ran.code == 0
    assert "run-2" in ran.stdout
    assert "run-1" not in ran.stdout
    config = tmp_path / "c.toml"
    config.write_text("[inputs]\nkeep = { runs = [2] }\n", encoding="utf-8")
    ran = cli(runs_of_subjects, tmp_path / "out", "participant", "--config-file", config, "--dry-run")
    assert ran.code == 64
    assert "[inputs] keep: there is no entity 'runs'. Did you mean run?" in ran.stderr


def test_old_spellings_are_told(contents, tmp_path, cli, runs_of_subjects, flanker):
    flanker["Nodes"][1]["DummyContrasts"]["Test"] = "FEMA"
    model = tmp_path / "model.json"
    model.write_text(json.dumps(flanker), encoding="utf-8")
    words = ("participant", "-m", model, "--participant-label", "sub-00", "--contrast", "go", "--no-report")
    ran = cli(runs_of_subjects, tmp_path / "out", *words)
    assert ran.code == 0
    assert "Nodes[1].DummyContrasts.Test: 'FEMA' is read as 't'." in ran.stderr
    (options,) = (tmp_path / "out" / "logs").rglob("options.toml")
    again = cli(runs_of_subjects, tmp_path / "again", "participant", "--config-file", options)  # what the log says
    assert again.code == 0, again.stderr
    first, second = (contents(tmp_path / name) for name in ("out", "again"))
    assert first == second
    assert len([name for name in first if name.endswith("_statmap.nii.gz")]) >= 4


def test_a_faulty_contrast_is_refused_but_the_plan_is_shown(tmp_path, cli, runs_of_subjects, flanker):
    flanker["Nodes"][0]["Contrasts"][1]["Weights"] = [1]
    model = tmp_path / "model.json"
    model.write_text(json.dumps(flanker), encoding="utf-8")
    ran = cli(runs_of_subjects, tmp_path / "out", "participant", "-m", model, "--dry-run")
    assert ran.code == 65
    assert "Flows on to subjects: inVcon." in ran.stdout
    assert "model.json: Nodes[0].Contrasts[1].Weights: has 1 weights for 2 conditions" in ran.stderr
    ran = cli(runs_of_subjects, tmp_path / "out", "participant", "-m", model)
    assert (ran.code, ran.stdout) == (65, "")
