"""Simulate the BOLD of a demonstration whose truth is known at three levels.

A voxel's series is ``mean * (1 + (responses + drifts + motion + noise) / 100)``:

- responses to faces and houses, in percent of one event's; their difference is ``effect + u`` in a person, with
  variance tau2 between persons, and the same in both runs;
- slow drifts and what six motion parameters leave, of which the confounds know;
- noise that is smooth in space and AR(1) in time, of a standard deviation that differs by place and run.

The response is the closed form of SPM's double gamma, integrated over each event: no grid of samples, and none of
the run level's own code.

Letters: V voxels of the brain, T volumes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from ibma_app.core.anatomy.elements import require_grid
from ibma_app.core.grid import Grid
from ibma_app.workflows.demo.simulate import Blob, Truth, places_of
from ibma_app.workflows.demo.smooth_noise import NOISE_FWHM, smooth_noise, smoothing_kernels

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

RUNS = ("1", "2")
VOLUMES, TR, START = 130, 2.0, 0.95  # START: s, of the first volume on the clock of the events
CONDITIONS = ("faces", "houses")
EVENTS, DURATION, GAP = 26, 3.0, (6.5, 11.5)  # events of both together; s; s between onsets
BLOBS = (  # of the difference, percent: faces more than houses on both sides, houses more in the middle
    Blob((-40, -54, -16), 28, 1.2),
    Blob((40, -54, -16), 28, 1.2),
    Blob((4, -60, 34), 28, -0.9),
)
SHARED_BLOB = Blob((0, -84, 4), 34, 1.0)  # both conditions, at the back: it leaves their difference alone
RHO = 0.35  # autocorrelation of the noise from volume to volume
NOISE = 0.6  # percent: its standard deviation, typically
TAU = 0.2  # percent: standard deviation between persons
CYCLES = 4  # slow cosines, as fMRIPrep's for 128 s
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
HEAD = 50.0  # mm: radius at which rotations are displacements (Power 2012)
PEAK, UNDERSHOOT, RATIO = 6.0, 16.0, 0.167  # SPM's double gamma


@dataclass(frozen=True, eq=False)
class SimulatedRun:
    """A run as it will lie on disk."""

    subject: str
    run: str
    series: Singles  # (V, T)
    events: Mapping[str, Floats]  # condition -> onsets, s
    confounds: Mapping[str, Floats]  # column -> (T,); NaN: n/a


@dataclass(frozen=True, eq=False)
class SimulatedBold:
    """The runs of all subjects, made one at a time, and their truth."""

    truth: Truth  # of the difference of both conditions; what a subject's runs estimate is in its units
    seed: int
    labels: tuple[str, ...] = field(default=())

    def runs(self) -> Iterator[SimulatedRun]:
        """Make the runs, one after the other."""
        for number, label in enumerate(self.labels):
            rng = np.random.default_rng([self.seed, 12, number])
            baseline = 10_000.0 * np.exp(0.1 * smooth_noise(rng, self.truth.grid, fwhm=50.0))
            for run in RUNS:
                yield _simulate_run(rng, self.truth, label, run, baseline)


def simulate_bold(grid: Grid, n_subjects: int, seed: int) -> SimulatedBold:
    """Draw the subjects' effects.

    Parameters
    ----------
    grid : Grid
        The brain.
    n_subjects : int
        At least 2.
    seed : int
        Same seed, same series; a subject's do not depend on how many follow.

    Returns
    -------
    SimulatedBold
        The truth's ``error`` is the part of the persons: that of the runs is known by the maps that are made.
    """
    places = places_of(grid)
    effect: Floats = np.sum([blob.profile(places) for blob in BLOBS], axis=0)
    labels = tuple(f"{number + 1:02d}" for number in range(n_subjects))
    units = {
        label: effect + TAU * smooth_noise(np.random.default_rng([seed, 11, number]), grid)
        for number, label in enumerate(labels)
    }
    tau2 = np.full(len(places), TAU**2)
    n = np.full(len(places), n_subjects, dtype=np.int16)
    return SimulatedBold(Truth(grid, effect, tau2, n, tau2 / n_subjects, units), seed, labels)


def response(onsets: Floats, times: NDArray[np.floating]) -> Floats:
    """Return the response to events of `DURATION`, (T,), in units of one event's, peak to peak."""
    values: Floats = _integrated(times[:, None] - onsets).sum(axis=1) / HEIGHT
    return values


def _integrated(since: NDArray[np.floating]) -> Floats:
    """Return the response to one event, at times since its onset: the double gamma's integral over its duration."""
    begun, ended = np.maximum(since, 0.0), np.maximum(since - DURATION, 0.0)
    peak = gammainc(PEAK, begun) - gammainc(PEAK, ended)
    dip = gammainc(UNDERSHOOT, begun) - gammainc(UNDERSHOOT, ended)
    values: Floats = peak - RATIO * dip
    return values


HEIGHT = float(np.ptp(_integrated(np.arange(0.0, 60.0, 0.01))))


def _simulate_run(rng: np.random.Generator, truth: Truth, label: str, run: str, baseline: Floats) -> SimulatedRun:
    """Simulate one run."""
    grid, places = require_grid(truth.grid, "Simulated BOLD"), places_of(truth.grid)
    times = START + TR * np.arange(VOLUMES)
    events = _draw_events(rng)
    shared = SHARED_BLOB.profile(places)
    half = truth.units[label] / 2
    percent = np.outer(shared + half, response(events[CONDITIONS[0]], times))
    percent += np.outer(shared - half, response(events[CONDITIONS[1]], times))
    confounds = _draw_confounds(rng)
    for name in (*MOTION, *(f"cosine{index:02d}" for index in range(CYCLES))):
        percent += np.outer(2.0 * smooth_noise(rng, grid, fwhm=30.0), confounds[name])
    spread = NOISE * rng.uniform(0.8, 1.25) * np.exp(0.3 * smooth_noise(rng, grid, fwhm=50.0))
    noise = _draw_noise(rng, grid)
    noise *= spread.astype(np.float32)[:, None]
    noise += percent.astype(np.float32)
    series = baseline.astype(np.float32)[:, None] * (1.0 + noise / 100.0)
    return SimulatedRun(label, run, series, events, confounds)


def _draw_events(rng: np.random.Generator) -> dict[str, Floats]:
    """Draw onsets: conditions in random order, jittered."""
    onsets = 6.0 + np.append(0.0, rng.uniform(*GAP, EVENTS - 1).cumsum())
    types = rng.permutation(np.arange(EVENTS) % len(CONDITIONS))
    return {name: np.round(onsets[types == index], 3) for index, name in enumerate(CONDITIONS)}


def _draw_confounds(rng: np.random.Generator) -> dict[str, Floats]:
    """Draw the columns of fMRIPrep's table that `motion24` and the high-pass use."""
    columns: dict[str, Floats] = {}
    for name in MOTION:
        values = np.round(rng.standard_normal(VOLUMES).cumsum() * (0.02 if name.startswith("trans") else 0.0004), 6)
        change = np.append(np.nan, np.diff(values))
        columns |= {name: values, f"{name}_derivative1": change}
        columns |= {f"{name}_power2": values**2, f"{name}_derivative1_power2": change**2}
    moved = [np.abs(columns[f"{name}_derivative1"]) * (1.0 if "trans" in name else HEAD) for name in MOTION]
    columns["framewise_displacement"] = np.sum(moved, axis=0)
    steps = (np.arange(VOLUMES) + 0.5) * np.pi / VOLUMES
    for index in range(CYCLES):
        columns[f"cosine{index:02d}"] = np.sqrt(2.0 / VOLUMES) * np.cos((index + 1) * steps)
    return columns


def _draw_noise(rng: np.random.Generator, grid: Grid) -> Singles:
    """Draw noise of variance 1, (V, T): smooth in space, AR(1) in time."""
    volumes = rng.standard_normal((VOLUMES, *grid.shape), dtype=np.float32)
    for axis, kernel in enumerate(smoothing_kernels(grid, NOISE_FWHM), start=1):
        index = np.arange(len(kernel))
        # the box is periodic, as for the maps of the other demonstration
        matrix = (kernel / np.sqrt((kernel**2).sum()))[(index[:, None] - index) % len(kernel)].astype(np.float32)
        volumes = np.moveaxis(np.tensordot(volumes, matrix, axes=(axis, 1)), -1, axis)
    noise = volumes[:, grid.mask]
    for volume in range(1, VOLUMES):
        noise[volume] = RHO * noise[volume - 1] + np.sqrt(1.0 - RHO**2) * noise[volume]
    return np.ascontiguousarray(noise.T)
