"""ibma-app: a BIDS-App that combines fMRI statistic maps, level by level."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ibma-app")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
