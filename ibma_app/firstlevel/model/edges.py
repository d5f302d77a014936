"""Edges: which node's outputs are whose inputs, and which contrasts flow."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ibma_app.core.from_files import show
from ibma_app.core.labels import contrast_label
from ibma_app.firstlevel.model.faults import Faults, choose_from
from ibma_app.firstlevel.model.stats_model import INTERCEPT, LEVELS, Edge, Node, StatsModel

FILTERS = ("contrast", "subject", "session", "task", "run")
"""What an edge may filter by."""


def read_edges(listed: Sequence[Mapping[str, Any]] | None, nodes: Sequence[Node], faults: Faults) -> tuple[Edge, ...]:
    """Read the edges; without any, nodes follow each other as they are listed."""
    if not listed:
        edges = [Edge(one.name, other.name, {}, other.path) for one, other in pairwise(nodes)]
    else:
        edges = [_read_edge(one, f"Edges[{place}]", nodes, faults) for place, one in enumerate(listed)]
    if not faults.found:
        _check_order(edges, nodes, faults)
    return tuple(edges)


def _read_edge(given: Mapping[str, Any], path: str, nodes: Sequence[Node], faults: Faults) -> Edge:
    names = [node.name for node in nodes]
    for key in ("Source", "Destination"):
        if given[key] not in names:
            faults.add(f"{path}.{key}", f"there is no node {show(given[key])}.{choose_from(names, [given[key]])}")
    filters = {key: tuple(map(str, values)) for key, values in (given.get("Filter") or {}).items()}
    for key in filters:
        if key not in FILTERS:
            faults.add(f"{path}.Filter.{key}", f"images are not filtered by it here.{choose_from(FILTERS, [key])}")
    return Edge(given["Source"], given["Destination"], filters, path)


def _check_order(edges: Sequence[Edge], nodes: Sequence[Node], faults: Faults) -> None:
    """Edges go up, one leads to each node but the first, and none goes round in a circle."""
    by_name = {node.name: node for node in nodes}
    for edge in edges:
        source, destination = by_name[edge.source], by_name[edge.destination]
        circle = _circle(edge, edges)
        if circle:
            faults.add(edge.path, f"goes round in a circle: {' -> '.join(circle)}.")
        elif LEVELS.index(source.level) >= LEVELS.index(destination.level):
            text = f"leads from {source.name} ({source.level}) to {destination.name} ({destination.level})"
            faults.add(edge.path, f"{text}. Edges go up: {', '.join(LEVELS)}.")
    for node in nodes[1:] if nodes else ():
        leading = [edge for edge in edges if edge.destination == node.name]
        if not leading:
            faults.add(f"{node.path}.Name", f"no edge leads to {show(node.name)}. Add one to Edges.")
        if len(leading) > 1:
            faults.add(leading[1].path, f"a second edge leads to {show(node.name)}. A node has one source here.")
    if nodes and any(edge.destination == nodes[0].name for edge in edges):
        faults.add(nodes[0].path, "is the first node, but an edge leads to it. List the node first that comes first.")


def _circle(edge: Edge, edges: Sequence[Edge]) -> list[str]:
    """Return the names of a circle that an edge is part of; empty: there is none."""
    way, here = [edge.source], edge.destination
    while len(way) <= len(edges):
        way.append(here)
        if here == edge.source:
            return way
        following = [one for one in edges if one.source == here]
        if not following:
            return []
        here = following[0].destination
    return []


def outputs(model: StatsModel, node: Node) -> tuple[str, ...] | None:
    """List the contrasts that a node gives to those that follow; None: it depends on the columns of the data.

    F tests end where they are made. A mean of one contrast keeps that contrast's name.
    """
    passing = [one.name for one in node.contrasts if one.test != "F"]
    if node.level == "Run":
        if node.dummies is None:
            return tuple(passing)
        listed = node.dummies.conditions
        return None if listed is None else tuple(dict.fromkeys((*listed, *passing)))
    incoming = inputs(model, node)
    return incoming


def inputs(model: StatsModel, node: Node) -> tuple[str, ...] | None:
    """List the contrasts that reach a node, after the edge's filter; None: it depends on the data."""
    edge = model.edge_to(node)
    if edge is None:
        return None
    given = outputs(model, model.node(edge.source))
    kept = edge.filters.get("contrast")
    if kept is None:
        return given
    if given is None:
        return kept
    labels = set(map(contrast_label, kept))
    return tuple(name for name in given if contrast_label(name) in labels)


def check_filters(model: StatsModel, faults: Faults) -> None:
    """Refuse filters by contrasts that do not reach the edge."""
    for edge in model.edges:
        given = outputs(model, model.node(edge.source))
        for index, name in enumerate(edge.filters.get("contrast", ())):
            if given is not None and contrast_label(name) not in set(map(contrast_label, given)):
                what = [INTERCEPT if one == INTERCEPT else one for one in given]
                text = f"{edge.source} gives no contrast {show(name)}.{choose_from(what, [name])}"
                faults.add(f"{edge.path}.Filter.contrast[{index}]", text)


def way_to(model: StatsModel, node: Node) -> tuple[Node, ...]:
    """List the nodes from the first to a node, itself included."""
    way = [node]
    while (edge := model.edge_to(way[0])) is not None:
        way.insert(0, model.node(edge.source))
    return tuple(way)
