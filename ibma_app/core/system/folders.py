"""Folders that a machine may lack: a home, one for temporary files, the current one."""

import os
import tempfile
from pathlib import Path

from ibma_app.core.errors import InputError, OutputError


def home_folder() -> Path | None:
    """Return the home folder; None where there is none (a uid without an account and HOME), or it cannot be read."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if os.access(home, os.R_OK | os.X_OK) else None


def temporary_folder(named: Path | None = None) -> Path:
    """Return the folder for temporary files: the one that was named, else SLURM's, else the system's.

    Raises
    ------
    OutputError
        There is none.
    """
    chosen = named or os.environ.get("SLURM_TMPDIR")
    try:
        return Path(chosen or tempfile.gettempdir())
    except FileNotFoundError:
        raise OutputError(
            "There is no folder for temporary files: neither /tmp nor /var/tmp can be written, and TMPDIR names none "
            "that can. Set TMPDIR to a folder where you may write (--work-dir of ibma-app does, too)."
        ) from None


def stand_in_for_temporary(folder: Path) -> None:
    """Let libraries that ask for the system's folder of temporary files take this one, where the system has none."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)


def absolute_path(path: Path) -> Path:
    """Make a path absolute; links keep their names (`Path.resolve` would follow them).

    Raises
    ------
    InputError
        The path is relative, and the current folder is gone.
    """
    try:
        return Path(os.path.abspath(path))  # noqa: PTH100
    except OSError as error:
        raise InputError(
            f"The current folder is gone or cannot be read ({error.strerror}), so {path} leads nowhere. Go to a folder "
            "that exists, or give absolute paths."
        ) from None
