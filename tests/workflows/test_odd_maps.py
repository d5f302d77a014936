"""Odd maps are warned of and kept; the page's nulls and thresholds are those of the files."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ibma_app.cli import import_main

ODD = ("The same map", "Possible sign flip", "Scale far out")
SHAPE = (12, 12, 12)


def write_subjects(root: Path, write_statmap, describe_dataset, *, odd: bool) -> Path:
    """Ten subjects with one signal; with ``odd`` one twice, one turned round, one in another unit."""
    rng = np.random.default_rng(5)
    signal, *noise = (gaussian_filter(rng.normal(size=SHAPE), 1.5) for _ in range(11))
    maps = [one / one.std() + 1.2 * signal / signal.std() for one in noise]
    if odd:
        maps[3] = 0.5 * maps[8]
        maps[5] = -maps[5]
        maps[6] = 1000 * maps[6]
    describe_dataset(root)
    for number, volume in enumerate(maps):
        write_statmap(root, "effect", volume, sub=f"{number:02d}", task="x", space="T1w", contrast="c")
    return root


def read(out: Path, kind: str) -> np.ndarray:
    (path,) = (out / "group").glob(f"*_desc-ols_{kind}_statmap.nii.gz")
    return nib.load(path).get_fdata()


def test_odd_maps_are_warned_of_and_kept(tmp_path: Path, write_statmap, describe_dataset, cli) -> None:
    root = write_subjects(tmp_path / "in", write_statmap, describe_dataset, odd=True)
    out = tmp_path / "out"
    ran = cli(root, out, "group")
    assert ran.code == 0, ran.stderr
    page = next(out.glob("group_*.html")).read_text(encoding="utf-8")
    sidecar = json.loads(next((out / "group").glob("*_stat-effect_statmap.json")).read_text())
    notes = page.split('id="notes"')[1].split("</section>")[0]
    named = {"The same map": "sub-03_task-x_contrast-c = sub-08", "Possible sign": "sub-05", "Scale far": "sub-06"}
    for opening, label in named.items():
        for text in (ran.stderr, notes, json.dumps(sidecar)):
            assert re.search(rf"{opening}[^\n]*?{label}", text), (opening, text)
    assert (read(out, "stat-n") == 10).all(), "a flagged map is never dropped"


def test_page_tells_null_and_threshold_of_the_files(tmp_path: Path, write_statmap, describe_dataset, cli) -> None:
    root = write_subjects(tmp_path / "in", write_statmap, describe_dataset, odd=False)
    out = tmp_path / "out"
    ran = cli(root, out, "group", "--inference", "max-stat", "--permutations", "300")
    assert ran.code == 0, ran.stderr
    assert not any(opening in ran.stderr for opening in ODD), ran.stderr
    page = next(out.glob("group_*.html")).read_text(encoding="utf-8")
    largest = np.abs(read(out, "stat-z")).max()
    observed = float(re.search(r">observed ([\d.]+)<", page)[1])
    assert observed == pytest.approx(largest, rel=1e-3)  # four digits on the page
    p = float(re.search(r"corrected p = ([\d.]+?)\.? ?<", page.replace(" 1 lies beyond the bars.", ""))[1])
    assert p == pytest.approx(10 ** -read(out, "corr-maxStat_stat-log10p").max(), rel=1e-3)
    significant = np.abs(read(out, "corr-maxStat_stat-z"))
    row = page.split('class="thresholds"')[1].split("<tbody>")[1].split("</tr>")[0]
    shown = [float(value) for value in re.findall(r'<data value="([^"]+)"', row)]
    smallest = significant[significant > 0].min()
    error = np.median(np.sqrt(read(out, "stat-variance")))
    t = np.abs(read(out, "stat-t"))[np.isclose(np.abs(read(out, "stat-z")), smallest, rtol=1e-7)][0]
    log10p = read(out, "stat-log10p")[np.isclose(np.abs(read(out, "stat-z")), smallest, rtol=1e-7)][0]
    # z, t, p and the effect at the median standard error, from float32 files
    np.testing.assert_allclose(shown, [smallest, t, 10**-log10p, t * error], rtol=2e-5)


def test_real_subjects_raise_no_alarm(shared: Path, tmp_path: Path, write_statmap, describe_dataset, cli) -> None:
    root = describe_dataset(tmp_path / "in")
    for number, path in enumerate(sorted((shared / "realdata" / "wager2008" / "con").glob("*.img")), start=1):
        image = nib.load(path)
        values = np.squeeze(image.get_fdata(dtype=np.float32))
        write_statmap(root, "effect", values, affine=image.affine, sub=f"{number:02d}", task="x", space="MNI152Lin",
                      contrast="c")  # fmt: skip
    ran = cli(root, tmp_path / "out", "group", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "30 maps" in ran.stderr
    assert not any(opening in ran.stderr for opening in ODD), ran.stderr


def write_studies(root: Path, write_statmap, describe_dataset) -> Path:
    """Eight studies with one signal; b and c are two conditions of one sample."""
    rng = np.random.default_rng(6)
    describe_dataset(root)
    shape = (30, 34, 30)
    signal = gaussian_filter(rng.normal(size=shape), 3.0)
    people = [gaussian_filter(rng.normal(size=shape), 0.9) for _ in range(8)]
    people[2] = 0.8 * people[1] + 0.6 * people[2]
    sizes = dict(zip("abcdefgh", (10, 12, 12, 14, 16, 20, 24, 30), strict=True))
    for number, label in enumerate(sizes):
        volume = people[number] / people[number].std() + 2 * signal / signal.std()
        write_statmap(root, "z", volume, study=label, space="MNI152NLin6Asym", contrast="c")
    rows = "".join(f"{label}\t{size}\n" for label, size in sizes.items())
    (root / "studies.tsv").write_text(f"study_id\tsample_size\n{rows}", encoding="utf-8")
    return root


def test_studies_of_the_same_people_are_named(tmp_path: Path, write_statmap, describe_dataset, cli) -> None:
    root, out = write_studies(tmp_path / "in", write_statmap, describe_dataset), tmp_path / "out"
    ran = cli(root, out, "group", "--estimator", "stouffer", "--inference", "fdr", "--mask", "data")
    assert ran.code == 0, ran.stderr
    page = next(out.glob("group_*.html")).read_text(encoding="utf-8")
    notes = page.split('id="notes"')[1].split("</section>")[0]
    for text in (ran.stderr, notes):
        assert re.search(r"look like the same people[^\n]*study-b[^\n]*, study-c", text), text
    for sidecar in (out / "group").glob("*_statmap.json"):
        assert json.loads(sidecar.read_text())["LikelySameSample"] == [["b", "c"]]


@pytest.mark.slow
def test_pain21_by_default_names_the_six_samples(shared: Path, tmp_path: Path, cli) -> None:
    """Units are unknown, so that z is combined; the effects are compared all the same."""
    folder = shared / "realdata" / "pain21_whole"
    lines = ["study_id\tpath\tkind\tcontrast\tsample_size\tdof"]
    for line in (folder / "samples.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        name, size = line.split("\t")[:2]
        for kind, image in (("effect", "contrast"), ("variance", "var")):
            path = folder / f"{image}_{name}.nii.gz"
            lines.append(f"{name.replace('_', '')}\t{path}\t{kind}\tpain\t{size}\t{int(size) - 1}")
    (tmp_path / "maps.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    space = ["--space", "MNI152NLin6Asym"]
    assert import_main(["table", str(tmp_path / "maps.tsv"), str(tmp_path / "in"), *space]) == 0
    ran = cli(tmp_path / "in", tmp_path / "out", "group", "--inference", "fdr", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "look like the same people" in ran.stderr
    known = [[1, 2], [3, 4], [5, 6, 7], [8, 9, 10, 11], [15, 16], [20, 21]]
    sidecars = list((tmp_path / "out" / "group").glob("*_stat-z_statmap.json"))
    assert len(sidecars) == 4  # stouffer-rfx and stouffer-weighted, all voxels and those that fdr leaves
    for sidecar in sidecars:
        named = json.loads(sidecar.read_text())["LikelySameSample"]
        assert named == [[f"pain{number:02d}" for number in group] for group in known]
