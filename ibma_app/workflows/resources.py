"""How many cores and how much memory a run takes, and where its temporary files go."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ibma_app.core.errors import OutputError
from ibma_app.stream.budget import available_cores, default_memory, parse_size, return_freed_memory
from ibma_app.workflows.options import Options


@dataclass(frozen=True)
class Resources:
    """What all processes of a run may use together."""

    nprocs: int
    memory: int  # bytes
    work_dir: Path

    @property
    def memory_per_process(self) -> int:
        """An equal share of the memory, in bytes."""
        return self.memory // self.nprocs


def resources_for(options: Options, jobs: int | None = None) -> Resources:
    """Resolve ``--nprocs``, ``--mem`` and ``--work-dir``; no more processes than jobs.

    Raises
    ------
    OutputError
        The work folder cannot be made or written.
    """
    return_freed_memory()
    nprocs = options.nprocs or available_cores()
    nprocs = max(1, nprocs if jobs is None else min(nprocs, jobs))
    memory = parse_size(options.mem) if options.mem else default_memory()
    return Resources(nprocs, memory, _work_dir(options))


def _work_dir(options: Options) -> Path:
    folder = options.work_dir or Path(os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"The work folder {folder} cannot be made or written ({error.strerror or error}). Name another with "
            "--work-dir."
        ) from None
    return folder


def file_or_word(text: str) -> str | Path:
    """Take ``--grid`` and ``--mask``: one of their words, else a file."""
    return text if text in ("common", "mni2mm", "auto", "data", "template") else Path(text)
