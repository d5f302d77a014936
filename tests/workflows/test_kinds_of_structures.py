"""Clusters and TFCE of surfaces and a nucleus together, and of what has no neighbours, through the command line."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

N, SUBJECTS = 162, 8
QUICK = ("--no-report", "--estimator", "ols", "--permutations", "300")  # more than there are distinct flips


@pytest.fixture(scope="module")
def made(maker):
    return maker("made_surfaces")


@pytest.fixture(scope="module")
def grayordinates(made, tmp_path_factory):
    """Subjects with an effect in the left hemisphere and in the nucleus; the meshes."""
    root = made.describe(tmp_path_factory.mktemp("kinds") / "data")
    points, triangles = made.icosphere()
    near = np.flatnonzero(points[:, 0] > 30)
    effects = np.random.default_rng(3).normal(size=(SUBJECTS, 2 * N + 27))
    effects[:, np.r_[near, 2 * N : 2 * N + 18]] += 2.5
    for sub, row in enumerate(effects, start=1):
        name = made.stem(f"{sub:02d}", middle="space-toy_den-162", kind="effect")
        made.write_cifti(root / f"{name}.dscalar.nii", made.grayordinates(N), row)
    meshes = [f"{side}={made.write_mesh(root.parent / f'{side}.surf.gii', points, triangles, side)}" for side in "LR"]
    return root, meshes


def run(cli, grayordinates, out, *more):
    root, meshes = grayordinates
    ran = cli(root, out, "group", *QUICK, "--inference", "cluster-size", "tfce", "--surface", *meshes, *more)
    assert ran.code == 0, ran.stderr
    return out / "group"


def test_both_kinds_are_found_with_one_correction(grayordinates, tmp_path, cli):
    folder = run(cli, grayordinates, tmp_path / "out")
    for name in ("clusterSize", "tfce"):
        path = next(folder.glob(f"*corr-{name}_clusters.tsv"))
        with path.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["cluster_id"].isdecimal()]
        found = {row["structure"]: row for row in rows}
        assert set(found) == {"CORTEX_LEFT", "THALAMUS_LEFT"}
        assert float(found["THALAMUS_LEFT"]["volume_mm3"]) == 8 * int(found["THALAMUS_LEFT"]["n_voxels"])
        assert found["THALAMUS_LEFT"]["vertex"] == found["THALAMUS_LEFT"]["area_mm2"] == "n/a"
        assert float(found["CORTEX_LEFT"]["area_mm2"]) > 1000
        told = json.loads(path.with_suffix(".json").read_text())["Inference"]
        assert told["ScoreUnits"].startswith("-log10 of the smallest p over kinds")
    log10p = nib.load(next(folder.glob("*corr-tfce_stat-log10p_statmap.dscalar.nii"))).get_fdata()[0]
    counts = 10.0**-log10p * told["Resamples"]
    np.testing.assert_allclose(counts, np.rint(counts), rtol=1e-4)
    assert (told["Resamples"], told["Exhaustive"]) == (2**SUBJECTS, True)


def test_six_subjects_are_too_few_for_two_kinds(grayordinates, tmp_path, cli):
    """64 flips, each and its mirror image alike: p of 2/64 in one null, 4/64 in one of two."""
    root, meshes = grayordinates
    few = ("--participant-label", *(f"{number:02d}" for number in range(1, 7)))
    ran = cli(root, tmp_path / "out", "group", *QUICK, *few, "--inference", "auto", "tfce", "--surface", *meshes)
    assert ran.code == 0, ran.stderr
    said = " ".join(ran.stderr.split())
    assert (
        "The smallest p that relabellings of these maps can reach in each of 2 kinds of structures is 0.0625, above "
        "--alpha 0.05: --inference auto takes bonferroni in the place of max-stat and cluster-mass."
    ) in said
    assert "tfce: with 64 all distinct relabellings and 2 kinds of structures" in said
    masks = {path.name.split("_corr-")[1].split("_")[0]: path for path in (tmp_path / "out").glob("group/*_mask.json")}
    assert set(masks) == {"fdr", "bonferroni", "tfce"}
    assert json.loads(masks["tfce"].read_text())["Inference"]["SmallestP"] == 0.0625


def test_the_same_bytes_by_one_process_and_by_two(grayordinates, tmp_path, cli):
    one, two = (run(cli, grayordinates, tmp_path / number, "--nprocs", number) for number in "12")
    maps = sorted(path.name for path in one.glob("*.dscalar.nii"))
    assert len(maps) > 10
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in maps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--inference", "tfce"], "Toy (6 parcels) are regions"),
        (["--inference", "fdr", "--min-extent", "3"], "--min-extent 3 is a size of clusters. Toy (6 parcels)"),
    ],
)
def test_regions_have_no_clusters(made, tmp_path, cli, options, words):
    root = made.describe(tmp_path / "data")
    for sub, row in enumerate(np.random.default_rng(0).normal(size=(6, 6)), start=1):
        name = made.stem(f"{sub:02d}", middle="seg-Toy", kind="effect")
        made.write_table(root / f"{name}.tsv", list("abcdef"), row)
    ran = cli(root, tmp_path / "out", "group", *QUICK, *options)
    assert ran.code == 64
    assert words in ran.stderr
    advised = ran.stderr.split("Without neighbours go: --inference ")[1].split(".")[0].split()
    ran = cli(root, tmp_path / "out", "group", *QUICK, "--inference", *advised)
    assert ran.code == 0, ran.stderr
