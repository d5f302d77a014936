"""NiMARE itself on our packs, where there is one: in this environment, or the Python that IBMA_NIMARE names."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.cli import publish_main

PYTHON = os.environ.get("IBMA_NIMARE") or (sys.executable if find_spec("nimare") else None)
LEAST = (0, 22)
SHAPE, SPACE = (14, 16, 14), "MNI152NLin2009cAsym"
AFFINE = np.array([[8.0, 0, 0, -52], [0, 8.0, 0, -76], [0, 0, 8.0, -40], [0, 0, 0, 1]])
SCRIPT = """
import sys, nibabel, numpy, nimare
from nimare.meta.ibma import DerSimonianLaird, Stouffers
from nimare.nimads import Studyset
pack, mask, out = sys.argv[1:]
studyset = Studyset(pack + "/studyset.json").update_path(pack)
for method, name, kind in ((Stouffers, "stouffer", "z"), (DerSimonianLaird, "dl", "est")):
    nibabel.save(method(mask=mask).fit(studyset).get_map(kind), f"{out}/{name}.nii.gz")
print(nimare.__version__)
"""


@pytest.mark.slow
@pytest.mark.skipif(PYTHON is None, reason="needs NiMARE: pip install nimare, or IBMA_NIMARE=a Python that has it")
def test_nimare_reproduces_stouffer_and_dl(tmp_path: Path, describe_dataset, write_statmap, cli) -> None:
    root, rng = describe_dataset(tmp_path / "maps"), np.random.default_rng(6)
    for number in range(1, 7):
        entities = {"study": f"S{number}", "space": SPACE, "contrast": "pain"}
        effect, variance = rng.normal(0.5, 0.5, SHAPE), rng.uniform(0.1, 0.3, SHAPE)
        write_statmap(root, "effect", effect, affine=AFFINE, metadata={"Units": "percent"}, **entities)
        kind, values = ("variance", variance) if number % 2 else ("t", effect / np.sqrt(variance))
        write_statmap(root, kind, values, affine=AFFINE, **entities)
    rows = "".join(f"study-S{number}\t{15 + number}\n" for number in range(1, 7))
    (root / "studies.tsv").write_text(f"study_id\tsample_size\n{rows}")
    ran = cli(root, tmp_path / "out", "group", "--estimator", "dl", "stouffer", "--inference", "fdr", "--no-report",
              "--mask", "data", "--min-coverage", "1")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert publish_main([str(tmp_path / "out"), str(tmp_path / "pack"), "-q", "--kinds", "nimads"]) == 0
    mask = tmp_path / "mask.nii.gz"
    nib.Nifti1Image(np.ones(SHAPE, dtype=np.float32), AFFINE).to_filename(mask)  # NiMARE saves in its type
    words = [str(PYTHON), "-c", SCRIPT, str(tmp_path / "pack" / "nimads"), str(mask), str(tmp_path)]
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=plain)
    assert done.returncode == 0, done.stderr
    version = done.stdout.split()[-1]
    assert tuple(map(int, version.split(".")[:2])) >= LEAST, f"NiMARE {version} is too old"
    for name, kind in (("stouffer", "z"), ("dl", "effect")):
        (ours,) = (tmp_path / "out").rglob(f"*desc-{name}_stat-{kind}_statmap.nii.gz")
        found = nib.load(tmp_path / f"{name}.nii.gz").get_fdata()
        np.testing.assert_allclose(found, nib.load(ours).get_fdata(), atol=2e-5)  # maps are of single precision
    studyset = json.loads((tmp_path / "pack" / "nimads" / "studyset.json").read_text())
    assert len(studyset["studies"]) == 6
