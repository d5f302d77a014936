"""Scores of relabellings kept on disk, from which the same run goes on when it was killed."""

import hashlib
import io
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app import __version__
from ibma_app.core.errors import IbmaError

Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

FOLDER = ".ibma-resampling"
"""The folder in OUTPUT_DIR."""
EVERY = 30.0  # s before the first checkpoint and between two: a short run writes none
LASTING = 30 * 86_400.0  # s after which a file that no run has taken up is removed
COMPUTING = ("numpy", "scipy", "numba")  # packages whose version may change a number


@dataclass
class _Pass:
    """The scores of one pass, and how many of them are on disk."""

    maxima: Floats  # (S, D), NaN: not yet
    saved: int = 0  # relabellings


class Checkpoints:
    """Saves the scores of passes twice a minute, each pass in a small file, and finds those of an earlier run.

    A pass is identified by a hash of everything that decides its numbers: when
    data, design, settings or software differ, it starts anew. Where the disk
    cannot be written, a warning is logged and the run goes on without.

    Parameters
    ----------
    folder : Path
        Of the files.
    write : callable
        Called with a name and a content: writes the file into the folder in one step; may raise IbmaError.
    """

    def __init__(self, folder: Path, write: Callable[[str, bytes], Any]) -> None:
        self._folder, self._write = folder, write
        self._passes: dict[str, _Pass] = {}
        self._began = self._last = time.monotonic()
        self._broken = False

    def begin(self, key: str, maxima: Floats, name: str) -> Floats:
        """Return the scores that an earlier run saved of a pass, else ``maxima``: what it is filled with will be saved.

        Parameters
        ----------
        key : str
            From `digest`.
        maxima : ndarray, shape (S, D)
            All NaN.
        name : str
            Of the pass, for the log.
        """
        earlier = self._find(key, maxima.shape)
        kept = _Pass(maxima if earlier is None else earlier)
        kept.saved = _count(kept.maxima)
        self._passes[key] = kept
        if kept.saved:
            count = f"{kept.saved:,} of {maxima.shape[1]:,}"
            log.info("%s goes on from resample %s, kept by an earlier run.", name, count)
        return kept.maxima

    def save(self, *, ending: bool = False) -> None:
        """Save what is new if the last save was long ago, or, at the end of a pass, if the run began long ago."""
        since = self._began if ending else self._last
        if self._broken or time.monotonic() - since < EVERY:
            return
        for key, kept in self._passes.items():
            count = _count(kept.maxima)
            if count == kept.saved:
                continue
            content = io.BytesIO()
            np.save(content, kept.maxima, allow_pickle=False)
            try:
                self._write(f"{key}.npy", content.getvalue())
            except IbmaError as error:
                log.warning("If this run ends early, its resampling starts anew: %s", error.message)
                self._broken = True
                return
            kept.saved = count
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete the passes' files, once the results are written, and any file older than a month."""
        with suppress(OSError):
            for path in self._folder.glob("*.npy"):
                if path.stem in self._passes or time.time() - path.stat().st_mtime > LASTING:
                    path.unlink(missing_ok=True)
            self._folder.rmdir()
        self._passes.clear()

    def _find(self, key: str, shape: tuple[int, ...]) -> Floats | None:
        """Read a pass's file; None where there is none, or it is damaged."""
        try:
            found = np.load(self._folder / f"{key}.npy", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            log.warning("%s cannot be used (%s): resampling starts anew.", self._folder / f"{key}.npy", error)
            return None
        return found if found.shape == shape and found.dtype == np.float64 else None


def _count(maxima: Floats) -> int:
    """Count the relabellings that have their scores."""
    return int(np.count_nonzero(~np.isnan(maxima).any(axis=0)))


def digest(parts: Iterable[Any]) -> str:
    """Hash arrays (type, shape, values), anything else whose repr is stable, and the versions of the software."""
    versions = [__version__, *(f"{name} {version(name)}" for name in COMPUTING)]
    hashed = hashlib.blake2b(repr(versions).encode(), digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            hashed.update(f"|{part.dtype} {part.shape}|".encode())
            hashed.update(np.ascontiguousarray(part).data)
        else:
            hashed.update(f"|{part!r}|".encode())
    return hashed.hexdigest()
