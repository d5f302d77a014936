"""From a BIDS Stats Model to options: what its nodes mean for each level, and nothing that options cannot say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.from_files import show
from ibma_app.core.labels import contrast_label
from ibma_app.dataset.entities import short_name
from ibma_app.dataset.filters import read_labels
from ibma_app.estimators import PARTICIPANT, find_estimator
from ibma_app.firstlevel.model.dataset_node import formula_of, tests_of
from ibma_app.firstlevel.model.edges import inputs, way_to
from ibma_app.firstlevel.model.faults import choose_from
from ibma_app.firstlevel.model.reading.nodes import choose_node
from ibma_app.firstlevel.model.reading.read_model import read_model
from ibma_app.firstlevel.model.stats_model import SOFTWARE, Node, StatsModel
from ibma_app.workflows.options.table import COMBINING, INFERRING, OPTIONS, TESTING, Option

LABELS: Mapping[str, str] = {
    "subject": "participant_label",
    "session": "session_label",
    "task": "task_id",
    "space": "space",
}
"""Entities that have options of their own; the others are in ``[inputs] keep``."""

NODE_LEVELS: Mapping[str, tuple[str, ...]] = {
    "run": ("Run",),
    "participant": ("Subject", "Session"),
    "group": ("Dataset",),
}
"""Our levels, and the levels of the nodes that they are."""

SHOWN = 20  # labels in a message
OF_METHODS = (COMBINING, TESTING, INFERRING)
NOT_METHODS = ("model", "node", "compute")
COMBINABLE = ("run", "session", "task")

OF_DESIGN = ("formula", "test", "combine", "pool", "contrasts", "confounds", "contrast_file")
"""Options that are the model's own: the command line does not change them."""


def camel(dest: str) -> str:
    """Return the name of an option as models write it: ``cluster_p`` -> ``ClusterP``."""
    return "".join(part.capitalize() for part in dest.split("_"))


OF_ALL = ("Mask", "MinCoverage", "Grid")
OF_SOFTWARE: Mapping[str, tuple[str, ...]] = {
    "Run": ("Noise", "ScrubFD", "DropVolumes", "StartTime", "Units", "Smoothing", "Residuals"),
    "Session": ("Weights", *OF_ALL),
    "Subject": ("Weights", *OF_ALL),
    "Dataset": (
        *(
            camel(one.dest)
            for one in OPTIONS
            if one.heading in OF_METHODS and one.dest not in (*OF_DESIGN, *NOT_METHODS)
        ),
        "Settings",
    ),
}
"""What ``Model.Software.ibma_app`` may say, by level: options in the spelling of models."""


@dataclass(frozen=True)
class Filled:
    """What a model fills in."""

    options: dict[str, Any]  # by the options' names
    settings: dict[str, Any]  # tables of the configuration
    node: Node | None  # None: the model has no node of this level


def fill_options(model: StatsModel, level: str, node_name: str | None = None) -> Filled:
    """Return the options that a model means at a level.

    Parameters
    ----------
    model : StatsModel
    level : str
        ``run``, ``participant`` or ``group``.
    node_name : str, optional
        Of the node, where the model has several of this level.

    Raises
    ------
    UsageError
        There is no such node, or several and none is named.
    DataError
        What the model says to us is not understood; the message has the path.
    """
    where = str(model.file or "The model")
    for node in model.nodes:
        check_software(node, where)
    nodes = [node for name in NODE_LEVELS[level] for node in model.of_level(name)]
    if level == "participant":
        nodes = _last_within(model, nodes)
    if not nodes:
        if level == "participant":
            options, settings = _labels(model, None, level)
            return Filled(options, settings, None)
        raise UsageError(f"{where}: the model has no {NODE_LEVELS[level][0]} node, so the {level} level has none.")
    node = choose_node(nodes, node_name, NODE_LEVELS[level][0])
    options, settings = _labels(model, node, level)
    own, more = read_software(node, where)
    options |= own
    if level == "participant":
        _refuse_means_of_means(model, node, where)
        options["combine"] = combined_over(model, node)
    if level == "group":
        options |= {"formula": formula_of(node, where), "test": tests_of(node, where)}
        _refuse_mixed_subjects(model, node, where)
    for table, content in more.items():
        settings[table] = {**settings.get(table, {}), **content}
    return Filled({key: value for key, value in options.items() if value is not None}, settings, node)


def _last_within(model: StatsModel, nodes: list[Node]) -> list[Node]:
    """Keep of Session and Subject nodes those that no other of them follows: precision weights add up in one step."""
    sources = {edge.source for edge in model.edges if model.node(edge.destination) in nodes}
    return [node for node in nodes if node.name not in sources]


def _refuse_means_of_means(model: StatsModel, node: Node, where: str) -> None:
    """Refuse plain means where a Session node comes before a Subject node: in one step they would be another mean.

    Raises
    ------
    DataError
        One of the nodes asks for equal weights.
    """
    within = [one for one in way_to(model, node) if one.level in NODE_LEVELS["participant"]]
    if len(within) > 1 and any(one.software.get("Weights") == "equal" for one in within):
        path = f"{where}: {node.path}.Model.Software.{SOFTWARE}.Weights"
        raise DataError(
            f'{path}: "equal" after {within[0].path} is a mean of means, and the two nodes are one step here. Leave '
            "out one of the nodes, or the weights."
        )


def _labels(model: StatsModel, node: Node | None, level: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the images that reach a node: those of ``Input``, less what edges filter out."""
    selected: dict[str, tuple[str, ...]] = dict(model.inputs)
    way = way_to(model, node) if node is not None else ()
    for one in way:
        edge = model.edge_to(one)
        for key, labels in edge.filters.items() if edge else ():
            if edge and key != "contrast":
                before = selected.get(key)
                selected[key] = tuple(label for label in labels if before is None or label in before)
                if not selected[key]:
                    listed = ", ".join(before or ())
                    raise DataError(f"{model.file}: {edge.path}.Filter.{key}: leaves no image: Input has {listed}.")
    options: dict[str, Any] = {LABELS[key]: labels for key, labels in selected.items() if key in LABELS}
    others = {key: list(labels) for key, labels in selected.items() if key not in LABELS}
    if level == "group" or (level == "participant" and node is None):
        others.pop("run", None)  # no map of a subject has it
    if node is not None and level != "run":
        names = inputs(model, node)
        options["contrast"] = None if names is None else tuple(dict.fromkeys(map(contrast_label, names)))
        if names == ():
            raise DataError(
                f"{model.file}: {node.path}: no contrast reaches {node.name}: F tests end where they are made."
            )
    return options, ({"inputs": {"keep": others}} if others else {})


def combined_over(model: StatsModel, node: Node) -> tuple[str, ...]:
    """Return the entities that a Subject or Session node combines over: those that GroupBy does not keep apart.

    Tasks are combined over only where ``Input`` lists several.
    """
    several = len(model.inputs.get("task", ())) > 1
    return tuple(one for one in COMBINABLE if one not in node.group_by and (one != "task" or several))


def _refuse_mixed_subjects(model: StatsModel, node: Node, where: str) -> None:
    """Refuse maps of one subject that would meet in one model as if they were of several.

    Raises
    ------
    DataError
        The node's GroupBy lacks what the nodes before it keep apart.
    """
    before = way_to(model, node)[:-1]
    if not before:
        return
    last = before[-1]
    apart = [one for one in ("session", "task") if one in last.group_by and one not in node.group_by]
    if last.level == "Run" and len(model.inputs.get("task", ())) > 1 and "task" not in node.group_by:
        apart.append("task")
    if apart:
        text = (
            f'lacks "{apart[0]}", by which {last.path} keeps images apart: images of one subject would count as those '
            "of several. Add it here, or combine over it in a Subject node."
        )
        raise DataError(f"{where}: {node.path}.GroupBy: {text}")


def check_software(node: Node, where: str) -> None:
    """Refuse what ``Model.Software.ibma_app`` says and we do not know.

    Raises
    ------
    DataError
        The message has the path.
    """
    read_software(node, where)


def read_software(node: Node, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what ``Model.Software.ibma_app`` says: options, and tables of settings.

    Raises
    ------
    DataError
        A key or value is not understood; the message has the path.
    """
    options: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    known = {option.dest: option for option in OPTIONS}
    for key, value in node.software.items():
        path = f"{where}: {node.path}.Model.Software.{SOFTWARE}.{key}"
        if key not in OF_SOFTWARE[node.level]:
            raise DataError(
                f"{path}: is not known at the {node.level} level.{choose_from(OF_SOFTWARE[node.level], [key])}"
            )
        if key == "Settings":
            if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
                raise DataError(f'{path}: is {show(value)}, and must be an object: {{"estimator": {{...}}}}.')
            settings |= value
        elif key == "Weights":
            weights = find_estimator(PARTICIPANT).settings["weights"].choices
            if value not in weights:
                raise DataError(f"{path}: is {show(value)}.{choose_from(weights, [str(value)])}")
            settings["estimator"] = {PARTICIPANT: {"weights": value}}
        elif node.level == "Run" and key != "Smoothing":
            settings.setdefault("run", {})[snake(key)] = value
        else:
            option = known[snake(key)]
            options[option.dest] = _typed(option, value, path)
    return options, settings


def snake(key: str) -> str:
    """Return the name of an option that models write in camel case: ``ClusterP`` -> ``cluster_p``."""
    letters = [f"_{sign.lower()}" if sign.isupper() and place else sign.lower() for place, sign in enumerate(key)]
    return "".join(letters).replace("_f_d", "_fd")


def _typed(option: Option, value: Any, path: str) -> Any:
    """Bring a value of a model to the type of its option."""
    values = value if isinstance(value, list) else [value]
    wanted: tuple[type, ...] = {float: (int, float), Path: (str,)}.get(option.kind, (option.kind,))
    if (isinstance(value, list) and not option.many) or not values:
        raise DataError(f"{path}: is {show(value)}, and takes one value.")
    for one in values:
        if not isinstance(one, wanted) or (isinstance(one, bool) and option.kind is not bool):
            raise DataError(f"{path}: is {show(one)}, and must be {_KINDS.get(option.kind, 'text')}.")
        if option.choices and one not in option.choices:
            raise DataError(f"{path}: is {show(one)}.{choose_from(option.choices, [str(one)])}")
    typed = tuple(option.kind(one) for one in values)
    return typed if option.many else typed[0]


_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def merge_given(given: Mapping[str, Any], filled: Filled, model: StatsModel) -> dict[str, Any]:
    """Put the command line (and the configuration) over what a model fills in.

    Images may be chosen among the model's, and methods changed; the design and its tests are the model's.

    Raises
    ------
    UsageError
        The command line contradicts the model's design.
    """
    merged = dict(filled.options)
    _refuse_other_images(given, filled, model)
    for dest, value in given.items():
        asked = tuple(value) if isinstance(value, list) else value
        meant = filled.options.get(dest)
        if dest in OF_DESIGN and filled.node is not None and not _same(dest, asked, meant):
            flag = f"--{dest.replace('_', '-')}"
            own = "has contrasts of its own" if dest == "contrasts" else "has none"
            stated = f"has {_flat(meant)}" if meant is not None else own
            raise UsageError(
                f"{flag} {_flat(asked)} contradicts the model {model.file}, whose node {filled.node.name} {stated}. "
                f"Change the model, or leave {flag} out."
            )
        merged[dest] = value
    return merged


def _refuse_other_images(given: Mapping[str, Any], filled: Filled, model: StatsModel) -> None:
    """Refuse labels that are not among those of the model: the command line chooses among its images."""
    for name, dest in {**LABELS, "contrast": "contrast"}.items():
        meant, asked = filled.options.get(dest), given.get(dest)
        if meant is None or asked is None:
            continue
        key = short_name(name)
        allowed = read_labels(meant, key)
        others = [label for label in read_labels(asked, key) if label not in allowed]
        if others:
            flag = f"--{dest.replace('_', '-')}"
            listed = ", ".join(allowed[:SHOWN]) + (", ..." if len(allowed) > SHOWN else "")
            raise UsageError(f"{flag} {others[0]} is not among the images of the model {model.file} ({name} {listed}).")


def _same(dest: str, asked: Any, meant: Any) -> bool:
    """Return whether an option says what the model says, or the default where the model says nothing."""
    if meant is not None:
        return bool(asked == meant)
    default = {option.dest: option.default for option in OPTIONS}
    return asked is None or bool(asked == default.get(dest))


def _flat(value: Any) -> str:
    return " ".join(map(repr, value)) if isinstance(value, tuple) else repr(value)


def apply_model(
    given: Mapping[str, Any], settings: Mapping[str, Any], level: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put a model's options below those that are given.

    Parameters
    ----------
    given : mapping
        Options of the command line and the configuration; ``model`` is among them.
    settings : mapping
        Tables of the configuration, which win over the model's.
    level : str

    Returns
    -------
    options, settings : dict

    Raises
    ------
    InputError, DataError, UsageError
        As `read_model`, `fill_options` and `merge_given`.
    """
    model = read_model(Path(given["model"]), to_show=bool(given.get("dry_run")))
    filled = fill_options(model, level, given.get("node"))
    if level == "run":
        own = [key for key in ("hrf", "fir_delays", "high_pass", "confounds") if key in settings.get("run", {})]
        if own:
            text = f"[run] {own[0]} contradicts the model {model.file}, which has it in its Run node."
            raise UsageError(f"{text} Change the model, or leave {own[0]} out of the configuration.")
    tables = {
        name: {**filled.settings.get(name, {}), **settings.get(name, {})}
        for name in dict.fromkeys((*filled.settings, *settings))
    }
    return merge_given(given, filled, model), tables
