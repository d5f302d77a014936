"""A BIDS Stats Model of three levels, to be changed by tests."""

import copy
import json

import pytest


@pytest.fixture
def flanker(maker):
    """Return the JSON of a model of three levels: a copy of one's own."""
    return copy.deepcopy(maker("flanker_model").FLANKER)


@pytest.fixture
def write_model(tmp_path):
    """Return ``write_model(document) -> path``."""

    def write(document, name="model-flanker_smdl.json"):
        path = tmp_path / name
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return write
