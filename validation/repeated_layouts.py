"""Null data of repeated measures and groups: maps of independent voxels on disk, maps of smooth noise in memory."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from ibma_app.core.grid import Grid
from ibma_app.core.results import MapSurvey
from ibma_app.core.statmap import Dataset, Observation, StatMap
from ibma_app.stream.row_store import RowStore
from ibma_app.stream.stack import Stack

VOXELS = (25, 25, 32)  # 20,000
SIDE = 12  # of the cube of smooth noise, in voxels
FWHM, BORDER = 3.0, 4  # voxels; between the cube and the image's edge
Noise = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Layout:
    """Subjects, their conditions and groups, and how their maps vary."""

    subjects: int
    sds: tuple[float, ...]  # of each condition's noise
    stimulus: float = 0.0  # SD of a subject's response to each stimulus: three conditions in a row share it
    first: int = 0  # subjects of the first of two groups
    first_sd: float = 1.0  # multiplies the noise of that group
    missing: int = 0  # maps

    @property
    def title(self) -> str:
        """Return it in words."""
        conditions = len(self.sds)
        parts = [f"{self.subjects} subjects" + (f" x {conditions} conditions" if conditions > 1 else "")]
        if len(set(self.sds)) > 1:
            parts.append(f"SD {', '.join(f'{sd:g}' for sd in self.sds)}")
        if conditions == 9:
            parts.append(f"subject by stimulus SD {self.stimulus:g}")
        if self.first:
            parts.append(f"groups of {self.first} and {self.subjects - self.first}")
        if self.first_sd != 1.0:
            parts.append(f"SD {self.first_sd:g} in the first")
        return ", ".join(parts + ([f"{self.missing} maps missing"] if self.missing else []))

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return subject and condition of each map."""
        conditions = len(self.sds)
        subject = np.repeat(np.arange(self.subjects), conditions)
        condition = np.tile(np.arange(conditions), self.subjects)
        kept = np.ones(subject.size, dtype=bool)
        gone = np.random.default_rng(99).choice(subject.size, self.missing, replace=False)
        kept[gone] = False
        return subject[kept], condition[kept]

    def draw(self, noise: Noise, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield each map; ``noise(rng)`` draws one of standard noise."""
        own, shared = {}, {}
        for subject, condition in zip(*self.rows(), strict=True):
            if subject not in own:
                own[subject] = 2.0 * noise(rng)
            key = subject, condition // 3
            if self.stimulus and key not in shared:
                shared[key] = self.stimulus * noise(rng)
            values = own[subject] if len(self.sds) > 1 else 0.0
            values = values + self.sds[condition] * noise(rng) + (shared[key] if self.stimulus else 0.0)
            yield values * (self.first_sd if subject < self.first else 1.0)


def make_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw stationary noise of mean 0 and variance 1, of the smoothness of a Gaussian kernel."""
    sigma = FWHM / np.sqrt(8 * np.log(2))
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap", truncate=6)
    return noise * np.sqrt(2 * np.sqrt(np.pi) * sigma) ** 3


def white(shape: tuple[int, ...]) -> Noise:
    """Return noise that is independent from voxel to voxel."""
    return lambda rng: rng.standard_normal(shape)


def write_dataset(root: Path, layout: Layout, seed: int) -> None:
    """Write a dataset of effect maps, and whose group is which."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "null", "BIDSVersion": "1.9.0", "DatasetType": "derivative"})
    )
    rows = [f"s{i:02d}\t{'p' if i < layout.first else 'q'}" for i in range(layout.subjects)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tgroup", *rows]) + "\n")
    maps = layout.draw(white(VOXELS), np.random.default_rng(seed))
    for subject, condition, values in zip(*layout.rows(), maps, strict=True):
        name = f"sub-s{subject:02d}_space-MNI152NLin6Asym_contrast-c{condition}_stat-effect_statmap.nii.gz"
        (root / name.split("_")[0]).mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2, 2, 1])), root / name.split("_")[0] / name)


def observe(layout: Layout) -> list[Observation]:
    """Give the rows of a design; there are no files."""
    dataset = Dataset("null", Path("null"))
    rows = []
    for subject, condition in zip(*layout.rows(), strict=True):
        entities = {"sub": f"s{subject:02d}", "contrast": f"c{condition}"}
        name = f"sub-s{subject:02d}_contrast-c{condition}_stat-effect_statmap.nii.gz"
        statmaps = {"effect": StatMap(dataset.root / name, "effect", dataset, entities)}
        rows.append(Observation(unit_label=entities["sub"], entities=entities, statmaps=statmaps))
    return rows


def make_stack(layout: Layout, rng: np.random.Generator) -> Stack:
    """Draw maps of smooth noise off the image's edge."""
    mask = np.zeros((SIDE + 2 * BORDER,) * 3, dtype=bool)
    mask[(slice(BORDER, -BORDER),) * 3] = True
    store, n_voxels = RowStore(), int(mask.sum())
    n_maps = len(layout.rows()[0])
    for row, values in enumerate(layout.draw(lambda drawn: make_noise(mask.shape, drawn)[mask], rng)):
        store.append("effect", row, values, 0)
    store.select({0: np.arange(n_voxels)})
    survey = tuple(MapSurvey(f"row-{row}", (), n_voxels) for row in range(n_maps))
    grid = Grid(np.diag([2.0, 2, 2, 1]), mask)
    return Stack(grid, survey, (), ("effect",), tuple(range(n_maps)), (True,) * n_maps, None, None, store)
