"""Models with anything anywhere are read, or refused in words: nothing else is raised."""

import copy
import json
import os
import random
from pathlib import Path

import numpy as np

from ibma_app.core.errors import IbmaError
from ibma_app.firstlevel.model.describe import describe_model
from ibma_app.firstlevel.model.reading.read_model import make_model
from ibma_app.firstlevel.model.run_model import model_of_node
from ibma_app.firstlevel.records import RunSettings, RunTables, Timing
from ibma_app.workflows.options.from_model import fill_options

MUTATIONS = int(os.environ.get("IBMA_MUTATIONS", "60"))
VALUES = (
    *(
        None,
        True,
        0,
        1,
        -1,
        1.5,
        1e300,
        10**30,
        "",
        "x",
        "*",
        "[",
        "1/0",
        "1/3",
        "intercept",
        "inf",
        "(",
        "a=b",
        "\x00",
    ),
    *([], {}, [[]], [1, [2]], {"a": 1}, ["a"], [1], [None], [["a"]], "Run", "Dataset", "t", "F", "a" * 5000, "\u00e9"),
    *("run", "subject", "contrast", "trial_type", "trial_type.*"),
)


def full_model(flanker):
    """Add what the model of three levels has not."""
    run, _, dataset = flanker["Nodes"]
    response = {"Variables": ["trial_type.*"], "Model": "spm"}
    run["Model"] |= {"HRF": response, "Options": {"HighPassFilterCutoffHz": 0.01}}
    run["Transformations"]["Instructions"] = [
        {"Name": "Copy", "Input": ["trial_type"], "Output": ["again"]},
        {"Name": "Replace", "Input": ["again"], "Replace": {"congruent": "rt"}},
        {"Name": "Factor", "Input": ["trial_type", "again"]},
        {"Name": "Assign", "Input": ["gain"], "Target": ["again.rt"], "TargetAttr": "duration"},
        {"Name": "Scale", "Input": ["gain"], "Output": ["z"]},
        {"Name": "Threshold", "Input": ["z"], "Threshold": 0.5},
        {"Name": "Convolve", "Input": ["again.*"], "Model": "glover", "Derivative": True},
    ]
    run["Model"]["X"].append("again.*")
    said = {"ibma_app": {"Estimator": ["ols"], "Alpha": 0.05, "Settings": {"estimator": {"ols": {}}}}}
    dataset["Model"] |= {"X": [1, "age", "sex.F", "age:iq"], "Software": said}
    instructions = [{"Name": "Factor", "Input": ["sex"]}, {"Name": "Demean", "Input": ["iq"]}]
    dataset["Transformations"] = {"Transformer": "pybids-transforms-v1", "Instructions": instructions}
    dataset["Contrasts"] = [{"Name": "o", "ConditionList": ["age", 1], "Weights": [[1, 0], ["1/2", 3]], "Test": "F"}]
    edge = {"Source": "subjects", "Destination": "everyone", "Filter": {"contrast": ["go"]}}
    return {**flanker, "Edges": [{"Source": "runs", "Destination": "subjects"}, edge]}


def paths(value, here=()):
    yield here
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(one, (*here, key))


def mutate(document, choose):
    """Change one place: another value, nothing, or another key."""
    place = choose.choice([path for path in paths(document) if path])
    here = document
    for key in place[:-1]:
        here = here[key]
    kind = choose.random()
    if kind < 0.7:
        here[place[-1]] = copy.deepcopy(choose.choice(VALUES))
    elif kind < 0.85:
        del here[place[-1]]
    elif isinstance(here, dict):
        here[choose.choice(["foo", "Test", "Name", "Output", "X"])] = here.pop(place[-1])


def test_mutated_models(flanker):
    choose, whole = random.Random(19), full_model(flanker)
    events = {"onset": ("1", "9", "20", "31"), "duration": ("2", "2", "1.5", "1"), "gain": ("1", "2", "", "4"),
              "trial_type": ("congruent", "incongruent", "congruent", "")}  # fmt: skip
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"] + ["cosine00"]
    tables = RunTables(events, {name: np.arange(40.0) for name in names})
    ended = {"read": 0, "refused": 0}
    for number in range(MUTATIONS):
        document = copy.deepcopy(whole)
        for _ in range(choose.choice([1, 1, 2]) if number else 0):
            mutate(document, choose)
        message = refusal_of(document, tables)
        ended["refused" if message else "read"] += 1
        assert number or message == ""  # the first is as it was
        assert 10 < len(message or "as it should be") < 9000
    assert min(ended.values()) > MUTATIONS / 20, ended


def refusal_of(document, tables):
    """Return how a model is refused, by whatever reads it; "" where it is not."""
    names = {"events": "e", "confounds": "c"}
    try:
        model = make_model(json.loads(json.dumps(document)), Path("m.json"), to_show=True)
        describe_model(model)
        for level in ("run", "participant", "group"):
            fill_options(model, level)
        for node in model.of_level("Run"):
            model_of_node(node, tables, Timing(2.0, 40, 1.0, ""), RunSettings(), names)
    except IbmaError as error:
        return error.message
    return ""
