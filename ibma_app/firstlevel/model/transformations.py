"""Transformations of the variables of a run, up to the convolution, which only marks what is convolved."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ibma_app.core.errors import DataError, did_you_mean
from ibma_app.core.from_files import number_in
from ibma_app.firstlevel.model.pybids_calls import NO_LEVEL, call
from ibma_app.firstlevel.model.reading.instructions import response_name
from ibma_app.firstlevel.model.stats_model import Instruction
from ibma_app.firstlevel.model.variables import SEPARATOR, EventVariable, Variables, as_numbers
from ibma_app.firstlevel.records import Timing

NUMERIC = ("Threshold", "Demean", "Scale", "Assign")
OF_EVENTS = ("Factor", "Replace", "Assign")


def apply_instructions(variables: Variables, instructions: Sequence[Instruction], timing: Timing) -> Variables:
    """Apply transformations, one after the other.

    Raises
    ------
    DataError
        A variable is missing, or cannot be transformed so; the message has the path of the instruction.
    """
    for one in instructions:
        variables = _apply(variables, one, timing)
    return variables


def _apply(variables: Variables, instruction: Instruction, timing: Timing) -> Variables:
    """Apply one transformation."""
    inputs = _find_inputs(variables, instruction)
    if instruction.name == "Convolve":
        return _convolve(variables, inputs, instruction)
    targets = instruction.arguments.get("Target", ())
    for key in ("Output", "Target"):
        names = instruction.arguments.get(key)
        if names is not None and len(names) != len(inputs):
            text = f"{key} has {len(names)} names for {len(inputs)} variables that Input stands for here"
            raise DataError(f"{instruction.path}.{key}: {text}. Name the variables one by one.")
    pairs = [
        (name, at)
        for at, name in enumerate(inputs)
        if name is not None and all(_exists(variables, one, instruction) for one in targets[at : at + 1])
    ]
    for name, at in pairs:
        arguments = {
            key: (value[at] if key in ("Output", "Target") else value) for key, value in instruction.arguments.items()
        }
        variables = _apply_to(variables, instruction, name, arguments, timing)
    return variables


def _find_inputs(variables: Variables, instruction: Instruction) -> list[str | None]:
    """Find the variables that are transformed, in order; None: a level that this run lacks."""
    found: list[str | None] = []
    for pattern in instruction.inputs:
        names = variables.match(pattern)
        if names:
            found += [name for name in names if name not in found]
        elif any(sign in pattern for sign in "*?["):
            continue
        elif _exists(variables, pattern, instruction):
            found.append(pattern)
        else:
            found.append(None)
    return found


def _exists(variables: Variables, name: str, instruction: Instruction) -> bool:
    """Return whether the run has a variable; False: a level that it lacks.

    Raises
    ------
    DataError
        There is no such variable, and it is no level of a factor.
    """
    if name in variables.events or name in variables.confounds:
        return True
    if variables.is_level(name):
        return False
    listed = ", ".join(variables.events)
    hint = did_you_mean([name], [*variables.events, *variables.confounds])
    raise DataError(f"{instruction.path}: {instruction.name}: there is no {name}.{hint} Events have: {listed}.")


def _convolve(variables: Variables, inputs: Sequence[str | None], instruction: Instruction) -> Variables:
    """Mark variables as convolved; the columns are made later, when volumes were acquired."""
    responses = dict(variables.responses)
    events = dict(variables.events)
    delays = instruction.arguments.get("FirDelays")
    for name in inputs:
        if name is None:
            continue
        if name not in events:
            raise DataError(f"{instruction.path}: {name} is a value for each volume; events alone are convolved.")
        events[name] = as_numbers(name, events[name], instruction.path)
        responses[name] = (response_name(instruction), delays)
    return replace(variables, events=events, responses=responses)


def _apply_to(
    variables: Variables, instruction: Instruction, name: str, arguments: Mapping[str, Any], timing: Timing
) -> Variables:
    """Apply a transformation to one variable."""
    output = arguments.get("Output", name)
    if instruction.name in ("Copy", "Rename") and name in variables.responses:
        variables = replace(variables, responses={**variables.responses, output: variables.responses[name]})
    touched = [name, *([arguments["Target"]] if "Target" in arguments else [])]
    series = {one: variables.confounds[one] for one in touched if one not in variables.events}
    if series and instruction.name in OF_EVENTS:
        text = f"{instruction.name} takes variables of events, and {next(iter(series))} is a value for each volume."
        raise DataError(f"{instruction.path}: {text}")
    events = {one: variables.events[one] for one in touched if one not in series}
    if instruction.name in NUMERIC:
        changed_times = arguments.get("Target") if arguments.get("TargetAttr", "amplitude") != "amplitude" else None
        events = {
            one: kept if one == changed_times else as_numbers(one, kept, instruction.path)
            for one, kept in events.items()
        }
    if instruction.name == "Replace":
        arguments = {**arguments, "Replace": _spell(arguments["Replace"], events[name], arguments)}
    return _merge(variables, instruction, name, call(instruction, name, events, series, arguments, timing))


def _spell(pairs: Mapping[str, Any], variable: EventVariable, arguments: Mapping[str, Any]) -> dict[Any, Any]:
    """Spell what is replaced as the variable has it: keys of JSON are always texts, the values of events may be not."""
    of_values = arguments.get("Attribute", "value") == "value"
    if of_values and variable.is_text:
        cells = {cell: number_in(cell) for cell in variable.values}
        keys = {
            key: [cell for cell, number in cells.items() if cell == key or (number is not None and number == at)]
            for key in pairs
            for at in [number_in(key)]
        }
        return {cell: _as_text(pairs[key]) for key, found in keys.items() for cell in found}
    numbers = {number_in(key): number_in(value) for key, value in pairs.items()}
    return {key: np.nan if value is None else value for key, value in numbers.items() if key is not None}


def _as_text(value: Any) -> str:
    if value is None or value == NO_LEVEL:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _merge(variables: Variables, instruction: Instruction, name: str, after: Mapping[str, Any]) -> Variables:
    """Put what a transformation gave in the place of what it took."""
    events = {one: kept for one, kept in variables.events.items() if one not in after}
    confounds = {one: kept for one, kept in variables.confounds.items() if one not in after}
    factors, lost = dict(variables.factors), dict(variables.lost)
    if instruction.name == "Factor":
        events.pop(name, None)
        missing = f"{name}{instruction.arguments.get('Sep', SEPARATOR)}{NO_LEVEL}"
        after = {one: kept for one, kept in after.items() if one != missing}
        factors[name] = tuple(after)
        empty = int((variables.events[name].values == "").sum()) if variables.events[name].is_text else 0
        if empty:
            lost[name] = empty
    if instruction.name == "Rename":
        events.pop(name, None)
        confounds.pop(name, None)
    events |= {one: kept for one, kept in after.items() if isinstance(kept, EventVariable)}
    confounds |= {one: kept for one, kept in after.items() if not isinstance(kept, EventVariable)}
    return replace(variables, events=events, confounds=confounds, factors=factors, lost=lost)
