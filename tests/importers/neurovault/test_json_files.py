"""What a collection says to cite."""

import json

import numpy as np
import pytest

from ibma_app.core.statmap import Publication
from ibma_app.core.study import ImportRequest
from ibma_app.importers.neurovault.importer import read

PAPER = {
    "id": 7, "name": "Pain and placebo", "authors": "Ada A,  Ben B", "DOI": "10.1000/paper", "preprint_DOI": None,
    "number_of_images": 1, "url": "http://neurovault.org/collections/7/",
}  # fmt: skip


VOLUME = np.random.default_rng(5).normal(size=(12, 14, 12))


def test_what_to_cite_is_asked_of_the_server(vault):
    vault.add("7", "pain", "T map", VOLUME)
    vault.files["/api/collections/7/"] = json.dumps(PAPER).encode()
    (contrast,) = read("7", ImportRequest(for_study=True)).contrasts
    assert contrast.publication == Publication("Ada A, Ben B", "Pain and placebo", "10.1000/paper")
    assert contrast.columns == {"doi": "10.1000/paper"}


@pytest.mark.parametrize("answer", [None, b"[]", b"no JSON", b'{"DOI": 3, "authors": null}', b'{"DOI": "in press"}'])
def test_a_collection_that_says_nothing_is_imported_all_the_same(vault, answer):
    vault.add("7", "pain", "T map", VOLUME)
    if answer is not None:
        vault.files["/api/collections/7/"] = answer
    (contrast,) = read("7", ImportRequest(for_study=True)).contrasts
    assert (contrast.publication, contrast.columns) == (None, {})


def test_a_download_says_what_to_cite(tmp_path, vault, image_bytes):
    facts = vault.add("7", "pain", "T map", VOLUME)
    folder = tmp_path / "neurovault" / "collection_7"
    folder.mkdir(parents=True)
    (folder / "image_100_metadata.json").write_text(json.dumps(facts))
    (folder / "image_100.nii.gz").write_bytes(image_bytes(VOLUME))
    (folder / "collection_metadata.json").write_text(json.dumps({**PAPER, "DOI": None, "preprint_DOI": "10.1101/p"}))
    (contrast,) = read(str(tmp_path / "neurovault"), ImportRequest(for_study=True)).contrasts
    assert contrast.publication == Publication("Ada A, Ben B", "Pain and placebo", "10.1101/p")
