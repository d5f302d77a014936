"""Tails of p maps: what the importer writes is what the app reads, and z has the sign that the tail says."""

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

SHAPE = (5, 4, 3)
SPACE = ("--space", "MNI152NLin6Asym")
TAILS = {
    "positive": lambda z: stats.norm.sf(z),
    "negative": lambda z: stats.norm.cdf(z),
    "two-sided": lambda z: 2 * stats.norm.sf(np.abs(z)),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("way", ["a table", "sidecars"])
def test_each_tail_gives_its_z(tail, way, tmp_path, cli, ibma_import, describe_dataset, write_statmap, rng):
    z, root = rng.normal(0.5, 1, (5, *SHAPE)), tmp_path / "in"
    rows = ["study_id\tpath\tkind\tcontrast\ttail\tsample_size"]
    for number, one in enumerate(z):
        maps = {"p": TAILS[tail](one), **({"effect": one / 3} if tail == "two-sided" else {})}
        for kind, values in maps.items():
            told = {"Tail": tail} if kind == "p" else {}
            names = {"study": f"s{number}", "space": SPACE[1], "contrast": "a"}
            where = describe_dataset(root) if way == "sidecars" else tmp_path / "maps"
            path = write_statmap(where, kind, values, dtype=np.float64, metadata={**told, "SampleSize": 20}, **names)
            rows.append(f"s{number}\t{path}\t{kind}\ta\t{tail if kind == 'p' else 'n/a'}\t20")
    if way == "a table":
        (tmp_path / "maps.tsv").write_text("\n".join(rows) + "\n")
        ran = ibma_import("table", tmp_path / "maps.tsv", root, *SPACE)
        assert ran.code == 0, ran.stderr
    words = ("--estimator", "stouffer", "--inference", "fdr", "--mask", "data", "--no-report", "--nprocs", "1")
    ran = cli(root, tmp_path / "out", "group", *words)
    assert ran.code == 0, ran.stderr
    (found,) = (tmp_path / "out").rglob("*_desc-stouffer_stat-z_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(found).get_fdata(), z.sum(axis=0) / np.sqrt(5), rtol=1e-4, atol=1e-5)
