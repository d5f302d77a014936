"""Compiled kernels of a run: where they are kept is logged, and a warning says when they are not."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ibma_app.stats.kernel_cache import cache_folders, last_resort, saving_folder

log = logging.getLogger(__name__)


@contextmanager
def keep_kernels(work_dir: Path) -> Iterator[None]:
    """Keep the kernels that a run compiles: where no lasting folder takes them, for the processes of this run.

    Parameters
    ----------
    work_dir : Path
        Where such a folder of this run is made, and removed at the end.
    """
    folders, kept = cache_folders(), saving_folder()
    words = "new ones can be kept in none of them" if kept is None else f"new ones are kept in {kept}"
    log.debug("Compiled kernels are looked for in %s; %s.", _join(folders), words)
    with (
        tempfile.TemporaryDirectory(prefix="ibma-kernels-", dir=work_dir, ignore_cleanup_errors=True) as folder,
        last_resort(Path(folder)),
    ):
        try:
            yield
        finally:
            if any(Path(folder).glob("*.nbc")):
                _warn(folders)


@cache
def _warn(folders: tuple[Path, ...]) -> None:
    """Warn, once a process."""
    log.warning(
        "Kernels were compiled that cannot be kept (in %s): every run will spend that time again, tens of seconds in "
        "all. Set NUMBA_CACHE_DIR to a folder that can be written and lasts, for all jobs the same, and run ibma-demo "
        "there once.",
        _join(folders),
    )


def _join(folders: Sequence[Path]) -> str:
    return " or ".join(str(folder) for folder in folders)
