"""How many cores and how much memory a run takes, what workers it has, and where its temporary files go."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ibma_app.core.errors import OutputError
from ibma_app.core.system.folders import stand_in_for_temporary, temporary_folder
from ibma_app.dataset.output_dir import Output, replace_file
from ibma_app.stream.resampling.checkpoints import FOLDER, Checkpoints
from ibma_app.stream.workers.dask_pool import DaskPool, open_dask
from ibma_app.stream.workers.machine import available_cores, default_memory, parse_size, return_freed_memory
from ibma_app.stream.workers.process_pool import Pool, open_pool
from ibma_app.stream.workers.resources import Resources
from ibma_app.workflows.command.kernels import keep_kernels
from ibma_app.workflows.options.table import Options


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


@contextmanager
def open_workers(options: Options, resources: Resources) -> Iterator[DaskPool | None]:
    """Open Dask's workers, when asked for (``--dask``); kernels that anyone here compiles are kept."""
    with keep_kernels(temporary_folder(resources.work_dir)):
        if options.dask is None:
            yield None
            return
        with open_dask(
            options.dask, nprocs=resources.threads, memory=resources.memory, work_dir=resources.work_dir
        ) as workers:
            yield workers


@contextmanager
def open_processes(options: Options, resources: Resources, module: str) -> Iterator[Pool | DaskPool]:
    """Open workers for independent jobs: Dask's, else processes that have imported a module."""
    with open_workers(options, resources) as workers:
        if workers is not None:
            yield workers
            return
        with open_pool(resources.threads, preload=(module,), initializer=return_freed_memory) as pool:
            yield pool


def make_checkpoints(output: Output) -> Checkpoints:
    """Make checkpoints that lie in OUTPUT_DIR."""

    def keep(name: str, content: bytes) -> None:
        replace_file(output, Path(FOLDER) / name, lambda path: _write(path, content))

    return Checkpoints(output.root / FOLDER, keep)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _work_dir(options: Options) -> Path:
    folder = temporary_folder(options.work_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"The work folder {folder} cannot be made or written ({error.strerror or error}). Name another with "
            "--work-dir."
        ) from None
    stand_in_for_temporary(folder)
    return folder
