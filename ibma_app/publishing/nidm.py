"""A NIDM-Results 1.3.0 pack of one test: maps, excursion set, clusters, peaks, design, and what was done with what.

The specification: http://nidm.nidash.org/specs/nidm-results_130.html. Same results, same bytes: nothing in a pack is
of the day or of the machine it was made on.
"""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdflib import RDF, XSD, BNode, Graph, Literal, URIRef
from rdflib.namespace import PROV
from scipy import ndimage
from scipy.stats import norm

from ibma_app.core.inference_facts import LevelFacts, NeighbourFacts, find_fact
from ibma_app.images.gzipped import compress
from ibma_app.images.spaces import is_mni
from ibma_app.images.write import encode_map
from ibma_app.publishing import nidm_terms as terms
from ibma_app.publishing.nidm_terms import add, place
from ibma_app.publishing.selected import Peak, Selected

EARLIEST = (1980, 1, 1, 0, 0, 0)  # zip knows nothing before
STRUCTURES = {6: 1, 18: 2, 26: 3}
PEAK_DISTANCE, MOST_PEAKS = 8.0, 4  # mm; of a cluster, its first included

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pack:
    """A pack while it is made: its graph and its files."""

    one: Selected
    version: str
    finished: str  # ISO time at which the analysis had begun
    graph: Graph
    files: dict[str, bytes] = field(default_factory=dict)

    def map(self, name: str, kind: str, file: str, values: Floats, **properties: Any) -> URIRef:
        """Add a map: its file (values on the grid, 0 outside the mask) and what is said of it."""
        grid = self.one.grid
        vector = np.nan_to_num(values[grid.mask], nan=0.0, posinf=0.0, neginf=0.0)
        content = compress(encode_map(vector, grid, file))
        return self.file(name, kind, file, content, "image/nifti", in_space=terms.NIIRI.space, **properties)

    def file(self, name: str, kind: str, file: str, content: bytes, form: str, **properties: Any) -> URIRef:
        """Add an entity that has a file."""
        self.files[file] = content
        named = {"location": place(file), "file_name": file, "format": form}
        hashed = {"sha512": hashlib.sha512(content).hexdigest()} if form == "image/nifti" else {}
        return add(self.graph, name, kind, **named, **hashed, **properties)


def make_pack(one: Selected, version: str, finished: str) -> bytes:
    """Make the zip archive of a pack.

    Parameters
    ----------
    one : Selected
        A t or z test with effect and variance where its estimator gives them.
    version : str
        Of ibma-app.
    finished : str
        When the analysis ran, ISO 8601.

    Returns
    -------
    bytes
    """
    pack = Pack(one, version, finished, terms.new_graph())
    model = _add_model(pack)
    contrast = _add_contrast(pack, model)
    if one.finding is not None:
        _add_inference(pack, contrast, model)
    turtle = terms.write_turtle(pack.graph)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted({"nidm.ttl": turtle, **pack.files}.items()):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _add_model(pack: Pack) -> dict[str, URIRef]:
    """Add who made the pack, the data, the design and the fit of the model."""
    one, graph, grid = pack.one, pack.graph, pack.one.grid
    software = add(graph, "software", "software", PROV.SoftwareAgent, label="ibma-app", software_version=pack.version)
    exporter = add(
        graph, "exporter", "exporter", PROV.SoftwareAgent, label="ibma-publish", software_version=pack.version
    )
    export = add(graph, "export", "export", label="NIDM-Results export", by=exporter)
    bundle = add(graph, "bundle", "bundle", PROV.Bundle, label="NIDM-Results", version="1.3.0")
    made = BNode("generation")
    graph.add((bundle, PROV.qualifiedGeneration, made))
    graph.add((made, RDF.type, PROV.Generation))
    graph.add((made, PROV.activity, export))
    graph.add((made, PROV.atTime, Literal(pack.finished, datatype=XSD.dateTime)))
    size = np.linalg.norm(grid.affine[:3, :3], axis=0)
    space = one.results.analysis.entities.get("space", "")
    add(
        graph, "space", "space", label=f"Coordinate space {space}".strip(), voxel_to_world=_list(grid.affine),
        voxel_units='["mm", "mm", "mm"]', voxel_size=_list(size), dimensions=3, dimensions_in_voxels=_list(grid.shape),
        world_system=terms.SYSTEMS.get(space, terms.MNI_SYSTEM if is_mni(space) else terms.CUSTOM_SYSTEM),
    )  # fmt: skip
    scanner = add(graph, "scanner", "scanner", label="MRI scanner")
    people = one.n_subjects
    group = None
    if people is not None:
        group = add(graph, "group", "group", label="Group", group_name="group", subjects=people)
    owners = [scanner, *([group] if group is not None else [])]
    data = add(graph, "data", "data", PROV.Collection, label="Data", grand_mean_scaling=False, of=owners)
    columns = one.results.design.columns
    design = pack.file(
        "design", "design", "DesignMatrix.csv", _design_csv(one), "text/csv",
        label="Design matrix", regressors=json.dumps(list(columns)),
    )  # fmt: skip
    reads = one.estimator.estimator.needs
    error = add(
        graph, "error", "error model", error_distribution=terms.GAUSSIAN,
        error_dependence=terms.INDEPENDENT, homogeneous="variance" not in reads, variance_model=terms.LOCAL,
    )  # fmt: skip
    method = terms.GLS if "variance" in reads else terms.OLS
    title = f"Model parameters estimation: {one.estimator.estimator.title}"
    fit = add(graph, "fit", "estimation", label=title, method=method, by=software, used=[design, data, error])
    inside = grid.mask.astype(np.float64)
    mask = pack.map("mask", "mask", "Mask.nii.gz", inside, label="Mask", user_defined=False, made_by=fit)
    known = {"software": software, "design": design, "fit": fit, "mask": mask}
    return known | _add_fitted(pack, fit)


def _add_fitted(pack: Pack, fit: URIRef) -> dict[str, URIRef]:
    """Add the maps of the fitted model that the specification asks for, and those that we have beyond."""
    one = pack.one
    effect, variance = one.volume("effect"), one.volume("variance")
    found = {}
    if effect is not None:
        inside = effect[one.grid.mask]
        found["estimate"] = pack.map(
            "estimate",
            "parameter estimate",
            "ParameterEstimate.nii.gz",
            effect,
            label="Effect of the test",
            made_by=fit,
        )
        pack.map(
            "mean", "grand mean", "GrandMean.nii.gz", effect, made_by=fit, masked_median=float(np.median(inside)),
            label="Grand mean (of maps of contrasts: the effect of the test)",
        )  # fmt: skip
    if variance is not None:
        scale = _scale(one)
        found["residuals"] = pack.map(
            "residuals", "residual mean squares", "ResidualMeanSquares.nii.gz", variance / scale, made_by=fit,
            label="Residual mean squares (the variance of the test, for equal weights)",
        )  # fmt: skip
    for kind in ("tau2", "i2", "pilower", "piupper"):
        values = one.volume(kind)
        if values is not None:
            words = {"tau2": "variance between studies or subjects (tau2)", "i2": "I2, percent"}
            label = words.get(kind, f"{'lower' if kind == 'pilower' else 'upper'} end of the 95 % prediction interval")
            pack.map(kind, "parameter estimate", f"ibma_{kind}.nii.gz", values, label=f"ibma-app: {label}", made_by=fit)
    return found


def _scale(one: Selected) -> float:
    """Return what residual mean squares are multiplied by to give a test's variance, with equal weights."""
    matrix, weights = one.results.design.matrix, np.atleast_2d(one.test.weights)[0]
    return float(weights @ np.linalg.pinv(matrix.T @ matrix) @ weights)


def _add_contrast(pack: Pack, model: Mapping[str, URIRef]) -> dict[str, URIRef]:
    """Add the contrast: weights, estimation, effect, standard error and statistics."""
    one, graph, name = pack.one, pack.graph, pack.one.title
    kind = one.statistic
    rows = np.atleast_2d(one.test.weights)
    weights = add(
        graph, "weights", "weights", label=f"Contrast weights: {name}", contrast_name=name,
        statistic_type=terms.TYPES[kind], value=_list(rows[0] if len(rows) == 1 else rows),
    )  # fmt: skip
    used = [weights, *(model[key] for key in ("design", "mask", "estimate", "residuals") if key in model)]
    estimation = add(
        graph, "contrast_estimation", "contrast estimation", label=f"Contrast estimation: {name}",
        by=model["software"], used=used,
    )  # fmt: skip
    shared = {"made_by": estimation, "contrast_name": name}
    effect, variance, statistic = one.volume("effect"), one.volume("variance"), one.volume(kind)
    if effect is not None:
        pack.map("contrast", "contrast", "Contrast.nii.gz", effect, label=f"Contrast map: {name}", **shared)
    if variance is not None:
        error = np.sqrt(np.maximum(variance, 0.0))
        label = f"Contrast standard error map: {name}"
        pack.map(
            "standard_error", "standard error", "ContrastStandardError.nii.gz", error, label=label, made_by=estimation
        )
    if effect is None and statistic is not None:
        pack.map(
            "explained", "explained mean square", "ContrastExplainedMeanSquare.nii.gz", statistic, made_by=estimation,
            label=f"Explained mean square in units of the residual: {name}",
        )  # fmt: skip
    found = {"estimation": estimation}
    dof = one.dof if one.dof is not None else 1e9
    for which in dict.fromkeys((kind, "z")):
        values = one.volume(which)
        if values is not None:
            found[which] = pack.map(
                f"{which.lower()}_statistic", "statistic", f"{which.upper()}Statistic.nii.gz", values,
                label=f"{which} statistic map: {name}", statistic_type=terms.TYPES[which],
                error_dof=float(dof if which == kind != "z" else 1e9), effect_dof=float(len(rows)), **shared,
            )  # fmt: skip
    return found


def _add_inference(pack: Pack, contrast: Mapping[str, URIRef], model: Mapping[str, URIRef]) -> None:
    """Add thresholds, search space, excursion set, clusters and peaks."""
    one, graph, finding = pack.one, pack.graph, pack.one.finding
    assert finding is not None
    words = finding.inference.title
    height = finding.z_threshold
    neighbours = find_fact(finding.facts, NeighbourFacts)
    connectivity = neighbours.neighbours if neighbours else 26
    used = [
        add(
            graph, "height", "height threshold", terms.STATISTIC, value=float(height if height is not None else 0.0),
            label=f"Height threshold: smallest |z| that is significant ({words})",
        ),
        add(
            graph, "extent", "extent threshold", terms.STATISTIC, label="Extent threshold: k",
            size_in_voxels=int(one.results.settings.get("min_extent", 0)),
        ),
        add(
            graph, "peak_definition", "peak definition", label="Peak definition criteria", peak_distance=PEAK_DISTANCE,
            peaks_per_cluster=MOST_PEAKS,
        ),
        add(
            graph, "cluster_definition", "cluster definition", label=f"Cluster connectivity criterion: {connectivity}",
            connectivity=terms.CONNECTED[connectivity],
        ),
        model["mask"], contrast["z"],
    ]  # fmt: skip
    tail = terms.TWO_TAILED if one.test.tail == "two-sided" else terms.ONE_TAILED
    inference = add(
        graph, "inference", "inference", label=f"Inference: {words}", alternative=tail, used=used, by=model["software"]
    )
    _add_search_space(pack, inference)
    significant = one.volume("z", one.inference)
    if significant is None:
        return
    labels, count = _label_clusters(significant, connectivity, one.peaks, one.grid.affine)
    excursion = pack.map(
        "excursion", "excursion set", "ExcursionSet.nii.gz", significant, label="Excursion set map (z)",
        clusters=count, cluster_labels_map=terms.NIIRI.cluster_labels, made_by=inference,
    )  # fmt: skip
    pack.map(
        "cluster_labels", "cluster labels", "ClusterLabels.nii.gz", labels.astype(np.float64), label="Cluster labels"
    )
    for peak in one.peaks:
        _add_peak(pack, peak, excursion)


def _add_search_space(pack: Pack, inference: URIRef) -> None:
    """Add the voxels in which something could be found, and how smooth the z map is there."""
    one, grid = pack.one, pack.one.grid
    z = one.volume("z")
    sizes = np.linalg.norm(grid.affine[:3, :3], axis=0)
    voxels = int(np.count_nonzero(grid.mask))
    fwhm = _fwhm(z, grid.mask) if z is not None else np.ones(3)
    resel = float(fwhm.prod())
    pack.map(
        "search_space", "search space", "SearchSpaceMask.nii.gz", grid.mask.astype(np.float64), made_by=inference,
        label="Search space mask map (smoothness is that of the z map)", voxels=voxels,
        volume=float(voxels * grid.voxel_volume), resels=float(voxels / resel), resel_size=resel, stationary=True,
        fwhm_in_voxels=_list(fwhm), fwhm_in_units=_list(fwhm * sizes),
    )  # fmt: skip


def _fwhm(values: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Estimate the smoothness of a z map from its differences, in voxels (3,): Forman et al. 1995."""
    variance = values[mask].var() or 1.0
    found = []
    for axis in range(3):
        both = np.logical_and(*(np.take(mask, range(a, mask.shape[axis] + a - 1), axis) for a in (0, 1)))
        change = np.diff(values, axis=axis)[both]
        ratio = change.var() / (2.0 * variance) if change.size else 1.0
        found.append(np.sqrt(-2.0 * np.log(2.0) / np.log(1.0 - min(max(ratio, 1e-6), 1 - 1e-6))))
    return np.maximum(found, 1e-3)


def _label_clusters(
    significant: Floats, connectivity: int, peaks: tuple[Peak, ...], affine: Floats
) -> tuple[NDArray[np.int64], int]:
    """Number the clusters of each sign as their table does."""
    structure = ndimage.generate_binary_structure(3, STRUCTURES[connectivity])
    labels = np.zeros(significant.shape, dtype=np.int64)
    parts = [ndimage.label(sign * significant > 0, structure)[0] for sign in (1, -1)]
    back = np.linalg.inv(affine)
    count = 0
    for peak in peaks:
        if peak.n_voxels is None:
            continue
        voxel = tuple(np.rint(back[:3, :3] @ peak.xyz + back[:3, 3]).astype(int))
        part = parts[0] if peak.z > 0 else parts[1]
        if part[voxel]:
            labels[part == part[voxel]] = int(peak.cluster_id)
        count += 1
    return labels, count


def _add_peak(pack: Pack, peak: Peak, excursion: URIRef) -> None:
    """Add a row of the cluster table: a cluster with its peak, or a further peak of a cluster."""
    number = int(peak.cluster_id.rstrip("abcdefghijklmnopqrstuvwxyz"))
    cluster = f"cluster_{number:04}"
    corrected = _corrected(pack.one, peak)
    if peak.n_voxels is not None:
        add(
            pack.graph, cluster, "cluster", label=f"Significant cluster: {number:04}", size_in_voxels=peak.n_voxels,
            cluster_label=number, **{"from": excursion}, **corrected,
        )  # fmt: skip
    name = f"peak_{peak.cluster_id}"
    x, y, z = peak.xyz
    coordinate = add(
        pack.graph, f"coordinate_{peak.cluster_id}", "coordinate", PROV.Location, label=f"Coordinate {peak.cluster_id}",
        coordinates=f"[{x!r}, {y!r}, {z!r}]",
    )  # fmt: skip
    add(
        pack.graph, name, "peak", label=f"Peak {peak.cluster_id}", value=peak.z, equivalent_z=peak.z,
        location=coordinate, **{"from": terms.NIIRI[cluster]}, **corrected,
    )  # fmt: skip


def _corrected(one: Selected, peak: Peak) -> dict[str, float]:
    """Return the p of a peak: family-wise (where the inference is of another kind, Bonferroni's) and uncorrected."""
    two_sided = one.test.tail == "two-sided"
    uncorrected = min(1.0, float(norm.sf(abs(peak.z))) * (2 if two_sided else 1))
    voxels = int(np.count_nonzero(one.grid.mask))
    level = find_fact(one.finding.facts, LevelFacts) if one.finding else None
    controls = level.controls if level else ""
    found = {"uncorrected_p": uncorrected, "p_of_FWE": min(1.0, uncorrected * voxels)}
    if controls.startswith("family-wise"):
        found["p_of_FWE"] = float(10.0**-peak.log10p)
    elif controls.startswith("false discovery"):
        found["q_of_FDR"] = float(10.0**-peak.log10p)
    return found


def _design_csv(one: Selected) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows(one.results.design.matrix.tolist())
    return stream.getvalue().encode("utf-8")


def _list(values: Any) -> str:
    """Write numbers as packs do: a JSON list in a text."""
    return json.dumps(np.asarray(values).tolist())
