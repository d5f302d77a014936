"""What surrounds a run: its log, its failures."""

import logging
from pathlib import Path

import pytest

from ibma_app.core.errors import DataError, ReadWriteError
from ibma_app.workflows.command.log import _LogFile, as_ibma_error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as on Linux")
def test_a_log_that_cannot_be_written_ends_without_a_traceback(capfd):
    log = logging.getLogger("ibma_app")
    handler = _LogFile("/dev/full", encoding="utf-8")
    log.addHandler(handler)
    try:
        log.warning("first")
        log.warning("second")
    finally:
        log.removeHandler(handler)
        with pytest.raises(OSError, match="No space"):
            handler.close()
    assert handler not in log.handlers
    assert "Traceback" not in capfd.readouterr().err


def test_failures_keep_no_maps():
    """An error that is kept to be told at the end holds no frame of what failed."""
    try:
        raise DataError("Bad values.")
    except DataError as error:
        kept = as_ibma_error(error)
    assert (type(kept), kept.message) == (DataError, "Bad values.")
    assert kept.__traceback__ is None
    assert kept.__context__ is None


def test_errors_of_the_system_are_worded():
    full = as_ibma_error(OSError(28, "No space left on device", "map.nii.gz"))
    assert isinstance(full, ReadWriteError)
    assert "No space left on device (map.nii.gz)" in full.message
    assert "--mem" in as_ibma_error(MemoryError()).message
    assert "internal error (KeyError" in as_ibma_error(KeyError("x")).message
