"""Damaged and hostile files end in words: small valid inputs of every kind, changed at random, run by the commands.

Each run ends with a result or with a refusal that names the file; never in an
internal error, a traceback, a hang, half a GiB of memory or half a result.
``IBMA_MUTATIONS`` says how many changes of each kind are tried, and
``IBMA_FIRST_MUTATION`` from which on.
"""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

SEEDS, FIRST = int(os.environ.get("IBMA_MUTATIONS", "15")), int(os.environ.get("IBMA_FIRST_MUTATION", "0"))
SECONDS, MEMORY = 60, 500 * 2**20  # of a run; a loaded machine is slow
CODES = {0, 1, 16, 18, 64, 65, 66, 73, 74}
KINDS = (
    *("spm", "spm-hdf5", "fsl-design.con", "fsl-design.mat", "fsl-design.fsf", "fsl-dof", "fsl-matrix"),
    *("afni-head", "afni-design", "afni-nifti", "nidm-turtle", "nidm-zip", "neurovault", "table", "table-regions"),
    *("sidecar", "description", "participants.tsv", "studies.tsv", "config", "filter", "contrasts", "atlas"),
    *("atlas-image", "map-image", "mask-image", "labels", "dependence", "spm-image", "fsl-image"),
    *("run-events", "run-confounds", "run-confounds-json", "run-sidecar", "run-bold", "run-mask"),
    *("run-config", "run-model", "gifti", "cifti", "parcels"),
)


@pytest.fixture
def inputs(
    tmp_path: Path, maker: Any, load_test: Any, ibma_import: Any, cli: Any, describe_dataset: Any, write_statmap: Any
) -> Any:
    made = maker("small_inputs").Inputs
    return made(tmp_path, maker, load_test, ibma_import, cli, describe_dataset, write_statmap)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """End what takes longer; a formula's own time limit comes before it."""

    def stop(*_: object) -> None:
        raise AssertionError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak_memory(*, reset: bool = False) -> int:
    """Return the most memory that this process had since the last reset, in bytes (0 where Linux does not tell)."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def judge(ran: Any, case: Any, out: Path) -> list[str]:
    """Say what is wrong with how a command ended."""
    faults = [words for words in ("internal error", "Traceback", "out of memory") if words in ran.stderr]
    if ran.code not in CODES:
        faults.append(f"exit code {ran.code}")
    names = (case.target.name, str(case.target.parent.name), *case.named)
    if ran.code and not any(name in ran.stderr for name in names):
        faults.append("names no file")
    for path in out.rglob("*") if out.exists() else ():
        if path.is_file() and path.name.startswith(".") and path.name != ".bidsignore":
            faults.append(f"left {path.name}")
        if path.name.endswith("_statmap.nii.gz"):
            if not path.with_name(path.name.replace(".nii.gz", ".json")).exists():
                faults.append(f"{path.name} without sidecar")
            elif not np.isfinite(np.asarray(nib.load(path).dataobj)).all():
                faults.append(f"{path.name} is not finite")
    return faults


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_changed_inputs_end_in_words(inputs: Any, kind: str, tmp_path: Path) -> None:
    one = inputs.kinds[kind]()
    raw = one.target.read_bytes()
    valid = one.run(tmp_path / "valid")
    assert valid.code == 0, valid.stderr
    faults: dict[int, str] = {}
    for seed in range(FIRST, FIRST + SEEDS):
        rng = np.random.default_rng([seed, *kind.encode()])
        one.target.write_bytes(one.change(raw, rng))
        before = peak_memory(reset=True)
        start = time.monotonic()
        out = tmp_path / "out"
        try:
            with within(SECONDS):
                ran = one.run(out)
        except BaseException as error:  # noqa: BLE001 - whatever leaves a command is a fault
            faults[seed] = f"{type(error).__name__}: {str(error)[:300]}"
        else:
            wrong = judge(ran, one, out)
            used = peak_memory() - before
            wrong += [f"{used >> 20} MiB"] if used > MEMORY else []
            if wrong:
                faults[seed] = f"{'; '.join(wrong)} ({time.monotonic() - start:.0f} s): {ran.stderr[-500:]}"
        shutil.rmtree(out, ignore_errors=True)
    assert faults == {}, "\n".join(f"seed {seed}: {text}" for seed, text in faults.items())
