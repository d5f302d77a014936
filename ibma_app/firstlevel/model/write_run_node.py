"""The node of runs that options mean, as JSON: each ``trial_type`` convolved, confounds, a high-pass, contrasts."""

from collections.abc import Mapping, Sequence
from typing import Any

from ibma_app.core.errors import UsageError
from ibma_app.firstlevel.conditions import DEFAULT_HIGH_PASS, TRIAL_TYPE
from ibma_app.firstlevel.confounds import EXPANSIONS, HIGH_PASS, MOTION, TISSUES
from ibma_app.firstlevel.design import CONSTANT
from ibma_app.firstlevel.model.reading.schema import TRANSFORMER
from ibma_app.firstlevel.model.run_model import PREFIX
from ibma_app.firstlevel.records import RunContrast, RunSettings

STEADY = "non_steady_state_outlier*"

CHOSEN: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "motion6": MOTION,
    "motion24": tuple(f"{name}{ending}" for name in MOTION for ending in EXPANSIONS),
}
"""Strategies of confounds, as the columns that they are."""


def run_node(settings: RunSettings, contrasts: Sequence[RunContrast]) -> dict[str, Any]:
    """Write the node.

    Parameters
    ----------
    settings : RunSettings
    contrasts : sequence of RunContrast
        Of the columns that conditions have in designs.

    Raises
    ------
    UsageError
        A strategy of confounds that no list of columns is.
    """
    x = [1, f"{PREFIX}*", *_confounds(settings), STEADY]
    if settings.high_pass == DEFAULT_HIGH_PASS:
        x.insert(-1, f"{HIGH_PASS}*")
    return {
        "Level": "Run",
        "Name": "run",
        "GroupBy": ["run", "subject", "session", "task"],
        "Transformations": {
            "Transformer": TRANSFORMER,
            "Instructions": [{"Name": "Factor", "Input": [TRIAL_TYPE]}, _convolve(settings)],
        },
        "Model": {"X": x, "Type": "glm", "Options": {"HighPassFilterCutoffHz": settings.high_pass}},
        "Contrasts": [_contrast(one) for one in contrasts],
    }


def _convolve(settings: RunSettings) -> dict[str, Any]:
    """Write the convolution of all conditions."""
    name, *more = settings.hrf.split(" + ")
    convolve: dict[str, Any] = {"Name": "Convolve", "Model": name, "Input": [f"{PREFIX}*"]}
    convolve |= {word.capitalize(): True for word in more}
    return convolve | ({"FirDelays": list(settings.fir_delays)} if name == "fir" else {})


def _confounds(settings: RunSettings) -> list[str]:
    """List the columns of the confounds; wildcards stay."""
    names: list[str] = []
    for one in settings.confounds:
        if one == "simple":
            names += [*CHOSEN["motion24"], *TISSUES]
        elif one in ("scrubbing", "compcor"):
            raise UsageError(
                f"--confounds {one} depends on each run's values, and a model names columns. Name them, such as "
                "'a_comp_cor_0[0-4]', or leave out volumes with [run] scrub_fd."
            )
        else:
            names += CHOSEN.get(one, (one,))
    return list(dict.fromkeys(names))


def _contrast(contrast: RunContrast) -> dict[str, Any]:
    """Write a contrast, its columns by their names in models."""
    columns = contrast.columns
    rows = [[row.get(column, 0.0) for column in columns] for row in contrast.rows]
    return {
        "Name": contrast.name,
        "ConditionList": [1 if column == CONSTANT else f"{PREFIX}{column}" for column in columns],
        "Weights": rows[0] if contrast.stat == "t" else rows,
        "Test": contrast.stat,
    }
