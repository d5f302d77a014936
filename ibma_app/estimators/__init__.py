"""What the effect is: one small file for each method, and the table that shows them.

Importing this is light; `find_estimator` imports the one file that is asked for.
"""

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
    "stouffer",
    "stouffer-weighted",
    "stouffer-rfx",
    "fisher",
    "tippett",
)
"""The menu: the record of ``paule-mandel`` is ``ESTIMATOR`` in ``paule_mandel.py``."""


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
