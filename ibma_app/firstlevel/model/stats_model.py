"""The records of a BIDS Stats Model: what its JSON says, checked, each with the path where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEVELS = ("Run", "Session", "Subject", "Dataset")
"""Levels of nodes, from the first on."""

INTERCEPT = "intercept"
"""The name of the constant, which models write as the number 1."""

SOFTWARE = "ibma_app"
"""Our key in ``Model.Software``."""


@dataclass(frozen=True)
class Instruction:
    """One transformation of the variables of a run."""

    name: str
    inputs: tuple[str, ...]  # variables; wildcards allowed
    arguments: Mapping[str, Any]  # by their names in the model: "Output", "Derivative", ...
    path: str  # "Nodes[0].Transformations.Instructions[2]"


@dataclass(frozen=True)
class Response:
    """``Model.HRF``: variables that are convolved, and with what."""

    variables: tuple[str, ...]
    hrf: str  # one of `ibma_app.firstlevel.records.HRFS`
    fir_delays: tuple[int, ...] | None
    path: str


@dataclass(frozen=True)
class Contrast:
    """A contrast of the columns of a node's design."""

    name: str
    conditions: tuple[str, ...]  # columns; the number 1 is `INTERCEPT`
    weights: tuple[tuple[float, ...], ...]  # a row for t, one or more for F
    test: str  # "t", "F" or "pass"
    path: str


@dataclass(frozen=True)
class DummyContrasts:
    """A contrast for each column, or for those that are listed."""

    conditions: tuple[str, ...] | None  # None: every column
    test: str
    path: str


@dataclass(frozen=True)
class Node:
    """A node: a model that is fitted to each group of images."""

    level: str  # one of `LEVELS`
    name: str
    group_by: tuple[str, ...]
    x: tuple[str, ...]  # columns of the design; wildcards allowed at the run level; the number 1 is `INTERCEPT`
    kind: str  # "glm" or "meta"
    path: str  # "Nodes[0]"
    instructions: tuple[Instruction, ...] = ()
    responses: tuple[Response, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    dummies: DummyContrasts | None = None
    formula: str | None = None
    high_pass: float | None = None  # Hz; None: not said
    software: Mapping[str, Any] = field(default_factory=dict)  # what is said to us


@dataclass(frozen=True)
class Edge:
    """The outputs of one node that are the inputs of another."""

    source: str
    destination: str
    filters: Mapping[str, tuple[str, ...]]  # entity, or "contrast" -> labels
    path: str


@dataclass(frozen=True)
class StatsModel:
    """A BIDS Stats Model."""

    name: str
    file: Path | None  # None: made of options
    inputs: Mapping[str, tuple[str, ...]]  # long name of an entity -> labels
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    notes: tuple[str, ...] = ()  # old spellings that were understood
    description: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)  # of contrasts: path -> what is wrong; nothing is run then

    def of_level(self, level: str) -> tuple[Node, ...]:
        """List the nodes of a level."""
        return tuple(node for node in self.nodes if node.level == level)

    def edge_to(self, node: Node) -> Edge | None:
        """Return the edge that leads to a node; None: it is the first."""
        return next((edge for edge in self.edges if edge.destination == node.name), None)

    def node(self, name: str) -> Node:
        """Return the node of a name."""
        return next(node for node in self.nodes if node.name == name)
