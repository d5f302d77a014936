"""What the effect is: one small file for each method, and the table that shows them.

Importing this is light; `find_estimator` imports the one file that is asked for.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from ibma_app.core.errors import UsageError

if TYPE_CHECKING:
    from ibma_app.core.methods import Estimator

ESTIMATORS = (
    "fixed-effects",
    "ols",
    "reml",
    "ml",
    "dl",
    "hedges",
    "hunter-schmidt",
    "sidik-jonkman",
    "paule-mandel",
    "empirical-bayes",
    "random-intercept",
    "multilevel",
    "stouffer",
    "stouffer-weighted",
    "stouffer-rfx",
    "sdma-stouffer",
    "sdma-gls",
    "fisher",
    "tippett",
)
"""The menu: the record of ``paule-mandel`` is ``ESTIMATOR`` in ``paule_mandel.py``."""

AUTO: Mapping[str, str] = {
    "effect and variance": "reml",
    "effect": "ols",  # alone; or of repeated measures, or smoothed
    "z": "stouffer-rfx",  # is the effect consistent? Of one mean, beside it: is there evidence somewhere?
    "z and sample size": "stouffer-weighted",
    "z alone": "stouffer",
    "p": "fisher",
}
"""What ``--estimator auto`` takes at group level, by what every map comes with; advice in messages names these too."""

PARTICIPANT = "fixed-effects"
"""What combines the maps of one participant, whatever ``--estimator`` says."""

PARTICIPANT_SETTINGS: Mapping[str, str] = {"test": "meier"}
"""Its settings there that no configuration changes."""


def find_estimator(name: str) -> "Estimator":
    """Return the record of a method of the menu.

    Raises
    ------
    UsageError
        When the menu does not have it.
    """
    if name not in ESTIMATORS:
        raise UsageError(f"There is no estimator {name!r}; choose from: {', '.join(ESTIMATORS)}.")
    module = import_module(f"ibma_app.estimators.{name.replace('-', '_')}")
    record: Estimator = module.ESTIMATOR
    return record


def estimators_that(holds: "Callable[[Estimator], bool]") -> tuple[str, ...]:
    """Return the names of the menu whose records fulfil a condition; it imports them all: for messages."""
    return tuple(name for name in ESTIMATORS if holds(find_estimator(name)))
