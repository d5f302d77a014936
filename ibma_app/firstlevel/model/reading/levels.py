"""What the nodes of each level can do, and what transformations leave of the names of variables."""

import re
from collections.abc import Mapping, Sequence

from ibma_app.core.from_files import show
from ibma_app.firstlevel.model.faults import Faults, choose_from
from ibma_app.firstlevel.model.reading.instructions import check_response
from ibma_app.firstlevel.model.reading.node_contrasts import in_x, write_name
from ibma_app.firstlevel.model.stats_model import INTERCEPT, Instruction, Node

ENTITIES = (
    *("subject", "session", "task", "acquisition", "ceagent", "reconstruction", "direction", "run", "echo", "part"),
    *("space", "resolution", "density"),
)
"""Entities of images that may keep them apart, by their long names."""

OF_DATASET = ("Factor", "Copy", "Rename", "Demean", "Scale")
"""Transformations of the columns of participants.tsv."""


def check_node(node: Node, faults: Faults) -> None:
    """Check a node for what its level can do."""
    _check_instructions(node, faults)
    check = {"Run": _check_run, "Session": _check_within, "Subject": _check_within, "Dataset": _check_dataset}
    check[node.level](node, faults)


def _check_instructions(node: Node, faults: Faults) -> None:
    """Check what transformations do to the names of variables, one after the other."""
    gone: dict[str, Instruction] = {}
    convolved: tuple[str, ...] = ()
    for one in node.instructions:
        _check_inputs(one, gone, convolved, faults)
        outputs = one.arguments.get("Output", ())
        gone = {name: made for name, made in gone.items() if name not in outputs}
        if one.name in ("Factor", "Rename"):
            gone |= {name: one for name in one.inputs if name not in outputs}
        elif one.name == "Convolve":
            check_response(one, faults)
            convolved += one.inputs
    for index, name in enumerate(node.x):
        if name in gone:
            faults.add(f"{node.path}.Model.X[{index}]", f"{show(name)} is no more: {_made_of(name, gone[name])}.")


def _check_inputs(
    instruction: Instruction, gone: Mapping[str, Instruction], convolved: Sequence[str], faults: Faults
) -> None:
    """Check that the variables of a transformation are still there, and not convolved yet."""
    for index, name in enumerate(instruction.inputs):
        if name in gone:
            text = f"{show(name)} is no more: {_made_of(name, gone[name])}."
            faults.add(f"{instruction.path}.Input[{index}]", text)
    touched = (*instruction.inputs, *instruction.arguments.get("Target", ()))
    late = [name for name in touched if in_x(name, convolved)]
    if late and instruction.name not in ("Copy", "Rename"):
        text = f"{instruction.name} of {show(late[0])} comes after its Convolve. Put it before."
        faults.add(f"{instruction.path}.Name", text)


def _made_of(name: str, instruction: Instruction) -> str:
    made = f"{name}.*" if instruction.name == "Factor" else ", ".join(instruction.arguments.get("Output", ()))
    return f"{instruction.path} ({instruction.name}) has made {made} of it"


def _check_run(node: Node, faults: Faults) -> None:
    """Check a node of runs: each is modelled alone, its columns being variables."""
    path = f"{node.path}.GroupBy"
    for name in ("subject", "run"):
        if name not in node.group_by:
            faults.add(path, f'lacks "{name}": each run is modelled alone. Write ["run", "subject"].')
    _check_group_by(node, ENTITIES, faults)
    if INTERCEPT not in node.x:
        faults.add(f"{node.path}.Model.X", "lacks the number 1, the intercept: BOLD signals have a mean.")
    elif len(node.x) == 1:
        faults.add(f"{node.path}.Model.X", 'is [1] alone: a run needs columns of its events, such as "trial_type.*".')
    if node.kind != "glm":
        faults.add(f"{node.path}.Model.Type", f'is "{node.kind}": runs are modelled by "glm".')
    if node.formula is not None:
        faults.add(f"{node.path}.Model.Formula", "is for Dataset nodes: runs have the columns of X.")
    _check_columns(node, faults)


def _check_columns(node: Node, faults: Faults) -> None:
    """Check the columns of a run's design, and that nothing is convolved twice."""
    for index, name in enumerate(node.x):
        left, colon, right = name.partition(":")
        others = [one for one in node.x if one != name]
        if colon and in_x(left, others) and in_x(right, others):
            text = f"{show(name)} is an interaction, which runs do not have: make the product a column of the events."
            faults.add(f"{node.path}.Model.X[{index}]", text)
    convolved = [name for one in node.instructions if one.name == "Convolve" for name in one.inputs]
    for response in node.responses:
        for index, name in enumerate(response.variables):
            if in_x(name, convolved):
                faults.add(f"{response.path}.Variables[{index}]", f"{show(name)} is convolved by Transformations too.")


def _check_within(node: Node, faults: Faults) -> None:
    """Check a node that combines the images of one subject, or of one session."""
    needed = ["subject", "contrast", *(["session"] if node.level == "Session" else [])]
    for name in needed:
        if name not in node.group_by:
            text = f'lacks "{name}": images that differ in it would be averaged. Write {_as_json(needed)}.'
            faults.add(f"{node.path}.GroupBy", text)
    if "run" in node.group_by:
        faults.add(f"{node.path}.GroupBy", f'has "run": a {node.level} node combines runs. Leave it out.')
    _check_group_by(node, (*ENTITIES, "contrast"), faults)
    if node.x != (INTERCEPT,):
        text = (
            f"is {_as_json(list(map(write_name, node.x)))}. A {node.level} node combines images of one question: [1]. "
            "Contrasts between conditions belong to the Run node, covariates to the Dataset node."
        )
        faults.add(f"{node.path}.Model.X", text)
    if node.formula not in (None, "1"):
        faults.add(f"{node.path}.Model.Formula", 'is for Dataset nodes; here there is the mean alone: "1".')
    if node.instructions:
        faults.add(f"{node.path}.Transformations", f"has no place in a {node.level} node, whose X is [1].")
    for one in node.contrasts:
        if one.test == "F":
            faults.add(f"{one.path}.Test", 'is "F": of a mean that is a two-sided t test. Write "t".')
        if one.conditions == (INTERCEPT,) and one.weights and one.weights != ((1.0,),):
            faults.add(f"{one.path}.Weights", f"is {one.weights[0][0]:g}: the mean has the weight 1.")


def _check_dataset(node: Node, faults: Faults) -> None:
    """Check a node of the dataset: a design of the columns of participants.tsv."""
    if "contrast" not in node.group_by:
        text = 'lacks "contrast": images of different contrasts would enter one model. Write ["contrast"].'
        faults.add(f"{node.path}.GroupBy", text)
    for name in ("subject", "run"):
        if name in node.group_by:
            faults.add(f"{node.path}.GroupBy", f'has "{name}": a Dataset node combines subjects. Leave it out.')
    _check_group_by(node, ("contrast", *(one for one in ENTITIES if one not in ("subject", "run"))), faults)
    for index, name in enumerate(node.x):
        if any(sign in name for sign in "*?["):
            faults.add(f"{node.path}.Model.X[{index}]", f"{show(name)} has a wildcard: name the columns one by one.")
    if node.formula is not None and not re.search(r"(?<![\w.])[01](?![\w.])", node.formula):
        faults.add(
            f"{node.path}.Model.Formula", f"is {show(node.formula)}: say whether it has an intercept, by 1 or 0."
        )
    for one in node.instructions:
        if one.name not in OF_DATASET:
            faults.add(f"{one.path}.Name", f"{one.name} is for runs.{choose_from(OF_DATASET)}")
    _check_dataset_tests(node, faults)


def _check_dataset_tests(node: Node, faults: Faults) -> None:
    """Check the tests of a node of the dataset, which is the last level."""
    for contrast in node.contrasts:
        if contrast.test == "F" and len(contrast.weights) == 1:
            faults.add(f"{contrast.path}.Test", 'is "F" with one row: that is a two-sided t test. Write "t".')
        if contrast.test == "pass":
            faults.add(f"{contrast.path}.Test", 'is "pass", but the dataset is the last level: write "t" or "F".')
    if node.dummies is not None and node.dummies.test == "pass":
        faults.add(f"{node.dummies.path}.Test", 'is "pass", but the dataset is the last level: write "t".')


def _check_group_by(node: Node, menu: Sequence[str], faults: Faults) -> None:
    """Refuse what images are not told apart by: columns of tables above all."""
    for index, name in enumerate(node.group_by):
        if name in menu or name in ENTITIES:
            continue
        advice = (
            " To split subjects by a column of participants.tsv, put it into X or Formula, or run the group level once "
            "for each of its values with --participant-label."
            if node.level == "Dataset" and name not in ENTITIES
            else ""
        )
        text = f"is {show(name)}, which tells no images apart at the {node.level} level."
        faults.add(f"{node.path}.GroupBy[{index}]", f"{text}{choose_from(menu, [name])}{advice}")


def _as_json(names: Sequence[str]) -> str:
    return "[" + ", ".join(name if name == "1" else f'"{name}"' for name in names) + "]"
