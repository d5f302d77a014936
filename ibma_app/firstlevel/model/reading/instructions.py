"""The transformations that are understood: their arguments, checked before any run is read."""

from collections.abc import Collection, Mapping
from typing import Any

from ibma_app.core.from_files import number_in, show
from ibma_app.firstlevel.model.faults import Faults, choose_from
from ibma_app.firstlevel.model.stats_model import Instruction
from ibma_app.firstlevel.records import HRFS

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "Factor": ("Constraint", "RefLevel", "Sep"),
    "Convolve": ("Model", "Derivative", "Dispersion", "FirDelays"),
    "Replace": ("Replace", "Attribute", "Output"),
    "Assign": ("Target", "InputAttr", "TargetAttr", "Output"),
    "Copy": ("Output",),
    "Threshold": ("Threshold", "Binarize", "Above", "Signed", "Output"),
    "Rename": ("Output",),
    "Demean": ("Output",),
    "Scale": ("Demean", "Rescale", "ReplaceNA", "Output"),
}
"""Transformations, and the arguments of each beside Name and Input."""

MENUS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("Convolve", "Model"): ("spm", "glover", "fir"),
    ("Replace", "Attribute"): ("value", "onset", "duration"),
    ("Assign", "InputAttr"): ("amplitude", "onset", "duration"),
    ("Assign", "TargetAttr"): ("amplitude", "onset", "duration"),
    ("Scale", "ReplaceNA"): ("before", "after"),
    ("Factor", "Constraint"): ("none", "drop_one", "mean_zero"),
}
SWITCHES = frozenset({"Derivative", "Dispersion", "Binarize", "Above", "Signed", "Demean", "Rescale"})
NEEDED: Mapping[str, tuple[str, ...]] = {
    "Replace": ("Replace",),
    "Assign": ("Target",),
    "Copy": ("Output",),
    "Rename": ("Output",),
}
SPELLINGS: Mapping[str, str] = {
    **{"FIRDelays": "FirDelays", "Fir_Delays": "FirDelays", "fir_delays": "FirDelays", "ReplaceNa": "ReplaceNA"},
    **{"derivative": "Derivative", "dispersion": "Dispersion", "output": "Output", "input": "Input", "name": "Name"},
}
"""Other spellings that PyBIDS takes too."""


def read_instructions(listed: Any, path: str, faults: Faults) -> tuple[Instruction, ...]:
    """Read the instructions of a node; what is not understood becomes a fault."""
    found = []
    for place, one in enumerate(listed or ()):
        where = f"{path}.Instructions[{place}]"
        if not isinstance(one, dict):
            faults.add(where, f'is {show(one)}, and must be an object: {{"Name": "Factor", "Input": ["trial_type"]}}.')
            continue
        given = {SPELLINGS.get(key, key): value for key, value in one.items() if key != "Description"}
        name = given.pop("Name", None)
        if not isinstance(name, str) or name not in ARGUMENTS:
            text = "is missing." if name is None else f"there is no transformation {show(name)} here."
            faults.add(f"{where}.Name", text + choose_from(ARGUMENTS, [str(name)]))
            continue
        inputs = _texts(given.pop("Input", None))
        if not inputs:
            wrong = next((key for key in one if key in ("Inputs", "Variables")), None)
            text = "is missing: the variables that are transformed." + (f" It is written {wrong}." if wrong else "")
            faults.add(f"{where}.Input", text)
            given.pop(wrong or "", None)
        arguments = {key: value for key, value in given.items() if value is not None}
        checked = _check_arguments(name, arguments, inputs, where, faults)
        found.append(Instruction(name, inputs, checked, where))
    return tuple(found)


def _texts(value: Any) -> tuple[str, ...]:
    """Return names: a text, or a list of texts."""
    names = [value] if isinstance(value, str) else value
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) and name for name in names) else ()


def _check_arguments(
    name: str, given: Mapping[str, Any], inputs: Collection[str], where: str, faults: Faults
) -> dict[str, Any]:
    """Check the arguments of a transformation, and bring them to their types."""
    checked: dict[str, Any] = {}
    for key, value in given.items():
        if key not in ARGUMENTS[name]:
            faults.add(f"{where}.{key}", f"{name} has no such argument.{choose_from(ARGUMENTS[name], [key])}")
            continue
        checked[key] = _read_argument(name, key, value, f"{where}.{key}", faults)
    for key in NEEDED.get(name, ()):
        if key not in given:
            faults.add(f"{where}.{key}", f"is missing: {name} needs it.")
    for key in ("Output", "Target"):
        names = checked.get(key, ())
        if names and len(names) != len(inputs) and not any(_is_wild(one) for one in inputs):
            faults.add(f"{where}.{key}", f"has {len(names)} names for {len(inputs)} of Input. Write one for each.")
    return checked


def _is_wild(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _read_argument(name: str, key: str, value: Any, where: str, faults: Faults) -> Any:
    """Read one argument of a transformation."""
    if key in SWITCHES:
        return _read_switch(value, where, faults)
    if (name, key) in MENUS:
        return _read_choice(value, MENUS[name, key], where, faults)
    if key in ("Output", "Target"):
        names = _texts(value)
        if not names or any(_is_wild(one) for one in names):
            faults.add(where, f"is {show(value)}, and must be a list of names (without wildcards).")
        return names
    if key == "FirDelays":
        return read_delays(value, where, faults)
    if key == "Replace" and (not isinstance(value, dict) or not value):
        faults.add(where, f'is {show(value)}, and must be an object {{"what stands there": what is written instead}}.')
        return {}
    if key == "Threshold" and number_in(value) is None:
        faults.add(where, f"is {show(value)}, and must be a number.")
        return 0.0
    return value


def _read_switch(value: Any, where: str, faults: Faults) -> bool:
    """Read true or false; published models have them as texts too."""
    switch = {"true": True, "false": False}.get(str(value).casefold())
    if switch is None:
        faults.add(where, f"is {show(value)}, and must be true or false.")
    return bool(switch)


def _read_choice(value: Any, menu: Collection[str], where: str, faults: Faults) -> Any:
    """Read one of a menu, in any case; the amplitude of events is their value."""
    chosen = value.casefold() if isinstance(value, str) else value
    other = {"value": "amplitude", "amplitude": "value"}.get(str(chosen), "")
    if chosen not in menu and other in menu:
        return other
    if chosen not in menu:
        faults.add(where, f"is {show(value)}.{choose_from(menu, [str(value)])}")
    return chosen


def read_delays(value: Any, where: str, faults: Faults) -> tuple[int, ...]:
    """Read the delays of a FIR model, in volumes."""
    numbers = [number_in(one) for one in value] if isinstance(value, list) and value else [None]
    if any(one is None or one != int(one) or one < 0 for one in numbers):
        faults.add(where, f"is {show(value)}, and must be a list of whole numbers from 0 on, in volumes: [0, 1, 2].")
        return (0,)
    return tuple(int(one) for one in numbers if one is not None)


def response_name(instruction: Instruction) -> str:
    """Name the response of a Convolve as nilearn does."""
    arguments = instruction.arguments
    name = str(arguments.get("Model", "spm"))
    if name == "fir":
        return name
    return (
        name
        + " + derivative" * arguments.get("Derivative", False)
        + " + dispersion" * arguments.get("Dispersion", False)
    )


def check_response(instruction: Instruction, faults: Faults) -> None:
    """Refuse responses that there are not: a dispersion without the derivative, a FIR without delays."""
    if response_name(instruction) not in HRFS:
        faults.add(f"{instruction.path}.Dispersion", "is true without Derivative, which it needs here.")
    if instruction.arguments.get("Model") == "fir" and "FirDelays" not in instruction.arguments:
        faults.add(f"{instruction.path}.FirDelays", "is missing: the delays of fir in volumes, such as [0, 1, 2, 3].")
