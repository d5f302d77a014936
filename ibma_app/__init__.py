"""ibma-app: a BIDS-App that combines fMRI statistic maps, level by level."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["__version__", "combine_runs", "group", "pybids_config"]

pybids_config = Path(__file__).parent / "workflows" / "python" / "pybids.json"
"""The entities of our file names, for ``bids.BIDSLayout(OUTPUT_DIR, validate=False, config=[pybids_config])``."""

try:
    __version__ = version("ibma-app")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Bring the functions when they are asked for: `ibma-app --help` needs none of what they import."""
    if name in ("combine_runs", "group"):
        return getattr(import_module("ibma_app.workflows.python.calls"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
