"""Observations made of small volumes on disk."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.statmap import Dataset, Observation, StatMap

AFFINE = np.array([[-4.0, 0, 0, 10], [0, 4.0, 0, -12], [0, 0, 4.0, -8], [0, 0, 0, 1]])


@pytest.fixture
def observe(tmp_path) -> Callable[..., Observation]:
    """Return ``observe(unit, {kind: volume or Path}, affine=..., metadata=..., **fields) -> Observation``."""

    def make(unit, volumes, *, affine=AFFINE, metadata=None, entities=None, **fields):
        named = {"sub": unit, "contrast": "c", **(entities or {})}
        statmaps = {}
        for kind, volume in volumes.items():
            path = volume
            if not isinstance(volume, Path):
                stem = "_".join(f"{key}-{label}" for key, label in named.items())
                path = tmp_path / f"{stem}_stat-{kind}_statmap.nii.gz"
                nib.Nifti1Image(np.asarray(volume), affine).to_filename(path)
            statmaps[kind] = StatMap(path, kind, Dataset("maps", tmp_path), named, metadata or {})
        return Observation(unit=unit, entities=named, statmaps=statmaps, **fields)

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)
