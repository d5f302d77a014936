"""The blocks of docs/python.md, one after another, as a reader would run them."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "python.md"
SHAPE = (6, 6, 6)


@pytest.fixture(scope="module")
def work(tmp_path_factory, describe_dataset, write_statmap):
    """A folder with derivatives/fitlins: eight subjects' effects and variances."""
    folder = tmp_path_factory.mktemp("page")
    root = describe_dataset(folder / "derivatives/fitlins")
    rng = np.random.default_rng(3)
    for number in range(1, 9):
        entities = {"sub": f"{number:02}", "contrast": "faces"}
        write_statmap(root, "effect", rng.normal(1.0, 1.0, SHAPE), **entities)
        write_statmap(root, "variance", np.full(SHAPE, 0.5), **entities, metadata={"DegreesOfFreedom": 100})
    return folder


def test_blocks_run(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    effects = sorted(str(path) for path in work.rglob("*stat-effect*.nii.gz"))
    variances = [path.replace("stat-effect", "stat-variance") for path in effects]
    known = {"effects": effects, "variances": variances, "paths": effects}
    known |= {"names": [f"S{number}" for number in range(8)], "sizes": [20] * 8}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), known)
    assert capsys.readouterr().out.startswith("contrast-faces {'reml': ")
    assert (work / "age_z.nii.gz").is_file()
    assert len(known["every_z"]) == 1
    assert known["clusters"].columns[0] == "cluster_id"
    assert np.abs(known["z"].get_fdata()).max() > 0
