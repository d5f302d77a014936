"""Models of the noise of a run, by the names of the settings."""

from dataclasses import dataclass

import numpy as np

MEMORY = 4.0  # s that the autoregressive process reaches back
MOST = 6  # volumes
VOLUMES = 12  # for each coefficient, in short runs
FIRST_STEP, STEP = 0.05, 0.1  # by which partial autocorrelations of the first lag, and of others, are rounded
PLAIN_STEP = 0.01  # of plain AR(1), as nilearn's


@dataclass(frozen=True)
class NoiseModel:
    """A model of the noise: its order, and how it is estimated."""

    name: str
    order: int  # 0: independent
    corrected: bool  # autocorrelations are corrected for the design, variances calibrated
    steps: tuple[float, ...]  # by which partial autocorrelations are rounded, one a lag

    @property
    def words(self) -> str:
        """The model for sidecars and pages."""
        if not self.order:
            return "independent (ordinary least squares)"
        if not self.corrected:
            return "AR(1), autocorrelation of the residuals as it is"
        return (
            f"AR({self.order}), autocorrelations corrected for the design (Worsley 2002), variances and degrees of "
            "freedom calibrated for their estimation"
        )


def choose_noise(name: str, repetition_time: float, volumes: int) -> NoiseModel:
    """Choose the noise's model: ``ar`` reaches back 4 s, so that its order follows the TR, in very short runs less.

    Parameters
    ----------
    name : str
        One of `ibma_app.firstlevel.records.NOISE_MODELS`.
    repetition_time : float
        s.
    volumes : int
        Of the run.
    """
    if name == "ar":
        most = int(np.clip(volumes // VOLUMES, 1, MOST))
        order = int(np.clip(np.ceil(MEMORY / repetition_time - 1e-6), 1, most))
        return NoiseModel(name, order, True, (FIRST_STEP, *(STEP,) * (order - 1)))
    if name == "ar1":
        return NoiseModel(name, 1, False, (PLAIN_STEP,))
    return NoiseModel(name, 0, False, ())
