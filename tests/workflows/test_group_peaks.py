"""Forest plots through the command line: metafor's numbers, and those of the maps at the peak."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

PINNED = json.loads((Path(__file__).parents[1] / "reference" / "leave1out.json").read_text())
REML = PINNED["fits"][0]
PEAK = (2, 1, 2)


@pytest.fixture(scope="module")
def out(tmp_path_factory, cli) -> Path:
    """The BCG trials at one voxel, weaker copies of them elsewhere: it has the smallest z."""
    root = tmp_path_factory.mktemp("bcg")
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "bcg", "BIDSVersion": "1.10.0", "DatasetType": "derivative"})
    )
    rng = np.random.default_rng(4)
    for number, (y, v) in enumerate(zip(PINNED["y"], PINNED["v"], strict=True), start=1):
        folder = root / f"study-{number:02d}"
        folder.mkdir()
        effect = 0.1 * y + rng.normal(0, np.sqrt(v), (4, 4, 4))
        effect[PEAK] = y
        for kind, values in (("effect", effect), ("variance", np.full((4, 4, 4), v))):
            name = f"study-{number:02d}_space-MNI152NLin2009cAsym_contrast-bcg_stat-{kind}_statmap.nii.gz"
            nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1])).to_filename(folder / name)
        sidecar = folder / f"study-{number:02d}_space-MNI152NLin2009cAsym_contrast-bcg_statmap.json"
        sidecar.write_text(json.dumps({"Units": "log risk ratio"}))
    out = tmp_path_factory.mktemp("out")
    ran = cli(root, out, "group", "--estimator", "reml", "dl")
    assert ran.code == 0, ran.stderr
    return out


def peak_named(out: Path, name: str, estimator: str = "reml") -> str:
    (page,) = out.glob("group_*.html")
    section = page.read_text(encoding="utf-8").split(f"Results: {estimator}</h2>")[1]
    parts = section.split("<summary>The maps at the peaks</summary>")[1].split('<details class="peak"')[1:]
    return next(part for part in parts if name in part.split("</summary>")[0])


def values_in(text: str) -> np.ndarray:
    return np.array([float(value) for value in re.findall(r'<data value="([^"]+)"', text)])


def test_forest_numbers_are_metafors(out: Path) -> None:
    part = peak_named(out, "Smallest z")
    words, table = values_in(part.split("<figure")[0]), values_in(part.split("<tbody>")[1].split("</tbody>")[0])
    # effects and variances reach the fit in single precision
    for number in (REML["effect"], REML["tau2"], REML["Q"], REML["I2"]):
        assert np.isclose(words, number, rtol=5e-6, atol=0).any(), number
    # where tau2 is small because the voxel was chosen, an interval for new effects says nothing: the maps have it
    assert "prediction" not in part.split("<table")[0].lower()
    left = [one["effect"] for one in REML["without"]]
    for number in (*PINNED["y"], *np.sqrt(PINNED["v"]), *REML["weight"], *left):
        assert np.isclose(table, number, rtol=2e-5, atol=0).any(), number
    rows = part.split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    assert len(rows) == 13
    for row, effect in zip(rows, left, strict=True):  # beside the map that was left out
        assert np.isclose(values_in(row), effect, rtol=2e-5, atol=0).any()


@pytest.mark.parametrize(("estimator", "name"), [("reml", "Largest z"), ("dl", "Smallest z")])
def test_numbers_are_those_of_the_maps_there(out: Path, estimator: str, name: str) -> None:
    def volume(kind: str) -> np.ndarray:
        return nib.load(next((out / "group").glob(f"*_desc-{estimator}_stat-{kind}_statmap.nii.gz"))).get_fdata()

    z = volume("z")
    at = np.unravel_index(z.argmax() if name == "Largest z" else z.argmin(), z.shape)
    words = values_in(peak_named(out, name, estimator).split("<figure")[0])
    for kind in ("z", "effect", "tau2", "q", "i2"):
        number = volume(kind)[at]
        if kind in ("tau2", "i2") and number == 0:
            continue  # told in words
        # the maps are float32: 6e-8
        assert np.isclose(words, number, rtol=2e-7, atol=0).any(), kind


def test_estimators_are_compared(out: Path) -> None:
    (page,) = out.glob("group_*.html")
    part = page.read_text(encoding="utf-8").split('<section id="agreement"')[1].split("</section>")[0]
    one, two = (
        nib.load(next((out / "group").glob(f"*_desc-{name}_stat-z_statmap.nii.gz"))).get_fdata().ravel()
        for name in ("reml", "dl")
    )
    assert np.isclose(values_in(part), np.corrcoef(one, two)[0, 1], rtol=1e-12).any()
