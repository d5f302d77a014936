"""A folder for NeuroVault: its own field names, the images, and what its checks will say.

Fields and checks are those of NeuroVault's own source: its REST API (``/api/collections/``, ``/api/images/``), and what
it does with an image that it is given (thresholded? in MNI space?).
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.grid import Grid
from ibma_app.images.mni_masks import mni_brain
from ibma_app.images.read import read_image
from ibma_app.images.spaces import is_mni
from ibma_app.publishing.about import About
from ibma_app.publishing.selected import Selected

MAP_TYPES = {
    "t": "T map",
    "F": "F map",
    "z": "Z map",
    "effect": "univariate-beta map",
    "variance": "variance",
}
"""Kind of map -> NeuroVault's ``map_type``."""
COLUMNS = (
    "name", "file", "map_type", "analysis_level", "modality", "target_template_image", "number_of_subjects",
    "statistic_parameters", "cognitive_paradigm_cogatlas", "contrast_definition", "description",
)  # fmt: skip
EMPTY = 85  # percent of an image's voxels: with more of them empty it is called thresholded


@dataclass(frozen=True)
class VaultImage:
    """One image of a collection: its fields, where its file comes from, and what NeuroVault's checks say."""

    fields: Mapping[str, Any]
    source: Path
    says: tuple[str, ...]


def describe_collection(about: About, selected: Sequence[Selected]) -> dict[str, Any]:
    """Make ``collection.json``: the fields of a collection."""
    first = selected[0]
    return {
        "name": about.title or f"{first.contrast} ({first.results.analysis.name})",
        "authors": ", ".join(about.authors),
        "DOI": about.doi,
        "description": about.description,
        "full_dataset_url": "",
        "private": True,
        "type_of_design": "",
        "number_of_imaging_runs": None,
        "license": about.licence,
        "software_package": "ibma-app",
        "group_statistic_type": ", ".join(dict.fromkeys(one.estimator.estimator.title for one in selected)),
        "group_description": _who(first),
    }


def list_images(about: About, selected: Sequence[Selected]) -> tuple[VaultImage, ...]:
    """List the images of a collection: statistic, z, effect and variance of each test."""
    return tuple(image for one in selected for image in _images_of(one, about))


def write_table(images: Sequence[VaultImage]) -> str:
    """Write ``images.tsv``: one row an image, NeuroVault's field names."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: "" if value is None else value for key, value in image.fields.items()} for image in images])
    return stream.getvalue()


def collection_text(about: About, selected: Sequence[Selected]) -> str:
    """Write ``collection.json``."""
    return json.dumps(describe_collection(about, selected), indent=2, ensure_ascii=False) + "\n"


def _images_of(one: Selected, about: About) -> Iterator[VaultImage]:
    # z of an F test is that of its p: who pools Z maps would read directions into it
    kinds = ("F",) if one.test.is_f else tuple(dict.fromkeys((one.statistic, "z", "effect", "variance")))
    words = about.contrasts.get(one.name) or one.title
    for kind in kinds:
        source = one.path(kind)
        if source is None:
            continue
        fields = {
            "name": f"{one.name}_{kind}",
            "file": f"images/{one.name}_{kind}.nii.gz",
            "map_type": MAP_TYPES[kind],
            "analysis_level": "meta-analysis" if one.unit == "study" else "group",
            "modality": {"mri": "fMRI-BOLD", "pet": "PET", "eeg": "EEG", "meg": "MEG"}.get(about.scanner, "Other"),
            "target_template_image": "GenericMNI" if is_mni(one.results.analysis.entities.get("space")) else "",
            "number_of_subjects": one.n_subjects,
            "statistic_parameters": one.dof if kind in ("t", "F") else None,
            "cognitive_paradigm_cogatlas": about.cognitive_atlas_task,
            "contrast_definition": words,
            "description": (
                f"{_words(kind)} of {words}, {one.estimator.estimator.title}; {_who(one)}{_dof_words(one, kind)} "
                "(ibma-app)."
            ),
        }
        yield VaultImage(fields, source, tuple(_checks(source, fields)))


def _words(kind: str) -> str:
    words = {"z": "z statistic", "effect": "Effect", "variance": "Sampling variance (squared standard error)"}
    return words.get(kind, f"{kind} statistic")


def _dof_words(one: Selected, kind: str) -> str:
    """Say what one number of degrees of freedom does not; "" where it says all."""
    if kind not in ("t", "F") or one.dof is None:
        return ""
    between = "" if one.dof_range is None else " (median; {:.4g} to {:.4g} from voxel to voxel)".format(*one.dof_range)
    if kind == "F":
        return f"; {one.numerator_dof} and {one.dof:.4g} degrees of freedom{between}"
    return f"; {one.dof:.4g} degrees of freedom{between}" if between else ""


def _who(one: Selected) -> str:
    """Say who was combined."""
    count = len(one.results.analysis.observations)
    if one.unit == "study":
        people = "" if one.n_subjects is None else f" of {one.n_subjects} people"
        return f"{count} studies{people}"
    maps = "" if count == one.n_subjects else f", {count} maps"
    return f"{one.n_subjects} participants{maps}"


def _checks(source: Path, fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield what NeuroVault's checks will say of an image."""
    image = read_image(source)
    filled = np.isfinite(image.data) & (image.data != 0)
    empty = 100 * (1 - filled.mean())
    if empty > EMPTY:
        yield f"{empty:.0f} % of its voxels are empty: NeuroVault will call it thresholded."
    if fields["number_of_subjects"] is None:
        yield "The number of people is not known: NeuroVault asks for it."
    if not fields["target_template_image"]:
        yield "The space is not stated as MNI: NeuroVault asks for the template, and shows no brain behind the map."
        return
    covered, outside = _overlap(filled, image.grid)
    odd = (covered < 90 and outside > 20) if covered > 50 else (covered == 0 or outside > 50)
    if odd:
        yield (
            f"It covers {covered:.0f} % of the MNI brain, and {outside:.0f} % of its voxels lie outside: NeuroVault "
            "will say that it is not in MNI space."
        )


def _overlap(filled: NDArray[np.bool_], grid: Grid) -> tuple[float, float]:
    """Return the percentage of the MNI brain that voxels cover, and of the voxels that lie outside of it."""
    brain = mni_brain(2)
    voxels = np.indices(grid.shape).reshape(3, -1).T @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    back = np.linalg.inv(brain.affine)
    there = np.rint(voxels @ back[:3, :3].T + back[:3, 3]).astype(np.int64)
    within = np.all((there >= 0) & (there < brain.mask.shape), axis=1)
    inside = np.zeros(len(there), dtype=bool)
    inside[within] = brain.mask[tuple(there[within].T)]
    both = int(np.count_nonzero(filled.ravel() & inside))
    covered = 100 * both / max(int(np.count_nonzero(inside)), 1)
    return covered, 100 * (1 - both / max(int(np.count_nonzero(filled)), 1))
