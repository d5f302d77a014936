"""NIMADS: a studyset and its annotation, for NiMARE and Neurosynth Compose.

The specification is that of https://neurostuff.github.io/NIMADS. A meta-analysis gives its studies with their own
maps, so that others can run it again; a group analysis of subjects is one study with an analysis for each test.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.statmap import Observation
from ibma_app.images.gzipped import compress
from ibma_app.images.read import read_image
from ibma_app.images.write import encode_map
from ibma_app.publishing.about import About
from ibma_app.publishing.selected import Peak, Selected
from ibma_app.stats.tails import t_to_z

VALUE_TYPES = {"effect": "beta", "variance": "varcope", "t": "t", "z": "z", "p": "p"}
"""Kind of map -> NIMADS' ``value_type``."""
ANNOTATION = "ibma-app"

Files = dict[str, Path | bytes]  # name below the folder -> the file that it is a copy of, or its content


def make_studyset(about: About, selected: Sequence[Selected]) -> tuple[dict[str, Any], Files]:
    """Make a studyset.

    Parameters
    ----------
    about : About
    selected : sequence of Selected

    Returns
    -------
    studyset : dict
        ``filename`` of images is relative to its folder.
    files : dict of str to Path or bytes
        The images that go there: copies, and maps derived from others of a study.
    """
    files: Files = {}
    studies: dict[str, dict[str, Any]] = {}
    for one in selected:
        for study in _studies_of(one, about, files):
            known = studies.setdefault(study["id"], study)
            if known is not study:
                ids = {analysis["id"] for analysis in known["analyses"]}
                known["analyses"] += [analysis for analysis in study["analyses"] if analysis["id"] not in ids]
    name = about.title or selected[0].contrast
    return {"id": "ibma-app", "name": name, "description": about.description, "studies": list(studies.values())}, files


def make_annotation(studyset: Mapping[str, Any]) -> dict[str, Any]:
    """Make the annotation that includes every analysis of a studyset."""
    notes = [
        {"study": study["id"], "analysis": analysis["id"], "note": {"included": True}}
        for study in studyset["studies"]
        for analysis in study["analyses"]
    ]
    return {
        "id": ANNOTATION,
        "name": ANNOTATION,
        "description": "What was combined.",
        "note_keys": {"included": "boolean"},
        "studyset": studyset["id"],
        "notes": notes,
    }


def to_text(document: Mapping[str, Any]) -> str:
    """Write a document as JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _studies_of(one: Selected, about: About, files: Files) -> list[dict[str, Any]]:
    """Return the studies of a meta-analysis, or the one that a group analysis is."""
    if one.unit == "study":
        return [_input_study(one, index, files) for index in range(len(one.results.analysis.observations))]
    space = one.results.analysis.entities.get("space", "")
    images = [
        _image(f"images/{one.name}_{kind}.nii.gz", kind, space, path, files)
        for kind in VALUE_TYPES
        if one.test.signed and (path := one.path(kind)) is not None and kind != "p"  # z of others has no direction
    ]
    words = about.contrasts.get(one.name) or one.title
    analysis = {
        "id": one.name,
        "name": words,
        "description": f"{one.estimator.estimator.title}; clusters by {one.inference or 'no inference'}",
        "conditions": [{"id": one.name, "name": words, "description": ""}],
        "weights": [1.0],
        "metadata": {"sample_sizes": [one.n_subjects]},
        "images": images,
        "points": [_point(peak, space, f"{one.name}_{number}") for number, peak in enumerate(one.peaks, start=1)],
    }
    return [_study("group", about.title or one.contrast, ", ".join(about.authors), about.doi, [analysis])]


def _input_study(one: Selected, index: int, files: Files) -> dict[str, Any]:
    """Describe one study that was combined, with its own maps."""
    observation = one.results.analysis.observations[index]
    label, name = observation.unit_label, observation.label
    space = observation.entities.get("space", "")
    images = []
    for kind, statmap in observation.statmaps.items():
        if kind in VALUE_TYPES and not statmap.terms:
            ending = ".nii.gz" if statmap.path.name.endswith(".gz") else "".join(statmap.path.suffixes[-1:])
            images.append(_image(f"images/{name}_{kind}{ending}", kind, space, statmap.path, files))
    for kind, content in _derived(observation).items():
        images.append(_image(f"images/{name}_{kind}.nii.gz", kind, space, content, files))
    contrast = observation.entities.get("contrast", "")
    size = observation.sample_size
    analysis = {
        "id": name,
        "name": contrast,
        "description": "",
        "conditions": [{"id": contrast, "name": contrast, "description": ""}],
        "weights": [1.0],
        "metadata": {} if size is None else {"sample_sizes": [size]},
        "images": images,
        "points": [],
    }
    first = next(iter(observation.statmaps.values()))
    doi = str(first.metadata.get("DOI", "") or "")
    return _study(f"study-{label}", str(first.metadata.get("StudyName", "") or label), "", doi, [analysis])


def _study(label: str, name: str, authors: str, doi: str, analyses: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": label,
        "name": name,
        "authors": authors,
        "publication": "",
        "doi": doi,
        "metadata": {},
        "analyses": analyses,
    }


def _derived(observation: Observation) -> dict[str, bytes]:
    """Derive the variance and the z of a study that has others, as our own analyses do: NiMARE's need them."""
    there = {kind: one.path for kind, one in observation.statmaps.items() if not one.terms}
    read = {kind: read_image(path) for kind, path in there.items() if kind in ("effect", "variance", "t", "z")}
    values = {kind: np.asarray(image.data, dtype=np.float64) for kind, image in read.items()}
    found: dict[str, NDArray[np.float64]] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        if "variance" not in values and {"effect", "t"} <= set(values):
            found["variance"] = (values["effect"] / values["t"]) ** 2
        t = values.get("t")
        if t is None and {"effect", "variance"} <= set(values):
            t = values["effect"] / np.sqrt(values["variance"])
    if "z" not in values and t is not None and observation.dof is not None:
        found["z"] = t_to_z(np.nan_to_num(t, posinf=0.0, neginf=0.0), observation.dof)
    if not found:
        return {}
    grid = next(iter(read.values())).grid
    clean = {kind: np.nan_to_num(volume, posinf=0.0, neginf=0.0)[grid.mask] for kind, volume in found.items()}
    return {kind: compress(encode_map(vector, grid, f"{observation.label}: {kind}")) for kind, vector in clean.items()}


def _image(name: str, kind: str, space: str, source: Path | bytes, files: Files) -> dict[str, Any]:
    files[name] = source
    return {"url": "", "filename": name, "space": space or "unknown", "value_type": VALUE_TYPES[kind]}


def _point(peak: Peak, space: str, label: str) -> dict[str, Any]:
    return {
        "id": label,
        "space": space or "unknown",
        "coordinates": list(peak.xyz),
        "kind": "peak" if peak.n_voxels is not None else "subpeak",
        "values": [{"kind": "Z", "value": peak.z}],
    }
