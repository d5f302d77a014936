"""brainlife/main, run as the platform does: a folder per task, config.json in it, product.json out of it."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ibma_app.workflows.options.table import OPTIONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(make_runs) -> Path:
    return make_runs(4)


@pytest.fixture
def task(tmp_path: Path, runs: Path):
    """Return ``task(config, environment)``: stage the input and the app, run main, return its end and product.json."""

    def run(config: dict, environment: dict) -> tuple[subprocess.CompletedProcess, dict, Path]:
        shutil.copytree(runs, tmp_path / "instance" / "task-input" / "maps")
        folder = tmp_path / "instance" / "task-app"
        shutil.copytree(ROOT / "brainlife", folder / "brainlife", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(folder / "brainlife" / "main", folder / "main")  # a batch system runs a copy
        platform = {"_app": "5f0", "_tid": 3, "_inputs": [{"id": "maps", "task_id": "1", "subdir": "maps"}]}
        (folder / "config.json").write_text(json.dumps({**platform, **config}), encoding="utf-8")
        done = subprocess.run(
            ["./main"], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        product = folder / "product.json"
        return done, json.loads(product.read_text(encoding="utf-8")) if product.exists() else {}, folder

    return run


@pytest.mark.slow
def test_both_levels_and_figures(task, stand_ins) -> None:
    config = {
        "bids": "../task-input/maps",
        "level": "both",
        "estimator": "ols reml",
        "inference": ["fdr"],
        "min-coverage": 0.9,
        "space": "",
        "no_report": False,
        "covariates": None,
    }
    done, product, folder = task(config, stand_ins("python3"))
    assert done.returncode == 0, done.stderr
    stem = "task-x_space-MNI152NLin6Asym_contrast-ab_desc"
    for name in (f"{stem}-ols_corr-fdr_mask.nii.gz", f"{stem}-reml_stat-tau2_statmap.nii.gz"):
        assert (folder / "output" / "group" / name).is_file()
    assert (folder / "output" / "report.html").is_file()
    shown = product["brainlife"]
    assert [entry["type"] for entry in shown if "msg" in entry][-1] == "success"
    pictures = [entry for entry in shown if entry["type"] == "image/png"]
    assert [entry["name"] for entry in pictures] == [f"{stem}-ols_stat-z", f"{stem}-reml_stat-z"]
    for entry in pictures:
        assert base64.b64decode(entry["base64"]).startswith(b"\x89PNG\r\n\x1a\n")
        assert len(entry["base64"]) < 40_000  # product.json goes into a database


@pytest.mark.slow
def test_in_a_container(task, stand_ins, calls) -> None:
    # the host's python3 has no ibma_app: the image's does
    bare = "#!/bin/sh\nexit 1\n"
    environment = stand_ins("python3", "apptainer", python3=bare, IBMA_IMAGE="docker://ibma-app:1")
    config = {"bids": "../task-input/maps", "level": "participant", "participant_label": "sub-02"}
    done, product, folder = task(config, environment)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "output").rglob("*_stat-effect_statmap.nii.gz"))) == 1
    assert product["brainlife"][-1]["type"] == "image/png"
    (words,) = calls()
    assert words[:3] == ["apptainer", "exec", "--cleanenv"]
    assert words[words.index("-B") + 1] == str(folder.parent)  # the input is a neighbour of this task
    assert words[-3] == "docker://ibma-app:1"


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        ({"level": "group"}, 64, "no key bids"),
        ({"bids": "../task-input/maps", "estimators": "ols"}, 64, "no option estimators"),
        ({"bids": "../task-input/maps", "estimator": "olz"}, 64, "'olz'"),
        ({"bids": "../task-input/nothing"}, 66, "nothing"),
    ],
)
def test_failures_are_told(task, stand_ins, config: dict, code: int, message: str) -> None:
    done, product, _ = task(config, stand_ins("python3"))
    assert done.returncode == code, done.stderr
    errors = [entry["msg"] for entry in product["brainlife"] if entry["type"] == "error"]
    assert any(message in text for text in errors), errors


def test_every_option_can_be_configured(tmp_path: Path) -> None:
    import importlib.util

    from ibma_app.workflows.options.parse import parse_options

    spec = importlib.util.spec_from_file_location("brainlife_run", ROOT / "brainlife" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    left_out = {"config_file", "model", "no_report"}  # these would be read; it excludes reports_only
    config = {option.dest.replace("_", "-"): _example(option) for option in OPTIONS if option.dest not in left_out}
    (words,) = module.plan_commands({"bids": os.fspath(tmp_path), **config})
    options = parse_options(words)
    assert {option.dest for option in OPTIONS if getattr(options, option.dest) in (None, False)} == left_out
    assert options.test == ("old=center(age)", "any=C(group)[T.b], C(group)[T.c]")


def _example(option) -> object:
    if option.dest == "test":
        return "old=center(age) 'any=C(group)[T.b], C(group)[T.c]'"
    if option.dest == "equivalence":
        return "0.2"
    if option.kind is bool or option.dest == "verbose":
        return True
    if option.kind in (int, float):
        return 12 if option.kind is int or option.dest == "dof" else 0.5
    return (
        option.choices[-1]
        if option.choices
        else {"mem": "8G", "compute": "d=a-b", "dask": "local", "contrasts": "d=a-b"}.get(option.dest, "x")
    )
