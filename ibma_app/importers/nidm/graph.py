"""NIDM-Results as a graph: Turtle read by rdflib, with one vocabulary for the terms of all versions.

Versions before 1.0 named their terms (``nidm:ContrastMap``), later ones number
them (``nidm:NIDM_0000002``); both become the name. Nothing is loaded from a
network: only Turtle is read, which cannot refer to it.

References
----------
Maumet C, et al. Sharing brain mapping statistical results with the
neuroimaging data model. Scientific Data 3:160102, 2016.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError
from ibma_app.core.from_files import number_in, parse_json

MAX_TURTLE = 4 * 2**20  # bytes; thousands of peaks take one or two MiB
_AGAIN = "Export or download the pack again."

_TERMS = {
    "NIDM_0000001": "ContrastEstimation",
    "NIDM_0000002": "ContrastMap",
    "NIDM_0000013": "ContrastStandardErrorMap",
    "NIDM_0000015": "Coordinate",
    "NIDM_0000016": "CoordinateSpace",
    "NIDM_0000019": "DesignMatrix",
    "NIDM_0000021": "regressorNames",
    "NIDM_0000027": "NIDMResults",
    "NIDM_0000033": "GrandMeanMap",
    "NIDM_0000076": "StatisticMap",
    "NIDM_0000085": "contrastName",
    "NIDM_0000086": "coordinateVector",
    "NIDM_0000088": "hasDriftModel",
    "NIDM_0000091": "effectDegreesOfFreedom",
    "NIDM_0000093": "errorDegreesOfFreedom",
    "NIDM_0000102": "hasHRFBasis",
    "NIDM_0000104": "inCoordinateSpace",
    "NIDM_0000105": "inWorldCoordinateSystem",
    "NIDM_0000122": "softwareVersion",
    "NIDM_0000123": "statisticType",
    "NIDM_0000127": "version",
    "NIDM_0000131": "voxelSize",
    "NIDM_0000132": "voxelToWorldMapping",
    "NIDM_0000135": "ContrastVarianceMap",
    "NIDM_0000139": "coordinateVectorInVoxels",
    "NIDM_0000170": "groupName",
    "NIDM_0000171": "numberOfSubjects",
    "STATO_0000176": "TStatistic",
    "STATO_0000282": "FStatistic",
    "STATO_0000376": "ZStatistic",
    "STATO_0000323": "ContrastWeights",
    "STATO_0000193": "Group",
    "fileName": "filename",
}


@dataclass(frozen=True)
class NidmGraph:
    """Nodes by IRI: property -> values (IRIs of other nodes, or text)."""

    nodes: Mapping[str, Mapping[str, tuple[str, ...]]]

    def of_type(self, term: str) -> list[str]:
        """List the nodes of a type, sorted."""
        return self._by_type.get(term, [])

    @cached_property
    def _by_type(self) -> Mapping[str, list[str]]:
        """The nodes of each type, sorted."""
        found: dict[str, list[str]] = {}
        for node in sorted(self.nodes):
            for term in {term_of(one) for one in self.nodes[node].get("type", ())}:
                found.setdefault(term, []).append(node)
        return found

    def values(self, node: str, name: str) -> tuple[str, ...]:
        """Return the values of a node's property (() when it has none)."""
        return self.nodes.get(node, {}).get(name, ())

    def text(self, node: str, name: str) -> str:
        """Return the first of a node's values, "" when there is none."""
        return next(iter(self.values(node, name)), "")

    def number(self, node: str, name: str) -> float | None:
        """Return a node's value as a finite number, else None."""
        return number_in(self.text(node, name))

    def vector(self, node: str, name: str) -> NDArray[np.float64] | None:
        """Return a node's value such as ``[1, 0, 0]`` or ``[[..], [..]]`` as an array, else None."""
        return numbers_of(self.text(node, name))

    def activities(self, node: str) -> tuple[str, ...]:
        """Return what generated a node, stated directly or by a qualified generation."""
        qualified = [self.text(one, "activity") for one in self.values(node, "qualifiedGeneration")]
        return (*self.values(node, "wasGeneratedBy"), *filter(None, qualified))


def term_of(iri: str) -> str:
    """Return the name of a term, whatever version and namespace it is from."""
    local = re.split(r"[#/]", iri)[-1]
    return _TERMS.get(local, local)


def numbers_of(text: str) -> NDArray[np.float64] | None:
    """Read a list of numbers, or of lists of numbers, as exporters write it; None when it is something else."""
    try:  # FSL's older exporters write "0." in matrices, which is not JSON
        values = np.array(parse_json(re.sub(r"(\d)\.(?=[\s,\]])", r"\1.0", text)), dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return values if values.size and np.isfinite(values).all() else None


def parse_turtle(raw: bytes, where: str) -> NidmGraph:
    """Read the Turtle file of a pack.

    Parameters
    ----------
    raw : bytes
    where : str
        For messages.

    Raises
    ------
    DataError
        It is broken, too large, or not NIDM-Results.
    """
    from rdflib import Graph
    from rdflib.plugins.parsers.notation3 import BadSyntax

    if len(raw) > MAX_TURTLE:
        raise DataError(f"{where} has more than {MAX_TURTLE // 2**20} MiB: refused.")
    graph = Graph()
    try:
        with _quiet():
            graph.parse(data=raw.decode("utf-8-sig"), format="turtle", publicID="urn:nidm-pack:")
    except BadSyntax as error:
        line = getattr(error, "lines", 0) + 1
        why = str(getattr(error, "_why", "")) or "bad syntax"
        raise DataError(f"{where} is broken Turtle: line {line}: {why[:200]}. {_AGAIN}") from None
    except UnicodeDecodeError:
        raise DataError(f"{where} is no Turtle: it is not UTF-8 text. {_AGAIN}") from None
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError, SyntaxError) as error:
        raise DataError(f"{where} is broken Turtle ({type(error).__name__}). {_AGAIN}") from error
    nodes: dict[str, dict[str, list[str]]] = {}
    for subject, predicate, value in graph:
        nodes.setdefault(str(subject), {}).setdefault(term_of(str(predicate)), []).append(str(value))
    found = NidmGraph(
        {node: {name: tuple(sorted(values)) for name, values in facts.items()} for node, facts in nodes.items()}
    )
    if not found.of_type("ContrastEstimation") and not found.of_type("StatisticMap"):
        raise DataError(f"{where} is no NIDM-Results: it describes no contrast and no statistic map.")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep rdflib from logging a traceback for each date or number in an unusual format."""
    loggers = [logging.getLogger(name) for name in ("rdflib.term", "rdflib.plugins.parsers.notation3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def peaks_disagree(graph: NidmGraph, affine: NDArray[np.float64]) -> float | None:
    """Measure the distance between the peaks' coordinates and their voxels on the maps' grid.

    FSL's packs may hold native maps while their peaks are in standard space.

    Parameters
    ----------
    graph : NidmGraph
    affine : ndarray, shape (4, 4)
        Voxel indices to mm of the maps.

    Returns
    -------
    float or None
        The median distance in mm; None when the peaks' voxels are unknown.
    """
    apart = []
    for node in graph.of_type("Coordinate"):
        mm, voxels = graph.vector(node, "coordinateVector"), graph.vector(node, "coordinateVectorInVoxels")
        if mm is None:  # version 0.2 has one property for each axis
            mm = _by_axis(graph, node, "coordinate{}")
        if voxels is None:
            voxels = _by_axis(graph, node, "coordinate{}InVoxels")
        if mm is not None and voxels is not None and mm.size == voxels.size == 3:
            apart.append(float(np.linalg.norm((affine @ np.append(voxels, 1.0))[:3] - mm.ravel())))
    return float(np.median(apart)) if apart else None


def _by_axis(graph: NidmGraph, node: str, name: str) -> NDArray[np.float64] | None:
    """Assemble a coordinate from its three properties."""
    values = [graph.number(node, name.format(axis)) for axis in (1, 2, 3)]
    return None if None in values else np.array(values, dtype=np.float64)
