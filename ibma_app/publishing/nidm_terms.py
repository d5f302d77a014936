"""The terms of NIDM-Results 1.3.0 that a pack uses, by what they mean, and how a statement is written with rdflib."""

from collections.abc import Mapping
from typing import Any

from rdflib import RDF, RDFS, XSD, BNode, Graph, Literal, Namespace, URIRef
from rdflib.namespace import PROV

NIDM = Namespace("http://purl.org/nidash/nidm#NIDM_")
OBO = Namespace("http://purl.obolibrary.org/obo/")
NIIRI = Namespace("http://iri.nidash.org/")
NFO = Namespace("http://www.semanticdesktop.org/ontologies/2007/03/22/nfo#")
DCT = Namespace("http://purl.org/dc/terms/")
DC = Namespace("http://purl.org/dc/elements/1.1/")
CRYPTO = Namespace("http://id.loc.gov/vocabulary/preservation/cryptographicHashFunctions#")
NLX = Namespace("http://uri.neuinfo.org/nif/nifstd/")
PREFIXES: Mapping[str, str] = {
    "prov": str(PROV), "nidm": "http://purl.org/nidash/nidm#", "niiri": str(NIIRI), "nfo": str(NFO), "dct": str(DCT),
    "dc": str(DC), "crypto": str(CRYPTO), "nlx": str(NLX), "obo": str(OBO), "rdfs": str(RDFS), "xsd": str(XSD),
}  # fmt: skip

CLASSES: Mapping[str, URIRef] = {
    "bundle": NIDM["0000027"], "software": NIDM["0000164"], "exporter": NIDM["0000165"], "export": NIDM["0000166"],
    "data": NIDM["0000169"], "scanner": NLX["birnlex_2100"], "imaging instrument": NLX["birnlex_2094"],
    "group": OBO["STATO_0000193"], "design": NIDM["0000019"], "error model": NIDM["0000023"],
    "estimation": NIDM["0000056"], "mask": NIDM["0000054"], "grand mean": NIDM["0000033"],
    "parameter estimate": NIDM["0000061"], "residual mean squares": NIDM["0000066"], "space": NIDM["0000016"],
    "weights": OBO["STATO_0000323"], "contrast estimation": NIDM["0000001"], "statistic": NIDM["0000076"],
    "contrast": NIDM["0000002"], "standard error": NIDM["0000013"], "explained mean square": NIDM["0000163"],
    "height threshold": NIDM["0000034"], "extent threshold": NIDM["0000026"], "peak definition": NIDM["0000063"],
    "cluster definition": NIDM["0000007"], "inference": NIDM["0000049"], "search space": NIDM["0000068"],
    "excursion set": NIDM["0000025"], "cluster labels": NIDM["0000008"], "cluster": NIDM["0000070"],
    "peak": NIDM["0000062"], "coordinate": NIDM["0000015"],
}  # fmt: skip
PROPERTIES: Mapping[str, URIRef] = {
    "version": NIDM["0000127"], "software version": NIDM["0000122"], "voxel to world": NIDM["0000132"],
    "voxel units": NIDM["0000133"], "voxel size": NIDM["0000131"], "world system": NIDM["0000105"],
    "dimensions": NIDM["0000112"], "dimensions in voxels": NIDM["0000090"], "grand mean scaling": NIDM["0000096"],
    "regressors": NIDM["0000021"], "error distribution": NIDM["0000101"], "error dependence": NIDM["0000100"],
    "homogeneous": NIDM["0000094"], "variance model": NIDM["0000126"], "method": NIDM["0000134"],
    "user defined": NIDM["0000106"], "masked median": NIDM["0000107"], "in space": NIDM["0000104"],
    "statistic type": NIDM["0000123"], "contrast name": NIDM["0000085"], "error dof": NIDM["0000093"],
    "effect dof": NIDM["0000091"], "group name": NIDM["0000170"], "subjects": NIDM["0000171"],
    "size in voxels": NIDM["0000084"], "peak distance": NIDM["0000109"], "peaks per cluster": NIDM["0000108"],
    "connectivity": NIDM["0000099"], "alternative": NIDM["0000097"], "voxels": NIDM["0000121"],
    "volume": NIDM["0000136"], "resels": NIDM["0000149"], "resel size": NIDM["0000148"],
    "fwhm in voxels": NIDM["0000159"], "fwhm in units": NIDM["0000157"], "stationary": NIDM["0000120"],
    "clusters": NIDM["0000111"], "cluster labels map": NIDM["0000098"], "cluster label": NIDM["0000082"],
    "equivalent z": NIDM["0000092"], "p of FWE": NIDM["0000115"], "q of FDR": NIDM["0000119"],
    "uncorrected p": NIDM["0000116"], "coordinates": NIDM["0000086"], "equivalent threshold": NIDM["0000161"],
    "file name": NFO.fileName, "format": DCT["format"], "sha512": CRYPTO.sha512, "location": PROV.atLocation,
    "value": PROV.value, "label": RDFS.label, "used": PROV.used, "by": PROV.wasAssociatedWith,
    "made by": PROV.wasGeneratedBy, "from": PROV.wasDerivedFrom, "of": PROV.wasAttributedTo,
}  # fmt: skip
TYPES = {"z": OBO["STATO_0000376"], "t": OBO["STATO_0000176"], "F": OBO["STATO_0000282"]}
P_FWE, Q_FDR, P_UNCORRECTED, STATISTIC = OBO["OBI_0001265"], OBO["OBI_0001442"], NIDM["0000160"], OBO["STATO_0000039"]
CONNECTED = {6: NIDM["0000130"], 18: NIDM["0000128"], 26: NIDM["0000129"]}
TWO_TAILED, ONE_TAILED = NIDM["0000079"], NIDM["0000060"]
OLS, GLS, GAUSSIAN, INDEPENDENT, LOCAL = (
    OBO["STATO_0000370"], OBO["STATO_0000372"], OBO["STATO_0000227"], NIDM["0000048"], NIDM["0000073"],
)  # fmt: skip
SYSTEMS = {
    "MNI152NLin6Asym": NIDM["0000047"], "MNI152NLin2009cAsym": NIDM["0000045"], "MNI152NLin2009cSym": NIDM["0000046"],
    "MNI152NLin2009bAsym": NIDM["0000043"], "MNI152NLin2009bSym": NIDM["0000044"], "IXI549Space": NIDM["0000050"],
    "MNI152NLin2009aAsym": NIDM["0000041"], "MNI152NLin2009aSym": NIDM["0000042"], "MNI152Lin": NIDM["0000040"],
    "MNI305": NIDM["0000055"], "MNIColin27": NIDM["0000009"], "Talairach": NIDM["0000078"],
}  # fmt: skip
MNI_SYSTEM, CUSTOM_SYSTEM = NIDM["0000051"], NIDM["0000017"]

ALIASES: Mapping[str, URIRef] = {
    "nidm_NIDMResults": NIDM["0000027"], "nidm_version": NIDM["0000127"], "nidm_DesignMatrix": NIDM["0000019"],
    "nidm_regressorNames": NIDM["0000021"], "nidm_inCoordinateSpace": NIDM["0000104"],
    "nidm_contrastName": NIDM["0000085"], "nidm_Coordinate": NIDM["0000015"],
}  # fmt: skip
"""Prefixes that SPM's and FSL's packs have, one for a term: the reader of `nidmresults` asks with them."""
ACTIVITIES = ("export", "estimation", "contrast estimation", "inference")
AGENTS = ("software", "exporter", "scanner", "group")


def new_graph() -> Graph:
    """Return an empty graph with the prefixes of a pack."""
    graph = Graph(bind_namespaces="none")
    for prefix, name in PREFIXES.items():
        graph.bind(prefix, name)
    return graph


def add(graph: Graph, name: str, kind: str, *more: URIRef, **properties: Any) -> URIRef:
    """Add an entity, agent or activity.

    Parameters
    ----------
    graph : Graph
    name : str
        Of its identifier within the pack.
    kind : str
        Its class, as in `CLASSES`.
    *more : URIRef
        Further classes.
    **properties
        Values by their words in `PROPERTIES`, with ``_`` for a space; several in a list; None is left out.

    Returns
    -------
    URIRef
        Its identifier.
    """
    node = NIIRI[name]
    base = PROV.Activity if kind in ACTIVITIES else PROV.Agent if kind in AGENTS else PROV.Entity
    for one in (base, CLASSES[kind], *more):
        graph.add((node, RDF.type, one))
    for word, value in properties.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                graph.add((node, PROPERTIES[word.replace("_", " ")], to_term(item)))
    return node


def to_term(value: Any) -> URIRef | Literal | BNode:
    """Write a value as packs of SPM and FSL do: floats as xsd:float, whole numbers as xsd:int."""
    if isinstance(value, URIRef | BNode | Literal):
        return value
    if isinstance(value, bool):
        return Literal(value, datatype=XSD.boolean)
    if isinstance(value, int):
        return Literal(value, datatype=XSD.int)
    if isinstance(value, float):
        return Literal(repr(value), datatype=XSD.float)
    return Literal(str(value), datatype=XSD.string)


def write_turtle(graph: Graph) -> bytes:
    """Write a graph as Turtle: in one order, with `ALIASES`."""
    aliases = "".join(f"@prefix {name}: <{term}> .\n" for name, term in ALIASES.items())
    return (aliases + graph.serialize(format="turtle")).encode("utf-8")


def place(name: str) -> Literal:
    """Write where a file of the pack is."""
    return Literal(name, datatype=XSD.anyURI)
