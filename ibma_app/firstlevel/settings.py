"""The settings of the run level: the table ``[run]`` of the configuration, checked."""

from collections.abc import Mapping
from typing import Any

from ibma_app.core.errors import UsageError, did_you_mean
from ibma_app.firstlevel.records import HRFS, NOISE_MODELS, UNITS, RunSettings

KEYS = ("hrf", "fir_delays", "noise", "high_pass", "scrub_fd", "drop_volumes", "start_time", "units", "residuals")
MENUS: Mapping[str, tuple[str, ...]] = {"hrf": HRFS, "noise": NOISE_MODELS, "units": UNITS}
LEAST = {"high_pass": 0.0, "scrub_fd": 1e-6, "drop_volumes": 0, "start_time": -1e3}


def read_settings(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check the table ``[run]``; return the fields of `RunSettings` that it sets.

    Parameters
    ----------
    table : mapping
    where : str
        The file, for messages.

    Raises
    ------
    UsageError
        A key does not exist, or its value cannot be.
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in KEYS:
            raise UsageError(f"{where}: [run] has no {key!r}.{did_you_mean([key], KEYS)} Keys: {', '.join(KEYS)}.")
        found[key] = _value(key, value, f"{where}: [run] {key} = {value!r}")
    return found


def make_settings(table: Mapping[str, Any], where: str, **given: Any) -> RunSettings:
    """Make the settings of the table and of options of the command line.

    Raises
    ------
    UsageError
        As `read_settings`.
    """
    return RunSettings(**{**read_settings(table, where), **given})


def _value(key: str, value: Any, words: str) -> Any:
    """Check one value."""
    if key in MENUS:
        if value not in MENUS[key]:
            hint = did_you_mean([str(value)], MENUS[key])
            raise UsageError(f"{words}: there is no such choice.{hint} Choose from: {', '.join(MENUS[key])}.")
        return value
    if key == "residuals":
        if not isinstance(value, bool):
            raise UsageError(f"{words} is not true or false.")
        return value
    if key == "fir_delays":
        delays = tuple(value) if isinstance(value, list) else ()
        if not delays or not all(isinstance(one, int) and one >= 0 for one in delays) or len(set(delays)) < len(delays):
            raise UsageError(f"{words} is not a list of different whole numbers of volumes, such as [0, 1, 2, 3].")
        return delays
    whole = key == "drop_volumes"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not LEAST[key] <= value < 1e4:
        raise UsageError(f"{words} is not a {'whole ' * whole}number that {key} can be.")
    return value
