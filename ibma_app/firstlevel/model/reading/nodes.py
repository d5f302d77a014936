"""Nodes: read, and checked for what their level can do."""

from collections.abc import Mapping, Sequence
from typing import Any

from ibma_app.core.errors import UsageError
from ibma_app.core.from_files import number_in, show
from ibma_app.firstlevel.model.faults import Faults, choose_from
from ibma_app.firstlevel.model.reading.instructions import read_delays, read_instructions
from ibma_app.firstlevel.model.reading.levels import check_node
from ibma_app.firstlevel.model.reading.node_contrasts import in_x, read_contrasts, read_dummies, read_names, write_name
from ibma_app.firstlevel.model.stats_model import SOFTWARE, Node, Response
from ibma_app.firstlevel.records import HRFS


def read_nodes(listed: Sequence[Mapping[str, Any]], faults: Faults) -> tuple[Node, ...]:
    """Read the nodes of a model that fits the schema."""
    if not listed:
        faults.add("Nodes", "is empty: a model has at least one node.")
    nodes = [_read_node(one, f"Nodes[{place}]", faults) for place, one in enumerate(listed)]
    first: dict[str, Node] = {}
    for node in nodes:
        if node.name in first:
            text = f"is {show(node.name)}, as that of {first[node.name].path}. Edges need names that differ."
            faults.add(f"{node.path}.Name", text)
        first.setdefault(node.name, node)
    return tuple(nodes)


def _read_node(given: Mapping[str, Any], path: str, faults: Faults) -> Node:
    model = given["Model"]
    x = read_names(model["X"])
    columns = None if model.get("Formula") else x
    contrasts = read_contrasts(given.get("Contrasts"), columns, path, faults)
    transformations = given.get("Transformations") or {}
    node = Node(
        level=given["Level"],
        name=given["Name"],
        group_by=tuple(given["GroupBy"]),
        x=x,
        kind=model["Type"],
        path=path,
        instructions=read_instructions(transformations.get("Instructions"), f"{path}.Transformations", faults),
        responses=_read_responses(model.get("HRF"), x, f"{path}.Model.HRF", faults),
        contrasts=contrasts,
        dummies=read_dummies(given.get("DummyContrasts"), columns, [one.name for one in contrasts], path, faults),
        formula=model.get("Formula"),
        high_pass=_read_options(model.get("Options") or {}, f"{path}.Model.Options", faults),
        software=_read_software(model.get("Software") or {}, f"{path}.Model.Software", faults),
    )
    twice = sorted({write_name(name) for name in x if x.count(name) > 1})
    if twice:
        faults.add(f"{path}.Model.X", f"has {', '.join(twice)} twice.")
    if not given.get("Contrasts") and node.dummies is None:
        faults.add(
            path, 'has neither Contrasts nor DummyContrasts: it gives nothing. Add "DummyContrasts": {"Test": "t"}.'
        )
    check_node(node, faults)
    return node


def _read_responses(
    given: Mapping[str, Any] | None, x: Sequence[str], path: str, faults: Faults
) -> tuple[Response, ...]:
    """Read ``Model.HRF``: one response for its variables."""
    if given is None:
        return ()
    name = " + ".join(part.strip() for part in given["Model"].casefold().split("+"))
    parameters = dict(given.get("Parameters") or {})
    delays = parameters.pop("fir_delays", None)
    if name not in HRFS:
        faults.add(f"{path}.Model", f"is {show(given['Model'])}.{choose_from(HRFS, [name])}")
    for key in parameters:
        faults.add(f"{path}.Parameters.{key}", "is not known: of parameters there is fir_delays alone.")
    if name == "fir" and delays is None:
        faults.add(f"{path}.Parameters", 'lacks the delays of "fir", in volumes: {"fir_delays": [0, 1, 2]}.')
    for index, variable in enumerate(given["Variables"]):
        if not in_x(variable, x) and variable not in x:
            faults.add(f"{path}.Variables[{index}]", f"{show(variable)} is not in Model.X of this node.")
    read = None if delays is None else read_delays(delays, f"{path}.Parameters.fir_delays", faults)
    return (Response(tuple(given["Variables"]), name, read, path),)


def _read_options(given: Mapping[str, Any], path: str, faults: Faults) -> float | None:
    """Read ``Model.Options``: the high-pass filter; the others are refused."""
    for key, value in given.items():
        if key not in ("HighPassFilterCutoffHz", "Description") and value not in (None, {}, "none"):
            faults.add(f"{path}.{key}", "is not supported. Of the options there is HighPassFilterCutoffHz.")
    value = given.get("HighPassFilterCutoffHz")
    if value is None:
        return None
    cutoff = number_in(value)
    if cutoff is None or cutoff < 0:
        faults.add(f"{path}.HighPassFilterCutoffHz", f"is {show(value)}, and must be a frequency in Hz, or 0.")
    elif cutoff > 0.5:
        text = (
            f"is {show(value)} Hz: that removes all of the signal. It is a frequency, not a period: 1/128 s is 0.0078."
        )
        faults.add(f"{path}.HighPassFilterCutoffHz", text)
    return cutoff


def _read_software(given: Mapping[str, Any], path: str, faults: Faults) -> Mapping[str, Any]:
    """Return what ``Model.Software`` says to us; what it says to others is theirs."""
    for name in given:
        if name != SOFTWARE and name.casefold().replace("-", "_") == SOFTWARE:
            faults.add(f"{path}.{name}", f"is written {SOFTWARE}.")
    own: Mapping[str, Any] = given.get(SOFTWARE, {})
    return own


def choose_node(nodes: Sequence[Node], name: str | None, level: str) -> Node:
    """Return the node that is asked for: the only one, or that of a name.

    Raises
    ------
    UsageError
        There are several and none is named, or none of that name.
    """
    named = [node for node in nodes if node.name == name] if name is not None else list(nodes)
    if len(named) == 1:
        return named[0]
    listed = ", ".join(node.name for node in nodes) or "none"
    if name is not None:
        raise UsageError(f"--node {name}: the model has no such {level} node; it has: {listed}.")
    raise UsageError(f"The model has {len(nodes)} {level} nodes: {listed}. Choose one with --node NAME.")
