"""What is significant: one small file per method, and the menu of them.

Importing this package is light; a method's file is imported when it is asked for.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ibma_app.core.methods import Inference

INFERENCES: tuple[str, ...] = (
    "uncorrected",
    "bonferroni",
    "fdr",
    "fdr-by",
    "rft-voxel",
    "rft-cluster",
    "max-stat",
    "cluster-size",
    "cluster-mass",
    "tfce",
    "ari",
)
"""The menu, in order; the file of ``fdr-by`` is ``fdr_by.py`` and its record is ``INFERENCE``."""

AUTO: tuple[str, ...] = ("fdr", "max-stat", "cluster-mass")
"""What ``--inference auto``, the default, takes."""

AUTO_FEW: tuple[str, ...] = ("fdr", "bonferroni")
"""What it takes where the maps cannot be relabelled, or too few relabellings are distinct for the level."""


def find_inference(name: str) -> "Inference":
    """Return the record of an inference, importing its file alone.

    Parameters
    ----------
    name : str
        A name of the menu.

    Returns
    -------
    Inference

    Raises
    ------
    UsageError
        When the menu has no such name; the message shows the menu.
    """
    if name not in INFERENCES:
        from ibma_app.core.errors import UsageError

        msg = f"There is no inference {name!r}. Choose from: {', '.join(INFERENCES)}."
        raise UsageError(msg)
    record: Inference = import_module(f"{__name__}.{name.replace('-', '_')}").INFERENCE
    return record


def inferences_that(holds: "Callable[[Inference], bool]") -> tuple[str, ...]:
    """Return the names of the menu whose records fulfil a condition; it imports them all: for messages."""
    return tuple(name for name in INFERENCES if holds(find_inference(name)))


def inference_settings() -> dict[str, tuple[Any, ...]]:
    """Return the keys of the table ``[inference]``, and their valid values; () where the method checks them."""
    found: dict[str, set[Any]] = {}
    for name in INFERENCES:
        for key, setting in find_inference(name).settings.items():
            found.setdefault(key, set()).update(setting.choices)
    return {key: tuple(sorted(choices)) for key, choices in found.items()}
