"""``-m default``: the model that options mean, read again, means the same options."""

import json

import pytest

from ibma_app.core.errors import UsageError
from ibma_app.firstlevel.model.reading.read_model import make_model
from ibma_app.workflows.options.from_model import fill_options
from ibma_app.workflows.options.parse import parse_options
from ibma_app.workflows.options.to_model import model_document

DESIGNS = {
    "a mean": ((), {"formula": "1"}),
    "a covariate": (("--formula", "1 + age", "--test", "old=age"), {"formula": "1 + age", "test": ("old=age",)}),
    "a formula": (
        ("--formula", "1 + center(age) + iq", "--test", "a=center(age) - iq/2", "b=intercept, iq"),
        {"formula": "1 + center(age) + iq", "test": ("a=center(age) - 0.5*iq", "b=intercept, iq")},
    ),
    "no intercept": (("--formula", "0 + a + b", "--test", "d=a-b"), {"formula": "0 + a + b", "test": ("d=a - b",)}),
    "methods": (
        ("--estimator", "ols", "reml", "--alpha", "0.01", "--seed", "3", "--min-coverage", "0.5"),
        {"formula": "1", "estimator": ("ols", "reml"), "alpha": 0.01, "seed": 3, "min_coverage": 0.5},
    ),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_the_group_level_comes_back(name):
    words, wanted = DESIGNS[name]
    options = parse_options(["in", "out", "group", "-m", "default", "-t", "flanker", "--contrast", "a>b", *words])
    document = json.loads(json.dumps(model_document(options, None)))
    filled = fill_options(make_model(document, None), "group")
    assert filled.options == {"task_id": ("flanker",), "contrast": ("aGtB",), **wanted}
    assert filled.settings == {}


def test_the_participant_level_comes_back(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(
        "[estimator.fixed-effects]\nweights = 'equal'\n[inputs]\nkeep = { run = [2] }\n", encoding="utf-8"
    )
    words = ["in", "out", "participant", "--config-file", str(config), "--participant-label", "sub-01"]
    options = parse_options([*words, "-t", "a", "b", "--combine", "run", "session", "task", "--mask", "data"])
    model = make_model(model_document(options, None), None)
    filled = fill_options(model, "participant")
    assert filled.options == {
        "participant_label": ("01",), "task_id": ("a", "b"), "combine": ("run", "session", "task"), "mask": "data"
    }  # fmt: skip
    assert filled.settings == {
        "estimator": {"fixed-effects": {"weights": "equal"}}, "inputs": {"keep": {"run": ["2"]}}
    }  # fmt: skip
    assert fill_options(model, "group").options["formula"] == "1"
    plain = make_model(model_document(parse_options(["in", "out", "participant"]), None), None)
    assert fill_options(plain, "participant").options == {"combine": ("run",)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--compute", "d=a-b"), "--compute has no place in a BIDS Stats Model. Leave it out"),
        (("--exclude-participant-label", "09"), "Model. Give it beside the model"),
        (("--combine", "run", "direction"), "--combine run direction has no place"),
        (("--formula", "1 + C(group)", "--test", "g=C(group)[T.b]"), "--model default cannot write --test"),
    ],
)
def test_what_models_cannot_say_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        model_document(parse_options(["in", "out", "group", *words]), None)


def test_it_is_printed(cli, describe_dataset, tmp_path):
    ran = cli(describe_dataset(tmp_path / "in"), tmp_path / "out", "group", "-m", "default", "--formula", "1 + age")
    assert (ran.code, ran.stderr) == (0, "")
    nodes = json.loads(ran.stdout)["Nodes"]
    assert [node["Level"] for node in nodes] == ["Subject", "Dataset"]
    assert nodes[1]["Model"]["X"] == [1, "age"]
    assert not (tmp_path / "out").exists()
