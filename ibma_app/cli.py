"""The three commands: a command line becomes options, a workflow and an exit code."""

import atexit
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

# One thread in BLAS: parallelism is ours, and sums in one order give the same bits on any machine.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")

gc.set_threshold(100_000)  # there are few cycles: looking for them among all imported objects took a tenth of a run
atexit.register(gc.freeze)  # and another at its end, where Python looks once more


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibma-app``.

    Returns
    -------
    int
        The exit code of the BIDS execution specification.
    """
    words = list(sys.argv[1:] if argv is None else argv)

    def run() -> int:
        from ibma_app.workflows.options.parse import parse_options

        options = parse_options(words)
        from ibma_app.workflows.any_level import run_level

        return run_level(options, words)

    return _guard(run, "ibma-app", verbose=_asks_for_traceback(words))


def demo_main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibma-demo``."""
    words = list(sys.argv[1:] if argv is None else argv)

    def run() -> int:
        from ibma_app.workflows.options.parse import parse_demo

        options = parse_demo(words)
        if options.from_bold:
            from ibma_app.workflows.demo.from_bold import run_bold_demo

            return run_bold_demo(options.output_dir, nprocs=options.nprocs)
        if options.surface:
            from ibma_app.workflows.demo.on_surface import run_surface_demo

            return run_surface_demo(options.output_dir, nprocs=options.nprocs)
        from ibma_app.workflows.demo.run_demo import run_demo

        return run_demo(options.output_dir, nprocs=options.nprocs)

    return _guard(run, "ibma-demo", verbose=_asks_for_traceback(words))


def import_main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibma-import``."""
    words = list(sys.argv[1:] if argv is None else argv)

    def run() -> int:
        from ibma_app.workflows.options.parse_import import parse_import

        options = parse_import(words)
        from ibma_app.workflows.importing.import_results import run_import

        return run_import(options)

    return _guard(run, "ibma-import", verbose=_asks_for_traceback(words))


def publish_main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibma-publish``."""
    words = list(sys.argv[1:] if argv is None else argv)

    def run() -> int:
        from ibma_app.workflows.options.parse_publish import parse_publish

        options = parse_publish(words)
        from ibma_app.workflows.publish import run_publish

        return run_publish(options)

    return _guard(run, "ibma-publish", verbose=_asks_for_traceback(words))


def _asks_for_traceback(words: Sequence[str]) -> bool:
    flags = [word for word in words if word in ("-v", "-vv", "-vvv", "--verbose")]
    return any(word.startswith("-vv") for word in flags) or len(flags) > 1


def _guard(run: Callable[[], int], program: str, *, verbose: bool) -> int:
    """Turn every failure of a program into a message and an exit code; tracebacks only with -vv."""
    from ibma_app.core.system.standard_streams import flush_streams, open_closed_streams

    open_closed_streams()
    code = _attempt(run, program, verbose=verbose)

    def end() -> int:
        flush_streams()
        return code

    return _attempt(end, program, verbose=verbose)


def _attempt(run: Callable[[], int], program: str, *, verbose: bool) -> int:
    from ibma_app.core.errors import IbmaError
    from ibma_app.core.system.standard_streams import write_error

    try:
        with _sigterm_as_interrupt():
            return run()
    except SystemExit as leaving:  # --help and --version
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        write_error(f"{program}: interrupted; what was finished is kept, nothing is half written.\n")
        return 130
    except IbmaError as error:
        if verbose:
            traceback.print_exc()
        write_error(f"{program}: error: {error.message}\n")
        return error.code
    except Exception as error:  # noqa: BLE001 - no traceback without -vv
        if verbose:
            traceback.print_exc()
        return _print_unexpected(error, program)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, which schedulers send before they kill a job, like Ctrl-C: nothing half written is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_unexpected(error: Exception, program: str) -> int:
    """Print an error that nobody expected: exit code 74 for the operating system's, 1 for others."""
    from ibma_app.core.errors import ReadWriteError, in_words
    from ibma_app.core.system.standard_streams import write_error

    worded = in_words(error, "Give a smaller --mem or fewer --nprocs." if program == "ibma-app" else "")
    kind = "error: " if isinstance(worded, ReadWriteError) else ""
    write_error(f"{program}: {kind}{worded.message}\n")
    return worded.code
