"""One run of a level: its messages, its log folder, its jobs and its exit code."""

import dataclasses
import logging
import logging.handlers
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol, TextIO

import tomli_w

from ibma_app import __version__
from ibma_app.core.errors import IbmaError, in_words
from ibma_app.core.results import NO_FACTS, RunFacts
from ibma_app.core.system.standard_streams import silence
from ibma_app.dataset.output_dir import Output
from ibma_app.dataset.write import save_json, save_text
from ibma_app.workflows.options.parse import options_as_toml
from ibma_app.workflows.options.table import Options

log = logging.getLogger("ibma_app")

PACKAGES = ("numpy", "scipy", "numba", "nibabel", "pybids", "nilearn", "pandas", "formulaic", "zlib-ng")


@dataclasses.dataclass
class RunRecord:
    """What happened to each job of a run."""

    failures: dict[str, IbmaError] = dataclasses.field(default_factory=dict)
    done: list[str] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    folder: Path = Path("logs")  # the run's own, relative to OUTPUT_DIR
    facts: RunFacts = NO_FACTS  # for the pages

    @property
    def exit_code(self) -> int:
        """0 all done; one job's own code when there was no other; 1 when others were done."""
        if not self.failures:
            return 0
        codes = {error.code for error in self.failures.values()}
        return codes.pop() if not self.done and len(codes) == 1 else 1


class Verbosity(Protocol):
    """The options that say how much is shown."""

    @property
    def verbose(self) -> int:
        """More messages."""

    @property
    def quiet(self) -> bool:
        """Warnings and errors only."""


@contextmanager
def messages(options: Verbosity) -> Iterator[None]:
    """Show messages on stderr, and keep all of them for the log file."""
    level = logging.WARNING if options.quiet else logging.INFO
    screen = _Screen(sys.stderr)
    screen.setLevel(logging.DEBUG if options.verbose else level)
    screen.setFormatter(_Plain(tracebacks=options.verbose > 1))
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


class _Screen(logging.StreamHandler[TextIO]):
    """Messages on stderr; when nobody reads it, or its disk is full, the run goes on without."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            silence(self.stream)
        else:
            super().handleError(record)


class _Plain(logging.Formatter):
    """``warning: text``; information stands alone; tracebacks when asked for (-vv)."""

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and self._tracebacks:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


class _LogFile(logging.FileHandler):
    """A log file that is closed, with a warning on the screen, when it cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:
        log.removeHandler(self)
        log.warning("The log of this run cannot be written any more: %s", sys.exc_info()[1])


@contextmanager
def run_folder(output: Output, options: Options, words: Sequence[str]) -> Iterator[RunRecord]:
    """Keep a folder of this run: options that rerun it, log, versions, timings, status of each job.

    Raises
    ------
    OutputError, ReadWriteError
        The folder cannot be made, or the disk is full.
    """
    started = datetime.now(UTC)
    folder = Path("logs") / f"{started:%Y%m%dT%H%M%SZ}_{options.analysis_level}_{platform.node()}-{os.getpid()}"
    save_text(output, folder / "options.toml", _rerun(options))
    handler = _LogFile(output.root / folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for kept in [h for h in log.handlers if isinstance(h, logging.handlers.MemoryHandler)]:
        kept.setTarget(handler)
        kept.flush()
        log.removeHandler(kept)
    log.addHandler(handler)
    facts = RunFacts(shlex.join(["ibma-app", *words]), f"{started:%Y-%m-%d %H:%M} UTC")
    record, clock = RunRecord(folder=folder, facts=facts), time.perf_counter()
    state = "interrupted"
    try:
        yield record
        state = "finished"
    except Exception as error:
        state = f"failed: {error}"
        raise
    finally:
        log.removeHandler(handler)
        with suppress(OSError):  # the disk is full: the error of the run itself matters more
            handler.close()
        status = _status(words, record, state, time.perf_counter() - clock, started)
        try:
            save_json(output, folder / "run.json", status)
        except IbmaError as error:
            log.warning("The status of this run could not be kept: %s", error.message)


def _rerun(options: Options) -> str:
    """Write the options as TOML, with the command that runs them again."""
    positional = [str(options.bids_dir), str(options.output_dir), options.analysis_level]
    command = shlex.join(["ibma-app", *positional, "--config-file"])
    return f"# {command} THIS_FILE\n\n{tomli_w.dumps(options_as_toml(options))}"


def _status(
    words: Sequence[str], record: RunRecord, state: str, seconds: float, started: datetime
) -> dict[str, object]:
    return {
        "state": state,
        "command": shlex.join(["ibma-app", *words]),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "software": software_versions(),
        "done": sorted(record.done),
        "failed": {name: {"code": e.code, "message": e.message} for name, e in sorted(record.failures.items())},
        "seconds_by_job": {name: round(taken, 2) for name, taken in sorted(record.seconds.items())},
    }


def software_versions() -> dict[str, str]:
    """List the versions of the software that computes the numbers."""
    versions = {"ibma-app": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def as_ibma_error(error: Exception) -> IbmaError:
    """Make an `IbmaError` of a job's error; an unexpected one is logged as a bug of ours.

    It is a new error: the frames of the old one keep maps in memory.
    """
    if isinstance(error, IbmaError):
        return type(error)(error.message)
    log.debug("An unexpected error", exc_info=error)
    return in_words(error, "Give a smaller --mem or fewer --nprocs.")


SHOWN = 5  # failures shown with their messages; the log file has all


def log_outcome(record: RunRecord, what: str, total: int) -> None:
    """Log what failed of ``total`` jobs and why; the last line names all that failed."""
    failures = sorted(record.failures.items())
    alike: dict[str, list[str]] = {}
    for name, error in failures:
        alike.setdefault(error.message, []).append(name)
    for number, (message, names) in enumerate(alike.items()):
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        log.log(logging.ERROR if number < SHOWN else logging.DEBUG, "%s failed: %s", shown, message)
    if len(alike) > SHOWN:
        rest = sum(map(len, list(alike.values())[SHOWN:]))
        log.error("... and %d more: see the log in OUTPUT_DIR/logs, or run with -v.", rest)
    if failures:
        log.error("%d of %d %s failed: %s", len(failures), total, what, ", ".join(name for name, _ in failures))
