"""The records of the run level: how a run is modelled, and what its model is.

`RunSettings` are the same for all runs. A `RunModel` is one run's: options make it of the events
(`ibma_app.firstlevel.conditions`), and a BIDS Stats Model does (`ibma_app.firstlevel.model`). What follows
(design matrix, fit, files, page) knows these records alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HRFS = (
    *("spm", "spm + derivative", "spm + derivative + dispersion"),
    *("glover", "glover + derivative", "glover + derivative + dispersion"),
    "fir",
)
"""Hemodynamic responses, by nilearn's names."""

UNITS = ("percent", "none")
"""Units of effects: percent signal change, or as the BOLD has them."""

NOISE_MODELS = ("ar", "ar1", "ols")
"""Models of the noise: see `ibma_app.firstlevel.noise`."""


@dataclass(frozen=True)
class RunSettings:
    """How runs are modelled: the table ``[run]`` of the configuration, and options of the command line."""

    hrf: str = "spm"
    fir_delays: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)  # volumes, for the HRF ``fir``
    noise: str = "ar"
    high_pass: float = 1 / 128  # Hz; 0: none. Where the confounds have fMRIPrep's cosines, these are it
    confounds: tuple[str, ...] = ("motion24",)  # a strategy, or columns (wildcards allowed)
    scrub_fd: float | None = None  # mm: volumes of more framewise displacement are left out
    drop_volumes: int = 0  # at the start
    start_time: float | None = None  # s: when volumes were acquired, relative to their start; None: as sidecars say
    units: str = "percent"  # or "none"
    smoothing: float = 0.0  # FWHM in mm, of the BOLD
    residuals: bool = False  # whether the residual time series is written


@dataclass(frozen=True)
class Timing:
    """When the volumes of a run were acquired."""

    repetition_time: float  # s
    n_volumes: int  # those that are used
    start_time: float  # s: of volume 0 of the file, on the clock of the events
    source: str  # which file or rule says the start time
    dropped: int = 0  # volumes at the start of the file that are not used

    @property
    def frame_times(self) -> Floats:
        """When each used volume was acquired, s: (T,), on the clock of the events."""
        volumes = self.dropped + np.arange(self.n_volumes, dtype=np.float64)
        times: Floats = self.start_time + self.repetition_time * volumes
        return times


@dataclass(frozen=True, eq=False)
class RunTables:
    """The tables of a run: events as texts ("" for ``n/a``), confounds as numbers, a row for each used volume."""

    events: Mapping[str, tuple[str, ...]]  # column -> cells
    confounds: Mapping[str, Floats]  # column -> (T,) of the used volumes, NaN where there is no number
    confounds_metadata: Mapping[str, Any] = field(default_factory=dict)  # its JSON: aCompCor's masks and variances


@dataclass(frozen=True, eq=False)
class Regressor:
    """Events that are convolved with a hemodynamic response into one or more columns of the design.

    The columns are named as nilearn names them: ``name``, ``name_derivative``, ``name_dispersion``,
    ``name_delay_0``, ...
    """

    name: str
    onsets: Floats  # (E,) s
    durations: Floats  # (E,) s; 0: an impulse
    amplitudes: Floats  # (E,)
    hrf: str | None = None  # None: that of the settings
    fir_delays: tuple[int, ...] | None = None  # None: those of the settings


@dataclass(frozen=True)
class RunContrast:
    """A contrast of columns of a run's design: one row of weights for t, several for F."""

    name: str
    rows: tuple[Mapping[str, float], ...]  # column -> weight
    stat: str = "t"  # or "F"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns with weight in any row, in order."""
        return tuple(dict.fromkeys(column for row in self.rows for column, weight in row.items() if weight))


@dataclass(frozen=True, eq=False)
class RunModel:
    """The model of one run, before its design matrix is made.

    The design's columns are the regressors', then ``columns``, then cosines of the high-pass (unless ``columns``
    have fMRIPrep's, or the settings want none), a column for each scrubbed volume, and a constant (unless
    ``columns`` have one).
    """

    regressors: tuple[Regressor, ...]
    columns: Mapping[str, Floats] = field(default_factory=dict)  # name -> (T,): confounds, and variables of a model
    contrasts: tuple[RunContrast, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)  # contrast that this run lacks -> why
    scrubbed: tuple[int, ...] = ()  # used volumes (from 0) that are left out
    hrf: str | None = None  # None: that of the settings
    high_pass: float | None = None  # Hz; None: that of the settings
    confounds: tuple[str, ...] = ()  # of ``columns``: those that are confounds, for the sidecar
    notes: tuple[str, ...] = ()  # what the user should know of how it was made
