"""One run of a level: its messages, its log folder, its jobs and its exit code."""

import dataclasses
import json
import logging
import logging.handlers
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tomli_w

from ibma_app import __version__
from ibma_app.core.errors import IbmaError, OutputError
from ibma_app.workflows.options import Options
from ibma_app.workflows.parsing import options_as_toml

log = logging.getLogger("ibma_app")

PACKAGES = ("numpy", "scipy", "numba", "nibabel", "pybids", "nilearn", "pandas", "formulaic")


@dataclasses.dataclass
class RunRecord:
    """What happened to each job of a run."""

    failures: dict[str, IbmaError] = dataclasses.field(default_factory=dict)
    done: list[str] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 all done; one job's own code when there was no other; 1 when others were done."""
        if not self.failures:
            return 0
        codes = {error.code for error in self.failures.values()}
        return codes.pop() if not self.done and len(codes) == 1 else 1


def run_level(options: Options, words: Sequence[str] = ()) -> int:
    """Run one level with its messages on stderr; return the exit code."""
    from ibma_app.workflows.group import run_group
    from ibma_app.workflows.participant import run_participant

    run = run_participant if options.analysis_level == "participant" else run_group
    with _messages(options):
        return run(options, words)


@contextmanager
def _messages(options: Options) -> Iterator[None]:
    """Show messages on stderr, and keep all of them for the log file."""
    level = logging.WARNING if options.quiet else logging.INFO
    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(logging.DEBUG if options.verbose else level)
    screen.setFormatter(_Plain())
    kept = logging.handlers.MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    handlers = (screen, kept)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


class _Plain(logging.Formatter):
    """``warning: text``; information stands alone."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


@contextmanager
def run_folder(options: Options, words: Sequence[str]) -> Iterator[RunRecord]:
    """Keep a folder of this run: options that rerun it, log, versions, timings, status of each job.

    Raises
    ------
    OutputError
        The folder cannot be made.
    """
    started = datetime.now(UTC)
    stamp = f"{started:%Y%m%dT%H%M%SZ}_{options.analysis_level}_{platform.node()}-{os.getpid()}"
    folder = options.output_dir / "logs" / stamp
    try:
        folder.mkdir(parents=True)
        (folder / "options.toml").write_text(_rerun(options), encoding="utf-8")
        handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"The log folder {folder} cannot be made: {error.strerror or error}.") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for kept in [h for h in log.handlers if isinstance(h, logging.handlers.MemoryHandler)]:
        kept.setTarget(handler)
        kept.flush()
        log.removeHandler(kept)
    log.addHandler(handler)
    record, clock = RunRecord(), time.perf_counter()
    state = "interrupted"
    try:
        yield record
        state = "finished"
    except Exception as error:
        state = f"failed: {error}"
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
        _save_status(folder, words, record, state, time.perf_counter() - clock, started)


def _rerun(options: Options) -> str:
    """Write the options as TOML, with the command that runs them again."""
    positional = [str(options.bids_dir), str(options.output_dir), options.analysis_level]
    command = shlex.join(["ibma-app", *positional, "--config-file"])
    return f"# {command} THIS_FILE\n\n{tomli_w.dumps(options_as_toml(options))}"


def _save_status(
    folder: Path, words: Sequence[str], record: RunRecord, state: str, seconds: float, started: datetime
) -> None:
    status = {
        "state": state,
        "command": shlex.join(["ibma-app", *words]),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "software": software_versions(),
        "done": sorted(record.done),
        "failed": {name: {"code": e.code, "message": e.message} for name, e in sorted(record.failures.items())},
        "seconds_by_job": {name: round(taken, 2) for name, taken in sorted(record.seconds.items())},
    }
    try:
        (folder / "run.json").write_text(json.dumps(status, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        log.warning("The run's status could not be kept in %s: %s.", folder, error.strerror or error)


def software_versions() -> dict[str, str]:
    """Tell the versions of what computed the numbers."""
    versions = {"ibma-app": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def tell_outcome(record: RunRecord, what: str) -> None:
    """Say in the last lines what failed and why; the last line names all that failed."""
    for name, error in sorted(record.failures.items()):
        log.error("%s failed: %s", name, error.message)
    if record.failures:
        names = ", ".join(sorted(record.failures))
        log.error(
            "%d of %d %s failed: %s",
            len(record.failures),
            len(record.failures) + len(record.done),
            what,
            names,
        )


def failures_as_messages(failures: Mapping[str, IbmaError]) -> tuple[str, ...]:
    """Word failures for a report's notes."""
    return tuple(f"{name}: {error.message}" for name, error in sorted(failures.items()))
