"""NIDM-Results packs, versions 0.2 to 1.3: contrast, standard error, T and Z maps of SPM, FSL and others."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, IbmaError, InputError
from ibma_app.core.from_files import read_dof, read_sample_size
from ibma_app.core.study import NATIVE, ImportedContrast, Importer, ImportRequest, Study
from ibma_app.images.read import Image, decode_image
from ibma_app.images.spaces import template_label
from ibma_app.importers.archive import Package, inside, open_package
from ibma_app.importers.lazy import LazyMaps
from ibma_app.importers.nidm.graph import MAX_TURTLE, NidmGraph, parse_turtle, peaks_disagree, term_of

_SOFTWARE = {
    "nif-0000-00343": "SPM",
    "birnlex_2067": "FSL",
    "nif-0000-00259": "AFNI",
    "SCR_007037": "SPM",
    "SCR_002823": "FSL",
    "SCR_005927": "AFNI",
    "SPM": "SPM",
    "FSL": "FSL",
}
MOST_CONTRASTS = 1000
_KINDS = {"TStatistic": "t", "ZStatistic": "z", "FStatistic": "F"}


@dataclass(frozen=True)
class _Pack:
    """A package, the folder in it that has its Turtle file, and the graph."""

    package: Package
    base: str
    graph: NidmGraph
    version: str

    def file_of(self, node: str) -> str | None:
        """Return the file of a map in the package; None when the package lacks it."""
        names = (*self.graph.values(node, "atLocation"), *self.graph.values(node, "filename"))
        for name in names:
            try:
                inner = inside(self.base, name)
            except DataError as error:
                raise DataError(f"{self.package.path}: {error.message}") from None
            if inner in self.package.names:
                return inner
        return None

    def read_map(self, name: str) -> Image:
        """Read one map of the package."""
        return decode_image(partial(self.package.begin, name), Path(self.package.where(name)))


def recognises(source: str) -> bool:
    """Return whether a source is a NIDM-Results pack: a zip archive or a folder with nidm.ttl, or that file."""
    try:
        package, _ = _open(source)
    except DataError:  # a folder that is refused is still a pack: `read` says why
        return (Path(source) / "nidm.ttl").is_file() or any(Path(source).glob("*/nidm.ttl"))
    except (IbmaError, OSError, ValueError):
        return False
    return any(PurePosixPath(name).name == "nidm.ttl" for name in package.names)


def read(source: str, request: ImportRequest) -> Study:
    """Read the description of a pack; voxels are read on access to the maps.

    Parameters
    ----------
    source : str
        ``pain.nidm.zip``, a folder with ``nidm.ttl`` in it or in a folder of
        it, or the ``.ttl`` itself.
    request : ImportRequest

    Raises
    ------
    InputError
        Missing; damaged.
    DataError
        Broken Turtle, no contrast with maps, maps in the subject's own space
        for a study, or what legitimate packs never have (see `archive`).
    """
    pack = _open_pack(source)
    graph = pack.graph
    contrasts: list[ImportedContrast] = []
    listed: list[str] = []
    level = _level(graph)
    for activity, nodes in _activities(pack).items():
        maps, why = _maps(pack, nodes)
        name = _name(graph, activity, nodes)
        if why:
            listed.append(f"{name}: {why}")
        else:
            contrasts.append(_contrast(pack, name, activity, nodes, maps, level))
    if not contrasts:
        raise DataError(f"{source} holds no T or Z contrast with maps. " + " ".join(listed))
    if request.for_study:
        for contrast in contrasts:
            if contrast.space == NATIVE:
                raise DataError(
                    f"{source}: the maps of {contrast.name} lie in the subject's own space, so they cannot be combined "
                    f"with other studies. {' '.join(contrast.notes)} Use the analysis after registration to a template."
                )
    return Study(_software(graph), source, tuple(contrasts), tuple(listed), level,
                 (f"NIDM-Results {pack.version}",) if pack.version else ())  # fmt: skip


def _open(source: str) -> tuple[Package, str]:
    """Open a package, and say what its Turtle file is called if the source is that file."""
    path = Path(source)
    if path.suffix == ".ttl" and path.is_file():
        return open_package(path.parent), path.name
    return open_package(path), ""


def _open_pack(source: str) -> _Pack:
    """Find the Turtle of a package and read it."""
    package, turtle = _open(source)
    if not turtle:
        real = [name for name in package.names if "__MACOSX" not in PurePosixPath(name).parts]
        named = [name for name in real if PurePosixPath(name).name == "nidm.ttl"]
        found = named or [name for name in real if name.endswith(".ttl")]
        if not found:
            others = [name for name in real if name.endswith((".provn", ".jsonld", ".nidm.zip"))]
            hint = f" ({', '.join(others[:3])} cannot be read instead)" if others else ""
            raise InputError(f"{source} is no NIDM-Results pack: there is no nidm.ttl in it{hint}.")
        if len(found) > 1:
            raise DataError(f"{source} holds several packs ({', '.join(found[:5])}): give them one by one.")
        turtle = found[0]
    graph = parse_turtle(package.read(turtle, MAX_TURTLE), package.where(turtle))
    base = str(PurePosixPath(turtle).parent)
    bundle = next(iter([*graph.of_type("NIDMResults"), *graph.of_type("Bundle")]), "")
    return _Pack(package, "" if base == "." else base, graph, graph.text(bundle, "version"))


def _activities(pack: _Pack) -> dict[str, dict[str, str]]:
    """Return, for each contrast estimation, the nodes of its maps by what they are (t, z, F, effect, se, variance)."""
    graph = pack.graph
    found: dict[str, dict[str, str]] = {}
    types = {"ContrastMap": "effect", "ContrastStandardErrorMap": "se", "ContrastVarianceMap": "variance"}
    for term in (*types, "StatisticMap"):
        for node in graph.of_type(term):
            statistic = term_of(graph.text(node, "statisticType"))
            kind = types.get(term) or _KINDS.get(statistic, f"statistic of another type ({statistic})")
            for activity in graph.activities(node):
                found.setdefault(activity, {}).setdefault(kind, node)
    if len(found) > MOST_CONTRASTS:
        raise DataError(f"{pack.package.path} describes {len(found)} contrasts; no pack has so many: refused.")
    order = {activity: _name(graph, activity, nodes) for activity, nodes in found.items()}
    maps = {activity: nodes.get("t", nodes.get("z", "")) for activity, nodes in found.items()}
    files = {activity: graph.text(node, "atLocation") for activity, node in maps.items()}
    return {activity: found[activity] for activity in sorted(found, key=lambda one: (files[one], order[one], one))}


def _maps(pack: _Pack, nodes: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the files of a contrast's maps, or why it is not imported."""
    if "F" in nodes:
        return {}, "an F test, which has no effect with a sign."
    if "t" not in nodes and "z" not in nodes:
        others = [kind for kind in nodes if kind.startswith("statistic")]
        return {}, f"no T and no Z map{' but a ' + others[0] if others else ''}."
    files = {kind: pack.file_of(node) for kind, node in nodes.items()}
    present = {kind: name for kind, name in files.items() if name is not None}
    has_error = "effect" in present and bool({"se", "variance"} & set(present))  # t can be derived from these
    if "t" not in present and "z" not in present and not has_error:
        return {}, "its maps are described, but not in the package."
    if "se" in present:
        present.pop("variance", None)
    return present, ""


def _name(graph: NidmGraph, activity: str, nodes: Mapping[str, str]) -> str:
    """Return a contrast's name: of its maps, its weights or its estimation."""
    used = [node for node in graph.values(activity, "used") if graph.text(node, "contrastName")]
    for node in (*(nodes[kind] for kind in ("t", "effect", "z", "F") if kind in nodes), *used):
        if graph.text(node, "contrastName"):
            return graph.text(node, "contrastName").replace("\n", " ").strip()
    label = graph.text(activity, "label")
    return re.sub(r"^Contrast estimation:?\s*", "", label).strip() or "contrast"


def _contrast(
    pack: _Pack, name: str, activity: str, nodes: Mapping[str, str], files: Mapping[str, str], level: str | None
) -> ImportedContrast:
    """Describe one contrast."""
    graph = pack.graph
    grid = pack.read_map(next(iter(files.values()))).grid
    for other in files.values():
        theirs = pack.read_map(other).grid
        if not grid.matches(theirs):
            raise DataError(f"{pack.package.where(other)} lies on another grid than the contrast's other maps.")
    space, notes = _space(graph, nodes, grid.affine)
    stated = graph.text(nodes["t"], "errorDegreesOfFreedom") if "t" in nodes else ""
    dof = read_dof(stated, str(pack.package.path), "errorDegreesOfFreedom") if stated else None
    weights = _weights(graph, activity, name)
    size, columns, note = _subjects(pack, weights)

    def map_of(kind: str, file: str) -> NDArray[Any]:
        values: NDArray[Any] = pack.read_map(file).data
        return values.astype(np.float64) ** 2 if kind == "se" else values

    readers = {"variance" if kind == "se" else kind: partial(map_of, kind, file) for kind, file in files.items()}
    return ImportedContrast(
        name=name,
        maps=LazyMaps({kind: readers[kind] for kind in ("effect", "variance", "t", "z") if kind in readers}),
        grid=grid,
        dof=dof,
        sample_size=size,
        units_source=_units_source(level) if "effect" in files else "",
        contrast_weights=weights,
        space=space,
        columns=columns,
        derived={"variance": "the square of the pack's standard error"} if "se" in files else {},
        sources=tuple(pack.package.where(file) for file in files.values()),
        notes=(*notes, *([note] if note else [])),
    )


def _groups(graph: NidmGraph) -> list[str]:
    """List the groups of subjects (since 1.3)."""
    return sorted(node for node in graph.nodes if graph.values(node, "numberOfSubjects"))


def _subjects(pack: _Pack, weights: Mapping[str, float] | None) -> tuple[float | None, dict[str, float], str]:
    """Return how many subjects are behind a contrast.

    Returns
    -------
    n : float or None
    groups : dict
        ``n1`` and ``n2`` where it compares two groups, as far as its weights show them.
    note : str
    """
    stated = [pack.graph.text(node, "numberOfSubjects") for node in _groups(pack.graph)]
    sizes = [read_sample_size(one, str(pack.package.path), "numberOfSubjects") for one in stated if one]
    compares = weights is None or min(weights.values()) < 0 < max(weights.values())
    if len(sizes) < 2 or not compares:
        return (sum(sizes) if sizes else None), {}, ""
    if len(sizes) > 2:
        return None, {}, "The pack has more than two groups, so n is not known: give --sample-size."
    return sum(sizes), {"n1": sizes[0], "n2": sizes[1]}, ""


def _level(graph: NidmGraph) -> str | None:
    """Return whether this is a first-level analysis (a haemodynamic basis or a drift model), or a group analysis."""
    if _groups(graph):
        return "group"
    designs = graph.of_type("DesignMatrix")
    first = any(graph.values(node, "hasHRFBasis") or graph.values(node, "hasDriftModel") for node in designs)
    return "subject" if first else None


def _weights(graph: NidmGraph, activity: str, name: str) -> dict[str, float] | None:
    """Return a contrast's weights by column of the design."""
    stated = graph.of_type("ContrastWeights")
    used = [node for node in stated if node in graph.values(activity, "used")]
    if not used:  # FSL's exporter does not link them: found by name, among those of T tests
        used = [
            node
            for node in stated
            if graph.text(node, "contrastName") == name and term_of(graph.text(node, "statisticType")) != "FStatistic"
        ]
    rows = [graph.vector(node, "value") for node in used]
    first = rows[0] if rows else None
    if first is None or (first.ndim == 2 and first.shape[0] != 1) or first.ndim > 2:
        return None
    if any(row is None or row.size != first.size or not np.array_equal(row.ravel(), first.ravel()) for row in rows):
        return None
    names, flat = _regressors(graph), first.ravel()
    if len(names) != flat.size or len(set(names)) != len(names):
        names = [f"column {number + 1}" for number in range(flat.size)]
    return dict(zip(names, flat.tolist(), strict=True))


def _regressors(graph: NidmGraph) -> list[str]:
    """Return the names of the design's columns, [] when they are unknown."""
    text = next((graph.text(node, "regressorNames") for node in graph.of_type("DesignMatrix")), "")
    return re.findall(r'"([^"]*)"', text)


def _units_source(level: str | None) -> str:
    """Say why the units of a pack's effects are not known."""
    if level == "subject":  # measured: the range of FSL's filtered column is 3 % more than its ppheights
        return "The pack's design is filtered (SPM's whitened too), so the heights of its regressors are not known."
    return "NIDM-Results do not tell the units of the effects that went into the analysis."


def _space(graph: NidmGraph, nodes: Mapping[str, str], affine: NDArray[np.float64]) -> tuple[str, tuple[str, ...]]:
    """Return the label of the space and notes: native where the pack says so, or where its peaks show it."""
    node = next((graph.text(nodes[kind], "inCoordinateSpace") for kind in ("t", "effect", "z") if kind in nodes), "")
    system = term_of(graph.text(node, "inWorldCoordinateSystem"))
    label = template_label(system)
    if label == NATIVE:
        return NATIVE, ("The pack says that its maps are in the subject's coordinate system.",)
    apart = peaks_disagree(graph, affine)
    size = float(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).max())
    if apart is not None and apart > 1.5 * size:
        return NATIVE, (
            f"Its peaks lie {apart:.0f} mm (median) from where the maps have these voxels: FSL's packs hold maps in "
            "the subject's own space, whatever they call it, with peaks in standard space.",
        )
    return label, ()


def _software(graph: NidmGraph) -> str:
    """Return the analysis software and its version."""
    for node in graph.of_type("SoftwareAgent"):
        types = [term_of(one) for one in graph.values(node, "type")]
        name = next((_SOFTWARE[one] for one in types if one in _SOFTWARE), "")
        name = name or next((word for word in ("SPM", "FSL", "AFNI") if word in graph.text(node, "label")), "")
        if name:
            version = graph.text(node, "softwareVersion")
            return f"{name} {version}".strip()
    return "unknown software (NIDM-Results)"


IMPORTER = Importer(
    name="nidm",
    title="NIDM-Results packs of SPM, FSL and others (.nidm.zip or unpacked)",
    recognises=recognises,
    read=read,
    example="pain.nidm.zip",
)
