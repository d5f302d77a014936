"""A small valid run of the run level, each of its files to be changed by tests."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

STEM = "sub-01_task-x_run-1"
FUNC = "raw/derivatives/fmriprep/sub-01/func"
BOLD = f"{FUNC}/{STEM}_space-MNI152NLin2009cAsym_desc-preproc_bold"
MASK = BOLD.replace("preproc_bold", "brain_mask")
CONFOUNDS = f"{FUNC}/{STEM}_desc-confounds_timeseries"
MODEL = ("--contrasts", "d=go-stop", "--confounds", "motion6", "a_comp_cor_0[0-2]")
QUICK = ("--no-report", "--nprocs", "1")
CONFIG = 'contrasts = ["d=go-stop"]\nconfounds = ["compcor"]\n[run]\nhrf = "spm"\nscrub_fd = 0.4\ndrop_volumes = 1\n'
HEADER = 352  # bytes of a NIfTI header and its flag of extensions


def kinds(inputs: Any) -> Mapping[str, Callable[[], Any]]:
    """Return what makes a case of each file of a run (`small_inputs.Inputs`)."""
    made = inputs.maker("runs_by_code")

    def run(target: str, change: str, *words: str, named: tuple[str, ...] = ()) -> Any:
        """Make the run; ``words`` are its model, and ``named`` what a refusal may name."""
        raw = made.make_study(inputs.root, runs=("1",))
        how = (*(words or MODEL), *QUICK)
        case = inputs.maker("small_inputs").Case
        changes = change_image if change == "image" else inputs.change(change)
        path: Path = inputs.root / target
        return case(
            lambda out: inputs.cli(raw, out, "run", *how, cwd=inputs.root), path, changes, (STEM, "--contrasts", *named)
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


def change_image(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes of the header, of voxels, or of the packed file; or cut it."""
    if rng.random() < 0.15:
        changed = bytearray(raw)
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        return bytes(changed[: int(rng.integers(len(changed)))] if rng.random() < 0.4 else changed)
    content = bytearray(gzip.decompress(raw))
    if rng.random() < 0.25:  # a field with an odd value
        header = nib.Nifti1Header(bytes(content[:348]), check=False)
        name = (
            "dim",
            "pixdim",
            "scl_slope",
            "scl_inter",
            "vox_offset",
            "datatype",
            "xyzt_units",
            "srow_x",
            "quatern_b",
        )[rng.integers(9)]
        field = np.atleast_1d(header[name]).copy()
        odd = (0, -1, 1, 7, 300, 32767, np.nan, np.inf, -np.inf, 1e30, 1e-30)[rng.integers(11)]
        if field.dtype.kind in "iu":
            odd = int(
                np.nan_to_num(
                    np.clip(odd, -32768 if field.dtype.itemsize > 1 else 0, 255 if field.dtype.itemsize == 1 else 32767)
                )
            )
        field[rng.integers(len(field))] = odd
        header[name] = field if header[name].ndim else field[0]
        content[:348] = header.binaryblock
    else:
        for _ in range(rng.integers(1, 6)):
            end = HEADER if rng.random() < 0.8 else len(content)
            at = int(rng.integers(end))
            new = (b"\0\0\xc0\x7f", b"\xff\xff\xff\xff", bytes(4), b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f")[
                rng.integers(5)
            ]
            new = new if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 3)))
            content[at : at + len(new)] = new
    return gzip.compress(bytes(content), 1)
