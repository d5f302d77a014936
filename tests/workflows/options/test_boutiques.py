"""``--bids-exec-spec``: a descriptor that Boutiques accepts, and that says what the parser takes."""

import argparse
import json
import shlex
from pathlib import Path

import pytest

from ibma_app.workflows.options.boutiques import describe_command
from ibma_app.workflows.options.parse import build_parser, parse_options
from ibma_app.workflows.options.table import OPTIONS

TEXTS = {
    "contrasts": "d=go-stop",
    "model": "default",
    **{"test": "old=center(age), C(group)[T.b]", "compute": "d=a-b", "formula": "1 + C(group)"},
    **{"mem": "8G", "dask": "tcp://localhost:8786", "equivalence": "0.3g"},
}
LEAVING = {"help", "version", "bids_exec_spec"}  # they answer and leave


@pytest.fixture(scope="module")
def descriptor(cli, tmp_path_factory) -> Path:
    """The file that a platform would keep."""
    ran = cli("--bids-exec-spec")
    assert ran.code == 0, ran.stderr
    path = tmp_path_factory.mktemp("boutiques") / "ibma-app.json"
    path.write_text(ran.stdout, encoding="utf-8")
    return path


def bosh(run_python, *args: object):
    pytest.importorskip("boutiques", reason="needs boutiques (the test extra)")
    code = "import sys; from boutiques.bosh import bosh; bosh(sys.argv[1:])"
    return run_python("-c", code, *args)


def test_boutiques_accepts_it(descriptor: Path, run_python) -> None:
    ran = bosh(run_python, "validate", descriptor)
    assert ran.code == 0, ran.stdout + ran.stderr


def test_what_is_simulated_is_what_the_parser_understands(descriptor: Path, run_python, tmp_path: Path) -> None:
    asked: dict[str, object] = {"bids_dir": "in put", "output_dir": "out", "analysis_level": "group"}
    for option in OPTIONS:
        if option.choices:
            value: object = option.choices[-1]
        elif option.kind is bool or option.dest == "verbose":
            value = True
        elif option.kind in (int, float):
            value = 30 if option.kind is int or option.dest == "dof" else 0.5
        else:
            value = TEXTS.get(option.dest, f"{option.dest}.txt")
        asked[option.dest] = [value] if option.many else value
    del asked["config_file"], asked["no_report"]  # it would be read; it excludes reports_only
    invocation = tmp_path / "invocation.json"
    invocation.write_text(json.dumps(asked), encoding="utf-8")
    ran = bosh(run_python, "exec", "simulate", descriptor, "-i", invocation)
    assert ran.code == 0, ran.stdout + ran.stderr
    (command,) = [line for line in ran.stdout.splitlines() if line.startswith("ibma-app ")]
    options = parse_options(shlex.split(command)[1:])
    for name, wanted in asked.items():
        value = getattr(options, name)
        plain = [*value] if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        assert plain == wanted, name


def test_an_invocation_of_its_own_making_parses(descriptor: Path, run_python) -> None:
    ran = bosh(run_python, "exec", "simulate", descriptor)
    assert ran.code == 0, ran.stdout + ran.stderr
    (command,) = [line for line in ran.stdout.splitlines() if line.startswith("ibma-app ")]
    assert len(parse_options(shlex.split(command)[1:]).analysis_level) > 0


def test_it_cannot_drift_from_the_parser() -> None:
    described = {entry["id"]: entry for entry in describe_command()["inputs"]}
    actions = {action.dest: action for action in build_parser()._actions if action.dest not in LEAVING}
    assert list(described) == list(actions)
    for name, action in actions.items():
        entry = described[name]
        is_switch = isinstance(action, argparse._StoreTrueAction | argparse._CountAction)
        assert (entry["type"] == "Flag") == is_switch, name
        assert (entry["type"] == "Number") == (action.type in (int, float)), name
        assert entry.get("integer", False) == (action.type is int), name
        assert entry.get("list", False) == (action.nargs == "+"), name
        assert entry["optional"] == bool(action.option_strings), name
        if action.option_strings:
            assert entry["command-line-flag"] in action.option_strings, name


def test_choices_and_exit_codes_are_ours() -> None:
    document = describe_command()
    described = {entry["id"]: entry for entry in document["inputs"]}
    for option in OPTIONS:
        assert described[option.dest].get("value-choices", []) == [*option.choices], option.dest
    assert [entry["code"] for entry in document["error-codes"]] == [1, 16, 18, 64, 65, 66, 73, 74]


def test_it_answers_at_once(run_python) -> None:
    code = (
        "import sys; from ibma_app.cli import main; assert main(['--bids-exec-spec']) == 0; "
        "sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    ran = run_python("-c", code)
    assert ran.code == 0, ran.stderr
    assert json.loads(ran.stdout)["name"] == "ibma-app"
    # under half a second only as long as nothing heavy is imported
    assert not {"numpy", "scipy", "pandas", "bids", "nibabel", "numba", "matplotlib"} & set(ran.stderr.split())
