"""Scores of relabellings that a killed run leaves behind, for the next run of the same to go on from."""

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
"""Where they lie, in OUTPUT_DIR."""
EVERY = 30.0  # s between two savings, and before the first: a short run writes nothing
LASTING = 30 * 86_400.0  # s: what a run that nobody took up again left is removed after that
COMPUTING = ("numpy", "scipy", "numba")


@dataclass
class _Kept:
    """One pass's scores, and how many of them are saved."""

    maxima: Floats  # (S, D), NaN: not yet
    saved: int = 0  # relabellings


class Checkpoints:
    """Saves the scores of passes every half minute, each in a small file of its own, and finds those of an earlier run.

    A pass is known by a hash of all that its numbers come from: whatever
    differs, data, design, settings or software, begins anew. A disk that
    cannot be written ends the saving, with a warning, never the run.

    Parameters
    ----------
    folder : Path
        Where earlier runs' files are looked for.
    write : callable
        Puts a file of this name and content there in one step; may raise IbmaError.
    """

    def __init__(self, folder: Path, write: Callable[[str, bytes], Any]) -> None:
        self._folder, self._write = folder, write
        self._passes: dict[str, _Kept] = {}
        self._began = self._last = time.monotonic()
        self._broken = False

    def begin(self, key: str, maxima: Floats, name: str) -> Floats:
        """Find what an earlier run has kept of a pass, else take ``maxima``; what it is filled with is saved.

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
        kept = _Kept(maxima if earlier is None else earlier)
        kept.saved = _count(kept.maxima)
        self._passes[key] = kept
        if kept.saved:
            count = f"{kept.saved:,} of {maxima.shape[1]:,}"
            log.info("%s goes on from resample %s, kept by an earlier run.", name, count)
        return kept.maxima

    def save(self, *, ending: bool = False) -> None:
        """Save what is new, when it is time to; at the end of a pass always, unless the run is young."""
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
        """Forget the passes: their results are written. What is older than a month goes too."""
        with suppress(OSError):
            for path in self._folder.glob("*.npy"):
                if path.stem in self._passes or time.time() - path.stat().st_mtime > LASTING:
                    path.unlink(missing_ok=True)
            self._folder.rmdir()
        self._passes.clear()

    def _find(self, key: str, shape: tuple[int, ...]) -> Floats | None:
        """Read a pass's file; one that is damaged counts for nothing."""
        try:
            found = np.load(self._folder / f"{key}.npy", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            log.warning("%s cannot be used (%s): resampling starts anew.", self._folder / f"{key}.npy", error)
            return None
        return found if found.shape == shape and found.dtype == np.float64 else None


def _count(maxima: Floats) -> int:
    """Count the relabellings whose scores are there."""
    return int(np.count_nonzero(~np.isnan(maxima).any(axis=0)))


def digest(parts: Iterable[Any]) -> str:
    """Hash arrays (type, shape, values) and whatever else has a lasting repr, with the versions that compute."""
    versions = [__version__, *(f"{name} {version(name)}" for name in COMPUTING)]
    hashed = hashlib.blake2b(repr(versions).encode(), digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            hashed.update(f"|{part.dtype} {part.shape}|".encode())
            hashed.update(np.ascontiguousarray(part).data)
        else:
            hashed.update(f"|{part!r}|".encode())
    return hashed.hexdigest()
