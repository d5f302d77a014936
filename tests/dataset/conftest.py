"""Small datasets made of empty files: names, folders and sidecars are what is tested here."""

import json
from pathlib import Path

import pytest

DESCRIPTION = {
    "Name": "first",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "nilearn", "Version": "0.13.1"}],
}


@pytest.fixture
def make_dataset(tmp_path):
    """Return a function that makes a dataset of files; a dict's values are contents (JSON when not text)."""

    def make(files, root="data", description=DESCRIPTION):
        folder = tmp_path / root
        folder.mkdir(parents=True, exist_ok=True)
        contents = files if isinstance(files, dict) else dict.fromkeys(files, "")
        if description is not None:
            contents = {"dataset_description.json": description, **contents}
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return Path(folder)

    return make
