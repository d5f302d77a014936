"""Models are read into records; what is wrong with them is said in words, with the path in the JSON."""

import pytest

from ibma_app.core.errors import DataError, InputError
from ibma_app.firstlevel.model.edges import inputs, outputs, way_to
from ibma_app.firstlevel.model.reading.read_model import make_model, read_model


def put(*keys):
    """Return a function that sets a value deep in a model: put("Nodes", 0, "Level", "run")."""
    *way, last, value = keys

    def change(model):
        here = model
        for key in way:
            here = here[key]
        here[last] = value

    return change


def rename(old, new, *way):
    def change(model):
        here = model
        for key in way:
            here = here[key]
        here[new] = here.pop(old)

    return change


COMMONEST = {  # of the trackers of FitLins and PyBIDS; docs/model.md lists them
    "an edge to a node that was renamed": (
        put("Edges", [{"Source": "runs", "Destination": "subjetcs"}]),
        "Edges[0].Destination: there is no node 'subjetcs'. Did you mean subjects?",
    ),
    "a contrast of what is not in X": (
        put("Nodes", 0, "Contrasts", 0, "ConditionList", ["incongruent", "trial_type.congruent"]),
        "Nodes[0].Contrasts[0].ConditionList[0]: 'incongruent' is not in Model.X of this node. "
        "Did you mean trial_type.incongruent? X is: 1, trial_type.*",
    ),
    "weights and conditions differ in number": (
        put("Nodes", 0, "Contrasts", 0, "Weights", [1, -1, 0]),
        "Nodes[0].Contrasts[0].Weights: has 3 weights for 2 conditions of ConditionList.",
    ),
    "Steps of old models": (rename("Nodes", "Steps"), "Steps: is of models before version 1.0; now there are Nodes"),
    "transformations as a list": (
        put("Nodes", 0, "Transformations", [{"Name": "Factor", "Input": ["trial_type"]}]),
        'must be an object: {"Transformer": "pybids-transforms-v1", "Instructions": [...]}.',
    ),
    "GroupBy is missing": (
        rename("GroupBy", "Groupby", "Nodes", 1),
        "Nodes[1].Groupby: is written GroupBy.",
    ),
    "contrasts are not kept apart": (
        put("Nodes", 1, "GroupBy", ["subject"]),
        'Nodes[1].GroupBy: lacks "contrast": images that differ in it would be averaged.',
    ),
    "Type of contrasts": (
        rename("Test", "Type", "Nodes", 0, "Contrasts", 1),
        "Nodes[0].Contrasts[1].Type: is called Test now",
    ),
    "Conditions of DummyContrasts": (
        put("Nodes", 0, "DummyContrasts", {"Test": "t", "Conditions": ["trial_type.congruent"]}),
        "Nodes[0].DummyContrasts.Conditions: is called Contrasts now",
    ),
    "Input without lists": (
        put("Input", "task", "flanker"),
        "Input.task: is 'flanker', and must be a list: [\"flanker\"].",
    ),
    "a transformation that is not here": (
        put("Nodes", 0, "Transformations", "Instructions", 0, "Name", "Factors"),
        "Nodes[0].Transformations.Instructions[0].Name: there is no transformation 'Factors' here. Did you mean "
        "Factor? Choose from: Factor, Convolve, Replace,",
    ),
    "a level in lower case": (
        put("Nodes", 0, "Level", "run"),
        "Nodes[0].Level: is 'run'. Did you mean Run? ",
    ),
    "a group of participants.tsv in GroupBy": (
        put("Nodes", 2, "GroupBy", ["contrast", "diagnosis"]),
        "Nodes[2].GroupBy[1]: is 'diagnosis', which tells no images apart at the Dataset level.",
    ),
}


@pytest.mark.parametrize("name", COMMONEST)
def test_the_commonest_faults_are_answered_in_words(name, flanker, write_model):
    change, words = COMMONEST[name]
    change(flanker)
    path = write_model(flanker)
    with pytest.raises(DataError) as error:
        read_model(path)
    assert error.value.message.startswith(f"{path}: ")
    assert words in error.value.message
    assert "is missing" not in error.value.message or name == "Steps of old models"


OTHERS = {
    "version as a number": (put("BIDSModelVersion", 1.0), 'BIDSModelVersion: is 1.0, and must be text: "1.0".'),
    "two nodes of one name": (put("Nodes", 2, "Name", "subjects"), "Nodes[2].Name: is 'subjects', as that of Nodes[1]"),
    "a circle": (
        put("Edges", [{"Source": "runs", "Destination": "subjects"}, {"Source": "subjects", "Destination": "everyone"},
                      {"Source": "everyone", "Destination": "subjects"}]),
        "goes round in a circle: subjects -> everyone -> subjects.",
    ),
    "an edge down": (
        put("Edges", [{"Source": "runs", "Destination": "everyone"},
                      {"Source": "everyone", "Destination": "subjects"}]),
        "Edges[1]: leads from everyone (Dataset) to subjects (Subject). Edges go up:",
    ),
    "a node that nothing leads to": (
        put("Edges", [{"Source": "runs", "Destination": "everyone"}]), "Nodes[1].Name: no edge leads to 'subjects'."
    ),
    "a filter by no contrast": (
        put("Edges", [{"Source": "runs", "Destination": "subjects", "Filter": {"contrast": ["inVCom"]}},
                      {"Source": "subjects", "Destination": "everyone"}]),
        "Edges[0].Filter.contrast[0]: runs gives no contrast 'inVCom'. Did you mean inVcon?",
    ),
    "an argument that is not there": (
        put("Nodes", 0, "Transformations", "Instructions", 1, "Derivate", True),
        "Nodes[0].Transformations.Instructions[1].Derivate: Convolve has no such argument. Did you mean Derivative?",
    ),
    "what Factor has replaced": (
        put("Nodes", 0, "Transformations", "Instructions", 1, "Input", ["trial_type"]),
        "Nodes[0].Transformations.Instructions[1].Input[0]: 'trial_type' is no more: "
        "Nodes[0].Transformations.Instructions[0] (Factor) has made trial_type.* of it.",
    ),
    "no intercept": (put("Nodes", 0, "Model", "X", ["trial_type.*"]), "Nodes[0].Model.X: lacks the number 1"),
    "a covariate of subjects": (
        put("Nodes", 1, "Model", "X", [1, "age"]), 'Nodes[1].Model.X: is [1, "age"]. A Subject node combines'
    ),
    "a weight that is none": (
        put("Nodes", 0, "Contrasts", 0, "Weights", [1, "half"]),
        "Nodes[0].Contrasts[0].Weights[1]: is 'half': neither a number nor a fraction",
    ),
    "an option that is not supported": (
        put("Nodes", 0, "Model", "Options", {"Aggregate": "mean"}), "Nodes[0].Model.Options.Aggregate: is not"
    ),
    "an unknown response": (
        put("Nodes", 0, "Model", "HRF", {"Variables": ["trial_type.*"], "Model": "DoubleGamma"}),
        "Nodes[0].Model.HRF.Model: is 'DoubleGamma'. Choose from: spm, spm + derivative,",
    ),
    "an F test of rows that follow from others": (
        put("Nodes", 0, "Contrasts", 0, {"Name": "f", "ConditionList": ["trial_type.a", "trial_type.b"],
                                         "Weights": [[1, -1], [-1, 1]], "Test": "F"}),
        "Nodes[0].Contrasts[0].Weights: has rows that depend on each other.",
    ),
    "an interaction of runs": (
        put("Nodes", 0, "Model", "X", [1, "trial_type.*", "trial_type.a:trans_x", "trans_*"]),
        "Nodes[0].Model.X[2]: 'trial_type.a:trans_x' is an interaction",
    ),
    "a task that is no label": (put("Input", "task", ["a", "sub-01", -4]), "Input.task[2]: is -4, and must be a label"),
    "no object": (lambda model: model.update(Nodes=[3]), "Nodes[0]: is 3, and must be an object {...}."),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_faults_are_answered_in_words(name, flanker):
    change, words = OTHERS[name]
    change(flanker)
    with pytest.raises(DataError) as error:
        make_model(flanker, None)
    assert words in error.value.message


def test_levels_may_have_colons(flanker):
    flanker["Nodes"][0]["Model"]["X"] += ["trial_type.face:happy", "trial_type.face:sad"]
    assert make_model(flanker, None).nodes[0].x[-1] == "trial_type.face:sad"


def test_all_faults_are_told_together(flanker):
    for change, _ in (COMMONEST["a level in lower case"], COMMONEST["Input without lists"]):
        change(flanker)
    with pytest.raises(DataError, match=r"(?s)the model has 2 faults:.*Input\.task.*Nodes\[0\]\.Level"):
        make_model(flanker, None)


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_model(tmp_path / "none.json")
    (tmp_path / "a.json").write_text('{"Name": "a", "Name": "b"}', encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON: an object has 'Name' twice"):
        read_model(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match=r"the model: is \[1\], and must be an object"):
        read_model(tmp_path / "b.json")


def test_a_model_is_read_into_records(flanker):
    flanker["Nodes"][0]["Transformations"]["Instructions"][1] |= {"Derivative": "True", "FIRDelays": [0, 1]}
    model = make_model(flanker, None)
    run, subject, everyone = model.nodes
    assert (run.level, run.x[:2], run.kind) == ("Run", ("intercept", "trial_type.*"), "glm")
    assert run.contrasts[1].weights == ((0.5, 0.5),)
    assert run.instructions[1].arguments == {"Model": "spm", "Derivative": True, "FirDelays": (0, 1)}
    assert [edge.destination for edge in model.edges] == ["subjects", "everyone"]
    assert outputs(model, run) == inputs(model, subject) == inputs(model, everyone) == ("inVcon", "go")
    assert way_to(model, everyone) == (run, subject, everyone)


def test_contrasts_flow_through_filters_and_f_tests_end(flanker):
    flanker["Nodes"][0]["Contrasts"].append(
        {"Name": "any", "ConditionList": ["trial_type.congruent"], "Weights": [[1]], "Test": "F"}
    )
    flanker["Nodes"][0]["DummyContrasts"] = {"Contrasts": ["trial_type.congruent"], "Test": "skip"}
    flanker["Edges"] = [
        {"Source": "runs", "Destination": "subjects"},
        {"Source": "subjects", "Destination": "everyone", "Filter": {"contrast": ["go"]}},
    ]
    model = make_model(flanker, None)
    assert outputs(model, model.nodes[0]) == ("trial_type.congruent", "inVcon", "go")
    assert inputs(model, model.nodes[2]) == ("go",)
    assert model.notes == ("Nodes[0].DummyContrasts.Test: 'skip' is read as 'pass'.",)


def test_published_models_are_read(shared):
    faulty = {}
    for path in sorted((shared / "realdata" / "stats_models" / "models").glob("*.json")):
        model = read_model(path, to_show=True)
        assert [node.level for node in model.nodes][:: len(model.nodes) - 1] == ["Run", "Dataset"]
        assert inputs(model, model.nodes[-1])
        faulty |= {path.name: dict(model.faults)} if model.faults else {}
    assert faulty == {  # as published: 4 weights for 3 conditions
        "ds003481-verbs_specs.json": {
            "Nodes[0].Contrasts[4].Weights": "has 4 weights for 3 conditions of ConditionList."
        }
    }
