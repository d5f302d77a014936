"""Events convolved with a hemodynamic response, as nilearn's ``compute_regressor`` has it, to the last digits.

nilearn's own function is not called because importing it takes longer than modelling a run. The tests hold both
together to 1e-12.

Letters: T volumes, E events.

References
----------
Glover GH. Deconvolution of impulse response in event-related BOLD fMRI. NeuroImage 1999; 9: 416-429.
Friston KJ, Fletcher P, Josephs O, et al. Event-related fMRI: characterizing differential responses. NeuroImage 1998; 7:
30-40 (the derivatives).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LASTING = 32.0  # s of the response
OVERSAMPLING = 50  # samples of a TR
EARLIEST = -24.0  # s before the first volume: earlier events are left out
TIME_STEP, DISPERSION_STEP = 0.1, 0.01  # of the derivatives: s, and share


@dataclass(frozen=True)
class Shape:
    """A difference of two gamma densities."""

    undershoot: float
    dispersion: float
    undershoot_dispersion: float
    ratio: float
    delay: float = 6.0


SHAPES = {"spm": Shape(16.0, 1.0, 1.0, 0.167), "glover": Shape(12.0, 0.9, 0.9, 0.48)}


def convolve_events(events: Floats, hrf: str, frame_times: Floats, fir_delays: Sequence[int] = ()) -> Floats:
    """Convolve events with a response, sampled when volumes were acquired.

    Parameters
    ----------
    events : ndarray, shape (3, E)
        Onsets and durations in s, amplitudes.
    hrf : str
        ``spm`` or ``glover``, with ``+ derivative`` and ``+ dispersion``, or ``fir``.
    frame_times : ndarray, shape (T,)
        s, at equal intervals.
    fir_delays : sequence of int
        Volumes, for ``fir``.

    Returns
    -------
    ndarray, shape (T, 1 to 3 or the number of delays)
        Derivatives are orthogonal to what stands before them.
    """
    step = float(np.min(np.diff(frame_times)))
    fine, times = _sample(events, frame_times)
    if hrf == "fir":
        kernels = [
            np.append(np.zeros(delay * OVERSAMPLING), np.full(OVERSAMPLING, 1 / OVERSAMPLING)) for delay in fir_delays
        ]
        shift = OVERSAMPLING - 1
        made = [np.convolve(fine, kernel)[shift : fine.size] for kernel in kernels]
        return np.stack([np.interp(frame_times, times[: times.size - shift], one) for one in made], axis=1)
    made = [np.convolve(fine, kernel)[: fine.size] for kernel in response_kernels(hrf, step)]
    return _orthogonal(np.stack([np.interp(frame_times, times, one) for one in made], axis=1))


def response_kernels(hrf: str, repetition_time: float) -> list[Floats]:
    """Return a response, and its derivatives where they are asked for, sampled `OVERSAMPLING` times a TR."""
    name, *more = hrf.split(" + ")
    shape, step = SHAPES[name], repetition_time / OVERSAMPLING
    kernels = [_response(shape, step)]
    if "derivative" in more:
        kernels.append((kernels[0] - _response(shape, step, TIME_STEP)) / TIME_STEP)
    if "dispersion" in more:  # nilearn keeps the undershoot's own dispersion at 1
        plain = Shape(shape.undershoot, shape.dispersion, 1.0, shape.ratio)
        wider = Shape(shape.undershoot, shape.dispersion + DISPERSION_STEP, 1.0, shape.ratio)
        kernels.append((_response(plain, step) - _response(wider, step)) / DISPERSION_STEP)
    return kernels


def _response(shape: Shape, step: float, onset: float = 0.0) -> Floats:
    """Return a response that sums to 1, sampled every ``step`` seconds."""
    times = np.linspace(0, LASTING, int(np.rint(LASTING / step))) - onset
    peak = _gamma_density(times - step, shape.delay / shape.dispersion, shape.dispersion)
    dip = _gamma_density(times - step, shape.undershoot / shape.undershoot_dispersion, shape.undershoot_dispersion)
    response = peak - shape.ratio * dip
    return np.asarray(response / response.sum(), dtype=np.float64)


def _gamma_density(times: Floats, a: float, scale: float) -> Floats:
    y = np.maximum(times / scale, 0.0)
    with np.errstate(divide="ignore"):  # 0 at 0, as a > 1
        return np.asarray(np.exp((a - 1.0) * np.log(y) - y - math.lgamma(a)) / scale, dtype=np.float64)


def _sample(events: Floats, frame_times: Floats) -> tuple[Floats, Floats]:
    """Sample events on the fine grid; return it and its times. Events without duration last one step."""
    volumes, first, last = frame_times.size, float(frame_times.min()), float(frame_times.max())
    end = last * (1 + 1.0 / (volumes - 1))
    count = (volumes - 1) / (last - first) * (end - first - EARLIEST) * OVERSAMPLING + 1
    times = np.linspace(first + EARLIEST, end, int(np.rint(count)))
    onsets, durations, amplitudes = events
    most = times.size - 1
    starts = np.minimum(np.searchsorted(times, onsets), most)
    stops = np.minimum(np.searchsorted(times, onsets + durations), most)
    stops = np.where((stops < most) & (stops == starts), stops + 1, stops)
    changes = np.zeros(times.size)
    np.add.at(changes, starts, amplitudes)
    np.add.at(changes, stops, -amplitudes)
    return np.cumsum(changes), times


def _orthogonal(columns: Floats) -> Floats:
    """Make each column orthogonal to those before it."""
    for index in range(1, columns.shape[1]):
        before = columns[:, :index]
        columns[:, index] -= (columns[:, index] @ before) @ np.linalg.pinv(before)
    return columns
