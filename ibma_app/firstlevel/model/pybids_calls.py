"""PyBIDS' transformations, called on one variable: ours become theirs, and come back.

Its convolution is not called. When PyBIDS brings convolved columns to one row a volume it stretches time, so that the
last event comes up to one TR early (its ``_resample``, in 0.22 and every release since 2018).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ibma_app.core.errors import DataError
from ibma_app.firstlevel.model.stats_model import Instruction
from ibma_app.firstlevel.model.variables import EventVariable
from ibma_app.firstlevel.records import Floats, Timing

NO_LEVEL = "n/a"  # stands for empty cells in PyBIDS' texts, whose Factor cannot sort NaN beside texts


def call(
    instruction: Instruction,
    name: str,
    events: Mapping[str, EventVariable],
    series: Mapping[str, Floats],
    arguments: Mapping[str, Any],
    timing: Timing,
) -> dict[str, Any]:
    """Call a transformation on one variable; return what it made or changed."""
    from bids.modeling import transformations
    from bids.variables.collections import BIDSRunVariableCollection

    made = [_sparse(one, events[one], timing) for one in events] + [_dense(one, series[one], timing) for one in series]
    given = {variable.name: variable for variable in made}
    collection = BIDSRunVariableCollection(made)
    try:
        getattr(transformations, instruction.name)(collection, [name], **_snake(arguments))
    except ValueError as error:
        raise DataError(f"{instruction.path}: {instruction.name} of {name}: {error}") from None
    changed = {one: left for one, left in collection.variables.items() if left is not given.get(one)}
    return {one: _ours(variable) for one, variable in changed.items()}


def _snake(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Name arguments as PyBIDS does."""
    names = {"RefLevel": "ref_level", "InputAttr": "input_attr", "TargetAttr": "target_attr", "ReplaceNA": "replace_na"}
    read = {names.get(key, key.lower()): value for key, value in arguments.items()}
    return {key: [value] if key in ("output", "target") else value for key, value in read.items()}


def _run_info(timing: Timing) -> list[Any]:
    from bids.variables.entities import RunInfo

    duration = timing.repetition_time * timing.n_volumes
    return [RunInfo({"run": 1}, duration, timing.repetition_time, "", timing.n_volumes)]


def _sparse(name: str, variable: EventVariable, timing: Timing) -> Any:
    """Make PyBIDS' variable of events."""
    import pandas as pd
    from bids.variables import SparseRunVariable

    values = variable.values
    if variable.is_text:
        values = np.array([cell or NO_LEVEL for cell in values], dtype=object)
    columns = {"onset": variable.onsets, "duration": variable.durations, "run": 1}
    data = pd.DataFrame({**columns, "amplitude": pd.Series(values, dtype=object if variable.is_text else float)})
    return SparseRunVariable(name=name, data=data, run_info=_run_info(timing), source="events")


def _dense(name: str, values: Floats, timing: Timing) -> Any:
    """Make PyBIDS' variable of a value for each volume."""
    import pandas as pd
    from bids.variables import DenseRunVariable

    rate = 1.0 / timing.repetition_time
    variable = DenseRunVariable(
        name=name, values=pd.DataFrame(values), run_info=_run_info(timing), source="regressors", sampling_rate=rate
    )
    variable.values = pd.Series(values)  # of a frame of one column, Scale asks a question that has no answer
    return variable


def _ours(variable: Any) -> EventVariable | Floats:
    """Bring PyBIDS' variable back."""
    values = np.asarray(variable.values).ravel()
    if not hasattr(variable, "onset"):
        return np.asarray(values, dtype=np.float64)
    if values.dtype.kind in "OUT" and any(isinstance(one, str) for one in values):
        values = np.array(["" if one == NO_LEVEL or one != one else str(one) for one in values], dtype=object)
    else:
        values = values.astype(np.float64)
    return EventVariable(
        np.asarray(variable.onset, dtype=np.float64), np.asarray(variable.duration, dtype=np.float64), values
    )
