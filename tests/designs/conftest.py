"""Observations and tables made by code."""

from pathlib import Path

import pytest

from ibma_app.core.statmap import Dataset, Observation, StatMap


@pytest.fixture
def observe():
    """Return ``observe(unit, sample_size=None, **entities)``, an observation without a file."""

    def make(unit, sample_size=None, key="sub", **entities):
        names = {key: unit, **entities}
        name = "_".join(f"{short}-{label}" for short, label in names.items())
        dataset = Dataset("maps", Path("maps"))
        path = dataset.root / f"{name}_stat-effect_statmap.nii.gz"
        statmaps = {"effect": StatMap(path, "effect", dataset, names)}
        return Observation(unit_label=unit, entities=names, statmaps=statmaps, sample_size=sample_size)

    return make


@pytest.fixture
def write(tmp_path):
    """Return ``write(text, name="participants.tsv") -> path``."""

    def make(text, name="participants.tsv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return make
