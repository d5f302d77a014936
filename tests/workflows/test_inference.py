"""Inference through the command line, against plain enumeration of the files' own numbers."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ibma_app.inference import INFERENCES, find_inference

ENTITIES = {"task": "x", "space": "MNI152NLin6Asym", "contrast": "ab"}
SHAPE = (6, 7, 6)
RESAMPLED = tuple(name for name in INFERENCES if find_inference(name).score)
WITHOUT_RFT = tuple(name for name in INFERENCES if not name.startswith("rft"))
SLACK = 1e-6  # as documented: scores that are equal but for rounding count as equal
BLOCKS = (1, 1, 2, 2, 3, 3, 4, 4)
GROUP = (0, 1, 1, 0, 0, 1, 0, 1)  # differs within every block


def maps_of(root: Path) -> np.ndarray:
    """Return the effects (K, V) that the files hold."""
    return np.stack([nib.load(path).get_fdata().ravel() for path in sorted(root.rglob("*stat-effect*.nii.gz"))])


@pytest.fixture(scope="module")
def make_study(tmp_path_factory, describe_dataset, write_statmap) -> Callable[..., Path]:
    """Return ``make_study(volumes, columns=None, kind="effect", **entities) -> dataset``, a subject per volume."""

    def make(volumes, columns=None, kind="effect", affine=None, metadata=None) -> Path:
        root = describe_dataset(tmp_path_factory.mktemp("study") / "data")
        for number, volume in enumerate(volumes, start=1):
            write_statmap(root, kind, volume, sub=f"{number:02d}", affine=affine, metadata=metadata, **ENTITIES)
        ids = [f"sub-{number:02d}" for number in range(1, len(volumes) + 1)]
        table = pd.DataFrame({"participant_id": ids, **(columns or {})})
        table.to_csv(root / "participants.tsv", sep="\t", index=False)
        return root

    return make


@pytest.fixture(scope="module")
def eight(make_study) -> Path:
    """Eight subjects; in a corner there is an effect."""
    rng = np.random.default_rng(5)
    volumes = rng.normal(0, 1, (8, *SHAPE))
    volumes[:, :3, :3, :3] += 1.5
    blocks = {"group": GROUP, "exchangeability": BLOCKS}
    return make_study(volumes, blocks)


@pytest.fixture(scope="module")
def alone(eight: Path, tmp_path_factory) -> Path:
    """The same subjects without a table."""
    root = tmp_path_factory.mktemp("alone") / "data"
    shutil.copytree(eight, root)
    (root / "participants.tsv").unlink()
    return root


@pytest.fixture
def infer(cli, tmp_path) -> Callable[..., Path]:
    """Return ``infer(root, *options, names=..., out="out") -> OUTPUT_DIR`` of a run that went well."""

    def run(root, *options, names=("max-stat",), out="out") -> Path:
        ran = cli(root, tmp_path / out, "group", "--inference", *names, "--no-report", *options)
        assert ran.code == 0, ran.stderr
        return tmp_path / out

    return run


def stem(name: str, test: str = "") -> str:
    """Return the beginning of one inference's file names."""
    first, *rest = name.split("-")
    label = first + "".join(part.capitalize() for part in rest)
    return f"task-x_space-MNI152NLin6Asym_contrast-ab_{f'test-{test}_' if test else ''}desc-ols_corr-{label}"


def volume(out: Path, name: str, kind: str = "stat-log10p_statmap", test: str = "") -> np.ndarray:
    return nib.load(out / "group" / f"{stem(name, test)}_{kind}.nii.gz").get_fdata().ravel()


def sidecar(out: Path, name: str, test: str = "") -> dict:
    path = out / "group" / f"{stem(name, test)}_stat-log10p_statmap.json"
    return json.loads(path.read_text(encoding="utf-8"))


def counts(out: Path, name: str = "max-stat", test: str = "") -> np.ndarray:
    """Return how many relabellings reached each voxel, as the corrected p says."""
    p = 10.0 ** -volume(out, name, test=test)
    counted = p * sidecar(out, name, test)["Inference"]["Resamples"]
    np.testing.assert_allclose(counted, np.rint(counted), rtol=1e-5)  # -log10 p in single precision
    return np.rint(counted).astype(int)


def reached(statistics: np.ndarray) -> np.ndarray:
    """Count the relabellings (R, V), the identity first, whose largest reaches each voxel of the identity."""
    return (statistics.max(axis=1)[:, None] >= statistics[0] - SLACK * np.abs(statistics[0])).sum(axis=0)


def flipped_t(values: np.ndarray, signs: list[np.ndarray]) -> np.ndarray:
    return np.array([stats.ttest_1samp(turned[:, None] * values, 0.0).statistic for turned in signs])


def test_every_inference_in_one_run_on_any_number_of_processes(contents, alone: Path, infer) -> None:
    given = ("--permutations", "100", "--seed", "3", "--cluster-p", "0.02")
    one = infer(alone, *given, "--nprocs", "1", names=INFERENCES, out="one")
    for name in INFERENCES:
        for kind in ("stat-log10p_statmap", "stat-z_statmap", "mask"):
            assert np.isfinite(volume(one, name, kind)).all(), (name, kind)
        told = sidecar(one, name)["Inference"]
        assert told["Name"] == name
        table = pd.read_csv(one / "group" / f"{stem(name)}_clusters.tsv", sep="\t")
        significant = volume(one, name, "mask") > 0
        np.testing.assert_array_equal(volume(one, name, "stat-z_statmap") != 0, significant)
        assert len(table) >= int(significant.any())
        if name in RESAMPLED:
            assert (told["Resamples"], told["Exhaustive"], told["Seed"]) == (100, False, 3)
            assert told["Scheme"] == "sign flips"
    assert (volume(one, "max-stat", "mask") > 0).any()
    two = infer(alone, *given, "--nprocs", "2", names=INFERENCES, out="two")
    assert contents(one) == contents(two)
    other = infer(alone, *given[:3], "4", "--cluster-p", "0.02", names=RESAMPLED, out="other")
    assert any((volume(one, name) != volume(other, name)).any() for name in RESAMPLED)


def test_all_flips_of_eight_maps_equal_enumeration(alone: Path, infer) -> None:
    values = maps_of(alone)
    signs = [np.array(turned) for turned in itertools.product([1.0, -1.0], repeat=8)]
    t = flipped_t(values, signs)
    for tail, statistics in (("two-sided", np.abs(t)), ("positive", t), ("negative", -t)):
        out = infer(alone, "--tail", tail, out=tail)
        told = sidecar(out, "max-stat")["Inference"]
        assert (told["Resamples"], told["Exhaustive"]) == (256, True)
        assert told["SmallestP"] == (2 if tail == "two-sided" else 1) / 256
        np.testing.assert_array_equal(counts(out), reached(statistics), err_msg=tail)
        z = volume(out, "max-stat", "stat-z_statmap")
        np.testing.assert_array_equal(z != 0, reached(statistics) / 256 <= 0.05)
        if tail != "two-sided":
            assert (z >= 0).all() if tail == "positive" else (z <= 0).all()


def test_one_sided_runs_mirror_each_other(alone: Path, make_study, infer) -> None:
    mirrored = make_study(-maps_of(alone).reshape(8, *SHAPE))
    names = (*RESAMPLED, "fdr", "rft-voxel", "ari")
    up = infer(alone, "--tail", "positive", "--cluster-p", "0.02", names=names, out="up")
    down = infer(mirrored, "--tail", "negative", "--cluster-p", "0.02", names=names, out="down")
    for name in names:
        np.testing.assert_allclose(volume(down, name), volume(up, name), rtol=1e-6, atol=1e-7, err_msg=name)
        z, turned = volume(up, name, "stat-z_statmap"), volume(down, name, "stat-z_statmap")
        np.testing.assert_allclose(turned, -z, rtol=1e-6, err_msg=name)


def test_exchangeability_within_blocks(eight: Path, infer) -> None:
    out = infer(eight, "--formula", "1 + group", "--test", "b=group")
    told = sidecar(out, "max-stat", "b")["Inference"]
    assert told["Scheme"] == "permutations (Freedman-Lane) within blocks"
    assert told["Resamples"] == 16
    values, group = maps_of(eight), np.array(GROUP)
    relabelled = []
    for swaps in itertools.product([False, True], repeat=4):
        one = group.copy()
        for block, swapped in enumerate(swaps):
            if swapped:
                one[2 * block : 2 * block + 2] = one[2 * block : 2 * block + 2][::-1]
        relabelled.append(one == 1)
    t = np.array([stats.ttest_ind(values[one], values[~one]).statistic for one in relabelled])
    np.testing.assert_array_equal(counts(out, test="b"), reached(np.abs(t)))


def test_exchangeability_of_whole_blocks(eight: Path, tmp_path: Path, infer, cli) -> None:
    table = pd.read_csv(eight / "participants.tsv", sep="\t")
    table["exchangeability"] *= -1
    families = tmp_path / "families.tsv"
    table.to_csv(families, sep="\t", index=False)
    out = infer(eight, "--covariates", families, "--tail", "positive")
    told = sidecar(out, "max-stat")["Inference"]
    assert (told["Scheme"], told["Resamples"]) == ("sign flips of whole blocks", 16)
    signs = [np.repeat(turned, 2) for turned in itertools.product([1.0, -1.0], repeat=4)]
    np.testing.assert_array_equal(counts(out), reached(flipped_t(maps_of(eight), signs)))
    table.loc[0, "exchangeability"] = 1
    table.to_csv(families, sep="\t", index=False)
    ran = cli(eight, tmp_path / "mixed", "group", "--covariates", families)
    assert ran.code == 65
    assert "exchangeability" in ran.stderr
    assert "one sign" in ran.stderr


def test_a_mask_of_one_voxel(alone: Path, tmp_path: Path, infer) -> None:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1, 1, 1] = 1
    affine = nib.load(next(alone.rglob("*.nii.gz"))).affine
    nib.Nifti1Image(mask, affine).to_filename(tmp_path / "mask.nii.gz")
    out = infer(alone, "--mask", tmp_path / "mask.nii.gz", names=INFERENCES)
    values = maps_of(alone).reshape(8, *SHAPE)[:, 1, 1, 1]
    at = np.ravel_multi_index((1, 1, 1), SHAPE)
    uncorrected = -np.log10(stats.ttest_1samp(values, 0.0).pvalue)
    for name in ("uncorrected", "bonferroni", "fdr", "fdr-by", "rft-voxel", "ari"):  # one test: nothing to correct
        np.testing.assert_allclose(volume(out, name)[at], uncorrected, rtol=1e-5, err_msg=name)
    signs = [np.array(turned) for turned in itertools.product([1.0, -1.0], repeat=8)]
    count = reached(np.abs(flipped_t(values[:, None], signs)))[0]
    for name in ("max-stat", "tfce"):
        assert counts(out, name)[at] == count
    for name in INFERENCES:
        assert np.flatnonzero(volume(out, name)).tolist() in ([], [at])


def test_maps_of_one_value(make_study, tmp_path: Path, infer, cli) -> None:
    same = make_study([np.full(SHAPE, 2.0)] * 6)
    out = infer(same, names=WITHOUT_RFT, out="same")
    for name in WITHOUT_RFT:
        assert not volume(out, name).any(), name
        assert not volume(out, name, "mask").any(), name
    levels = (1.1, 2.1, 3.1, 1.5, 0.7, 2.2, 1.9, 2.8)  # each map has one value, they differ
    flat = make_study([np.full(SHAPE, level) for level in levels])
    out = infer(flat, names=WITHOUT_RFT, out="flat")
    for name in RESAMPLED:  # all have one sign: no flip but the identity and its mirror image reaches it
        np.testing.assert_allclose(volume(out, name), -np.log10(2 / 256), rtol=1e-6, err_msg=name)
    for root, words in ((same, "no voxel has all its neighbours"), (flat, "do not vary in space")):
        ran = cli(root, tmp_path / "rft", "group", "--inference", "rft-cluster")
        assert ran.code == 65
        assert "smoothness" in ran.stderr
        assert words in ran.stderr
        assert "Traceback" not in ran.stderr


def test_two_maps_can_show_nothing(make_study, cli, tmp_path: Path) -> None:
    two = make_study(np.random.default_rng(1).normal(3, 1, (2, *SHAPE)))
    ran = cli(two, tmp_path / "out", "group", "--inference", *INFERENCES, "--no-report")
    assert ran.code == 0, ran.stderr
    for name in RESAMPLED:
        assert f"{name}: with 4 all distinct relabellings the smallest p that can be reached is 0.5" in ran.stderr
        assert not volume(tmp_path / "out", name, "mask").any()
    assert "more maps are needed" in ran.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--alpha", "1.5"), "--alpha"),
        (("--alpha", "0"), "--alpha"),
        (("--alpha", "nan"), "--alpha"),
        (("--cluster-p", "1"), "--cluster-p"),
        (("--permutations", "0"), "--permutations"),
        (("--seed", "-1"), "--seed"),
        (("--inference", "max-t"), "max-stat"),
    ],
)
def test_levels_out_of_range(alone: Path, tmp_path: Path, cli, options: tuple[str, ...], words: str) -> None:
    ran = cli(alone, tmp_path / "out", "group", *options)
    assert ran.code == 64
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "out" / "group").exists()


def test_a_lenient_threshold_is_refused_one_sided(alone: Path, tmp_path: Path, cli) -> None:
    options = ("--tail", "positive", "--cluster-p", "0.7", "--inference", "cluster-mass")
    ran = cli(alone, tmp_path / "out", "group", *options)
    assert ran.code == 64
    assert "--cluster-p is 0.7" in ran.stderr
    assert "0.001" in ran.stderr


@pytest.mark.parametrize("name", ["rft-voxel", "rft-cluster"])
def test_random_fields_need_residuals(make_study, tmp_path: Path, cli, name: str) -> None:
    rng = np.random.default_rng(2)
    root = make_study(rng.normal(size=(5, *SHAPE)), kind="t", metadata={"DegreesOfFreedom": 20})
    ran = cli(root, tmp_path / "out", "group", "--estimator", "stouffer", "--inference", name)
    assert ran.code == 64, ran.stderr
    for word in (f"--inference {name}", "residuals", "max-stat", "stouffer-rfx"):
        assert word in ran.stderr
    assert "Traceback" not in ran.stderr


def test_regions_of_a_real_atlas(shared: Path, make_study, tmp_path: Path, infer) -> None:
    folder = shared / "realdata" / "atlas_schaefer" / "tpl-MNI152NLin6Asym" / "anat"
    labels = next(folder.glob("*scale-100_*.nii.gz"))
    config = tmp_path / "config.toml"
    config.write_text(f'[atlas.Schaefer100]\nlabels = "{labels}"\n', encoding="utf-8")
    affine = np.array([[4.0, 0, 0, -62], [0, 4.0, 0, -70], [0, 0, 4.0, 4], [0, 0, 0, 1]])
    volumes = np.random.default_rng(4).normal(0.3, 1, (8, 30, 10, 8))
    root = make_study(volumes, affine=affine)
    out = infer(root, "--config-file", config, "--cluster-p", "0.05", names=("uncorrected",))
    table = pd.read_csv(out / "group" / f"{stem('uncorrected')}_clusters.tsv", sep="\t", keep_default_na=False)
    (column,) = [name for name in table.columns if "region" in name]
    image = nib.load(labels)
    parcels = np.rint(image.get_fdata()).astype(int)
    listed = pd.read_csv(str(labels).replace(".nii.gz", ".tsv"), sep="\t").set_index("index")
    names = listed["name"].drop(0)  # 0 is no region
    inverse = np.linalg.inv(image.affine)
    for row in table.to_dict("records"):
        place = np.rint(inverse @ [row["x"], row["y"], row["z"], 1.0])[:3].astype(int)
        region = names.get(parcels[tuple(place)])
        assert row[column] == region if region else row[column].startswith("near 7Networks_"), row
    assert (table[column] != "n/a").sum() > 10
    sidecar_file = out / "group" / f"{stem('uncorrected')}_clusters.json"
    assert json.loads(sidecar_file.read_text(encoding="utf-8"))["Atlas"] == ["Schaefer100"]


def test_thirty_real_maps_against_plain_flips(shared: Path, make_study, infer) -> None:
    paths = sorted((shared / "realdata" / "wager2008" / "con").glob("*.img"))
    images = [nib.load(path) for path in paths]
    volumes = np.stack([np.squeeze(image.get_fdata(dtype=np.float32)) for image in images])
    root = make_study(volumes, affine=images[0].affine)
    n_maps, resamples = len(paths), 1000
    assert n_maps == 30
    out = infer(root, "--permutations", str(resamples), "--seed", "1")
    mask = (np.isfinite(volumes) & (volumes != 0)).all(axis=0).ravel()
    values = volumes.reshape(n_maps, -1)[:, mask].astype(float)
    norms = (values**2).sum(axis=0)

    def flipped(signs: np.ndarray) -> np.ndarray:
        sums = signs @ values
        return sums / np.sqrt(n_maps * (norms - sums**2 / n_maps) / (n_maps - 1))

    observed = flipped(np.ones((1, n_maps)))[0]
    np.testing.assert_allclose(observed, stats.ttest_1samp(values, 0.0).statistic, rtol=1e-9, atol=1e-9)
    rng = np.random.default_rng(99)
    drawn = rng.choice([-1.0, 1.0], (resamples - 1, n_maps))
    peaks = [np.abs(flipped(batch)).max(axis=1) for batch in np.array_split(drawn, 20)]
    null = np.sort(np.r_[np.abs(observed).max(), *peaks])
    expected = (resamples - np.searchsorted(null, np.abs(observed) * (1 - SLACK))) / resamples
    found = 10.0 ** -volume(out, "max-stat")[mask]
    # both are shares of 1,000 random flips: five standard errors of their difference, and a count at the ends
    error = np.sqrt(2 * expected * (1 - expected) / resamples)
    assert (np.abs(found - expected) <= 5 * error + 2 / resamples).all()
    assert (expected < 0.05).sum() > 100
    # the threshold is a quantile of the null: where the two lie, the other's null has 5 % to Monte-Carlo error
    threshold = sidecar(out, "max-stat")["Inference"]["ScoreThreshold"]
    t = stats.t.isf(stats.norm.sf(threshold), n_maps - 1)
    assert abs(np.mean(null > t) - 0.05) <= 5 * np.sqrt(2 * 0.05 * 0.95 / resamples)


def test_what_is_not_quite_kept_is_a_caveat_on_page_and_in_sidecars(tmp_path, write_statmap, describe_dataset, cli):
    rng = np.random.default_rng(2)
    root = describe_dataset(tmp_path / "in")
    for row in range(12):
        for kind, values in (("effect", rng.normal(size=(5, 5, 5))), ("variance", rng.uniform(0.5, 2, size=(5, 5, 5)))):
            write_statmap(root, kind, values, sub=f"{row:02d}", space="T1w", contrast="c")
    config = tmp_path / "knha.toml"
    config.write_text('[estimator.reml]\ntest = "knha"\n')
    for name, words in (("adhoc", ()), ("knha", ("--config-file", config))):
        out = tmp_path / name
        ran = cli(root, out, "group", "--estimator", "reml", "--inference", "fdr", "--mask", "data", *words)
        assert ran.code == 0, ran.stderr
        (sidecar,) = (out / "group").glob("*_desc-reml_corr-fdr_mask.json")
        caveat = json.loads(sidecar.read_text())["Inference"].get("Caveat")
        page = next(out.glob("group_*.html")).read_text(encoding="utf-8")
        for text in (ran.stderr, page):
            assert ("6.5 to 9 of 100" in text) == (name == "knha")
        assert (caveat is not None) == (name == "knha")
