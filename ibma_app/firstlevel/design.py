"""The design matrix of one run: columns, heights of its regressors, and what can be estimated with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ibma_app.core.errors import NAMED, DataError
from ibma_app.firstlevel.conditions import column_names, settle_contrasts
from ibma_app.firstlevel.records import Floats, Regressor, RunContrast, RunModel, RunSettings, Timing
from ibma_app.stats.hemodynamic import convolve_events

SAME_DURATION = 0.001  # s
REST = 40.0  # s after an event in which its response has passed
SHIFTS = 10  # onsets within a TR at which the height of an event's response is looked for
CONSTANT, OWN_HIGH_PASS = "constant", "drift_"
DEPENDENT = 1e-7  # relative: a column that is so close to a combination of others is one


@dataclass(frozen=True, eq=False)
class RunDesign:
    """The design matrix of a run and its contrasts."""

    matrix: Floats  # (T, P)
    columns: tuple[str, ...]  # P
    conditions: tuple[str, ...]  # those of regressors: responses, derivatives, delays
    contrasts: tuple[RunContrast, ...]
    missing: Mapping[str, str]  # contrast -> why the run lacks it
    heights: Mapping[str, float]  # of the responses' columns: peak to peak, of one event of amplitude 1
    timing: Timing
    scrubbed: tuple[int, ...] = ()
    confounds: tuple[str, ...] = ()
    hrf: str = ""
    high_pass: str = ""  # in words
    notes: tuple[str, ...] = ()
    inflation: Mapping[str, float] = field(default_factory=dict)  # VIF of the conditions' columns
    efficiency: Mapping[str, float] = field(default_factory=dict)  # of contrasts: 1 / trace of c (X'X)^-1 c'

    @property
    def dof(self) -> int:
        """Volumes less columns: scrubbed volumes have a column each."""
        return self.matrix.shape[0] - self.matrix.shape[1]

    def weights(self, contrast: RunContrast) -> Floats:
        """Return a contrast's weights, (Q, P)."""
        return np.array([[row.get(column, 0.0) for column in self.columns] for row in contrast.rows], dtype=np.float64)


def convolve(regressor: Regressor, frame_times: Floats, settings: RunSettings) -> dict[str, Floats]:
    """Convolve events with the hemodynamic response, sampled when volumes were acquired.

    Returns
    -------
    dict of str to ndarray, shape (T,)
        The columns by nilearn's names.
    """
    hrf, delays = regressor.hrf or settings.hrf, regressor.fir_delays or settings.fir_delays
    events = np.stack([regressor.onsets, regressor.durations, regressor.amplitudes])
    names = column_names(regressor.name, hrf, delays)
    if not events.size:
        return {name: np.zeros(len(frame_times)) for name in names}
    values = convolve_events(events, hrf, frame_times, delays)
    return {name: values[:, index] for index, name in enumerate(names)}


def reference_durations(regressors: Sequence[Regressor]) -> dict[str, float]:
    """Return the duration of each regressor's reference event, s.

    It is the events' own where that is the same for all of a regressor. Durations that vary from event to event
    (reaction times) scale the response themselves: all such regressors of a run have one, the median of their events.
    """
    varying = [one.durations for one in regressors if one.durations.size and np.ptp(one.durations) > SAME_DURATION]
    shared = float(np.median(np.concatenate(varying))) if varying else 0.0
    return {
        one.name: shared if np.ptp(one.durations) > SAME_DURATION else float(np.median(one.durations))
        for one in regressors
        if one.durations.size
    }


def response_height(
    regressor: Regressor, duration: float, repetition_time: float, settings: RunSettings
) -> float | None:
    """Return the height, peak to peak, of the response to one event alone, of amplitude 1 and a duration in s.

    The height of a column over a whole run also depends on how close events
    are and how many follow each other, so that one condition would have
    another scale in each run (Mumford's guide to percent signal change takes an isolated event, too).
    nilearn samples an impulse as one step of its grid: its height depends on the TR, which this takes out.

    Returns
    -------
    float or None
        None for ``fir``, and where there are no events.
    """
    if (regressor.hrf or settings.hrf) == "fir" or not regressor.onsets.size:
        return None
    times = repetition_time * np.arange(np.ceil((duration + REST) / repetition_time) + 2)
    highs, lows = [], []
    for shift in np.arange(SHIFTS) / SHIFTS * repetition_time:
        one = Regressor(regressor.name, np.array([shift]), np.array([duration]), np.ones(1), regressor.hrf)
        values = convolve(one, times, settings)[regressor.name]
        highs.append(values.max())
        lows.append(values.min())
    return float(max(highs) - min(lows))


def build_design(model: RunModel, timing: Timing, settings: RunSettings, where: str) -> RunDesign:
    """Build the design matrix of a run.

    Parameters
    ----------
    model : RunModel
    timing : Timing
    settings : RunSettings
    where : str
        The run, for messages.

    Raises
    ------
    DataError
        Two columns have one name, columns depend on each other, or too few
        volumes are left.
    """
    hrf = model.hrf or settings.hrf
    shared = replace(settings, hrf=hrf)
    named: dict[str, Floats] = {}
    heights: dict[str, float] = {}
    silent: list[str] = []
    durations = reference_durations(model.regressors)
    for regressor in model.regressors:
        made = convolve(regressor, timing.frame_times, shared)
        if not any(_differs_from_zero(values) for values in made.values()):
            silent.append(regressor.name)
            continue
        _add(named, made, where)
        height = response_height(regressor, durations[regressor.name], timing.repetition_time, shared)
        if height is not None and height > 0:
            heights[regressor.name] = height
    conditions = tuple(named)
    _add(named, model.columns, where)
    high_pass, drifts = _high_pass(model, timing, settings)
    _add(named, drifts, where)
    _add(named, _spikes(model.scrubbed, timing.n_volumes), where)
    if not any(np.ptp(values) == 0 and values[0] != 0 for values in named.values()):
        _add(named, {CONSTANT: np.ones(timing.n_volumes)}, where)
    contrasts, lost = settle_contrasts(model.contrasts, tuple(named))
    notes = [f"{where}: no event of {name} lies in the run; it has no column." for name in silent]
    matrix, columns = np.column_stack(list(named.values())), tuple(named)
    check_rank(matrix, columns, where)
    return RunDesign(
        matrix=matrix,
        columns=columns,
        conditions=conditions,
        contrasts=contrasts,
        missing={**model.missing, **lost},
        heights=heights,
        timing=timing,
        scrubbed=tuple(model.scrubbed),
        confounds=tuple(model.confounds),
        hrf=hrf,
        high_pass=high_pass,
        notes=(*model.notes, *notes),
        inflation=variance_inflation(matrix, columns, conditions),
        efficiency=_efficiency(matrix, columns, contrasts),
    )


def cosines(n_volumes: int, repetition_time: float, high_pass: float) -> Floats:
    """Return the discrete cosines below a frequency, (T, D), as SPM, fMRIPrep and nilearn have them."""
    order = min(n_volumes - 1, int(np.floor(2 * n_volumes * high_pass * repetition_time)))
    times = np.arange(n_volumes, dtype=np.float64) + 0.5
    waves: Floats = np.sqrt(2.0 / n_volumes) * np.cos(np.pi / n_volumes * np.outer(times, np.arange(1, order + 1)))
    return waves


def check_rank(matrix: Floats, columns: Sequence[str], where: str) -> None:
    """Refuse a design whose columns depend on each other, or that leaves no degrees of freedom.

    Raises
    ------
    DataError
        The message names the columns.
    """
    rows = matrix.shape[0]
    if rows <= len(columns):
        raise DataError(
            f"{where}: {rows} volumes and {len(columns)} columns of the design leave no degrees of freedom. Use fewer "
            "confounds, or scrub less."
        )
    kept: list[Floats] = []
    for index, name in enumerate(columns):
        values = matrix[:, index]
        left = values.copy()
        for _ in range(2):  # twice, so that rounding errors of the first pass go
            for basis in kept:
                left -= basis * (basis @ left)
        size = float(np.linalg.norm(left))
        if size <= DEPENDENT * float(np.linalg.norm(values)):
            others = _combination(matrix[:, :index], values, columns)
            raise DataError(
                f"{where}: its design is not of full rank: {name} is "
                + (f"a combination of {_some(others)}" if others else "zero in all volumes")
                + ". The run is left out; leave out one of these columns, or join conditions."
            )
        kept.append(left / size)


def variance_inflation(matrix: Floats, columns: Sequence[str], of: Sequence[str]) -> dict[str, float]:
    """Return the variance inflation factors of columns: 1 / (1 - R²) of each by all others."""
    centred = matrix - matrix.mean(axis=0)
    inverse = np.diag(np.linalg.inv(matrix.T @ matrix))
    sums = (centred**2).sum(axis=0)
    return {name: float(inverse[index] * sums[index]) for index, name in enumerate(columns) if name in of}


def _efficiency(matrix: Floats, columns: Sequence[str], contrasts: Sequence[RunContrast]) -> dict[str, float]:
    inverse = np.linalg.inv(matrix.T @ matrix)
    found = {}
    for contrast in contrasts:
        rows = np.array([[row.get(column, 0.0) for column in columns] for row in contrast.rows])
        found[contrast.name] = float(1.0 / np.trace(rows @ inverse @ rows.T))
    return found


def _combination(others: Floats, values: Floats, columns: Sequence[str]) -> list[str]:
    """Name the columns that another is a combination of."""
    if not others.shape[1] or not values.any():
        return []
    sizes = np.linalg.norm(others, axis=0)
    weights = np.linalg.lstsq(others / sizes, values, rcond=None)[0]
    largest = np.abs(weights).max()
    return [columns[int(index)] for index in np.flatnonzero(np.abs(weights) > 1e-3 * largest)]


def _some(names: Sequence[str]) -> str:
    """Name the first columns, and count the others."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _add(named: dict[str, Floats], columns: Mapping[str, Floats], where: str) -> None:
    """Add columns; two of one name are an error."""
    for name, values in columns.items():
        if name in named:
            raise DataError(
                f"{where}: two columns of the design are called {name}. Rename the condition or the confound."
            )
        named[name] = values


def _differs_from_zero(values: Floats) -> bool:
    return bool(np.abs(values).max(initial=0.0) > 1e-10)


def _spikes(scrubbed: Sequence[int], n_volumes: int) -> dict[str, Floats]:
    """Return a column of a single 1 for each scrubbed volume: the same as leaving it out, with its gap in time."""
    identity = np.eye(n_volumes)
    return {f"scrubbed_{volume:04d}": identity[volume] for volume in scrubbed}


def _high_pass(model: RunModel, timing: Timing, settings: RunSettings) -> tuple[str, dict[str, Floats]]:
    """Return the high-pass in words, and its columns where the confounds have none."""
    theirs = [name for name in model.columns if name.startswith("cosine")]
    cutoff = settings.high_pass if model.high_pass is None else model.high_pass
    if theirs:
        return f"the {len(theirs)} cosines of the confounds table", {}
    if not cutoff:
        return "none", {}
    waves = cosines(timing.n_volumes, timing.repetition_time, cutoff)
    drifts = {f"{OWN_HIGH_PASS}{index + 1}": waves[:, index] for index in range(waves.shape[1])}
    return f"{waves.shape[1]} cosines below {cutoff:.6g} Hz", drifts
