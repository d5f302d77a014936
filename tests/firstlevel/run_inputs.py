"""A small valid run of the run level, each of its files to be changed by tests."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STEM = "sub-01_task-x_run-1"
FUNC = "raw/derivatives/fmriprep/sub-01/func"
BOLD = f"{FUNC}/{STEM}_space-MNI152NLin2009cAsym_desc-preproc_bold"
MASK = BOLD.replace("preproc_bold", "brain_mask")
CONFOUNDS = f"{FUNC}/{STEM}_desc-confounds_timeseries"
MODEL = ("--contrasts", "d=go-stop", "--confounds", "motion6", "a_comp_cor_0[0-2]")
QUICK = ("--no-report", "--nprocs", "1")
CONFIG = 'contrasts = ["d=go-stop"]\nconfounds = ["compcor"]\n[run]\nhrf = "spm"\nscrub_fd = 0.4\ndrop_volumes = 1\n'


def kinds(inputs: Any) -> Mapping[str, Callable[[], Any]]:
    """Return what makes a case of each file of a run (`small_inputs.Inputs`)."""
    made = inputs.maker("runs_by_code")

    def run(target: str, change: str, *words: str, named: tuple[str, ...] = ()) -> Any:
        """Make the run; ``words`` are its model, and ``named`` what a refusal may name."""
        raw = made.make_study(inputs.root, runs=("1",))
        how = (*(words or MODEL), *QUICK)
        case = inputs.maker("small_inputs").Case
        path: Path = inputs.root / target
        return case(
            lambda out: inputs.cli(raw, out, "run", *how, cwd=inputs.root),
            path,
            inputs.change(change),
            (STEM, "--contrasts", *named),
        )

    def with_file(name: str, text: str, *words: str, change: str) -> Any:
        (inputs.root / name).write_text(text)
        return run(name, change, *words, named=words)

    return {
        "run-events": lambda: run(f"raw/sub-01/func/{STEM}_events.tsv", "text"),
        "run-confounds": lambda: run(f"{CONFOUNDS}.tsv", "text"),
        "run-confounds-json": lambda: run(
            f"{CONFOUNDS}.json", "json", "--confounds", "compcor", "--contrasts", "d=go-stop"
        ),
        "run-sidecar": lambda: run(f"{BOLD}.json", "json"),
        "run-bold": lambda: run(f"{BOLD}.nii.gz", "image"),
        "run-mask": lambda: run(f"{MASK}.nii.gz", "image"),
        "run-config": lambda: with_file("run.toml", CONFIG, "--config-file", "run.toml", change="text"),
        "run-model": lambda: with_file(
            "m_smdl.json",
            json.dumps(go_stop_model(inputs.maker("flanker_model").FLANKER)),
            "-m",
            "m_smdl.json",
            change="json",
        ),
    }


def go_stop_model(flanker: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model of `flanker_model`, with the task and the conditions of `runs_by_code`."""
    text = json.dumps(flanker)
    for old, new in (("flanker", "x"), ("incongruent", "go"), ("congruent", "stop")):
        text = text.replace(old, new)
    content: dict[str, Any] = json.loads(text)
    return content
