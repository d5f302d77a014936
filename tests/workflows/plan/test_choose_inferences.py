"""What ``--inference auto`` takes: by the relabellings of each test, whatever the maps hold."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import AUTO, AUTO_FEW, INFERENCES, find_inference
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling.relabelling import find_smallest_p

ENTITIES = {"task": "x", "space": "MNI152NLin6Asym", "contrast": "ab"}
USUAL, FEW = {"fdr", "maxStat", "clusterMass"}, {"fdr", "bonferroni"}


@pytest.fixture
def make_study(tmp_path, describe_dataset, write_statmap) -> Callable[..., Path]:
    """Return ``make_study(n, kind="effect", **columns) -> dataset`` of n subjects, with their table."""

    def make(n, kind="effect", **columns) -> Path:
        root, rng = describe_dataset(tmp_path / "data"), np.random.default_rng(3)
        for number in range(1, n + 1):
            volume = rng.uniform(0.01, 0.99, (4, 4, 4)) if kind == "p" else rng.normal(0.5, 1.0, (4, 4, 4))
            write_statmap(root, kind, volume, sub=f"{number:02d}", **ENTITIES)
        ids = [f"sub-{number:02d}" for number in range(1, n + 1)]
        pd.DataFrame({"participant_id": ids, **columns}).to_csv(root / "participants.tsv", sep="\t", index=False)
        return root

    return make


def corrections(out: Path, test: str = "") -> set[str]:
    """Return which inferences there are masks of, of one test or of all."""
    names = (path.name for path in (out / "group").glob("*_mask.nii.gz"))
    return {name.split("_corr-")[1].split("_")[0] for name in names if test in name}


def test_the_tables_of_auto_are_of_the_menu_and_the_second_does_not_resample():
    assert set(AUTO) | set(AUTO_FEW) <= set(INFERENCES)
    assert any(find_inference(name).score for name in AUTO)
    assert not any(find_inference(name).score or find_inference(name).needs_smoothness for name in AUTO_FEW)


@pytest.mark.parametrize(
    ("n", "tail", "expected"),
    [
        (5, "two-sided", 2 / 32),  # 32 flips, of which each and its mirror image score the same
        (5, "positive", 1 / 32),
        (6, "two-sided", 2 / 64),
        (20, "two-sided", 1 / 1000),  # random ones
    ],
)
def test_the_smallest_p_is_that_of_the_relabellings(n, tail, expected):
    test = Test("mean", np.ones((1, 1)), tail)
    model = Model(find_estimator("ols"), Design(np.ones((n, 1)), ("Intercept",), (test,)))
    assert find_smallest_p(model, test, InferenceSettings(permutations=1000)) == pytest.approx(expected, rel=1e-12)


def test_the_smallest_p_of_groups_is_one_over_their_arrangements():
    group = np.array([0.0, 0, 0, 1, 1])
    test = Test("group", np.array([[0.0, 1.0]]))
    model = Model(find_estimator("ols"), Design(np.column_stack([np.ones(5), group]), ("Intercept", "g"), (test,)))
    assert find_smallest_p(model, test, InferenceSettings()) == pytest.approx(1 / 10)  # 5 choose 2


def test_by_default_eight_subjects_are_resampled_as_if_it_were_named(make_study, cli, tmp_path):
    root = make_study(8)
    assert cli(root, tmp_path / "auto", "group").code == 0
    assert corrections(tmp_path / "auto") == USUAL
    assert cli(root, tmp_path / "named", "group", "--inference", *AUTO).code == 0
    for path in sorted((tmp_path / "auto" / "group").glob("*.nii.gz")):
        assert path.read_bytes() == (tmp_path / "named" / "group" / path.name).read_bytes(), path.name


def test_five_subjects_are_too_few_for_both_tails_and_log_sidecar_and_page_say_so(make_study, cli, tmp_path):
    ran = cli(make_study(5), tmp_path / "out", "group")
    assert ran.code == 0
    assert corrections(tmp_path / "out") == FEW
    note = (
        "The smallest p that relabellings of these maps can reach is 0.0625, above --alpha 0.05: --inference auto "
        "takes bonferroni in the place of max-stat and cluster-mass."
    )
    assert note in ran.stderr
    sidecar = next((tmp_path / "out" / "group").glob("*corr-bonferroni_mask.json"))
    assert note in json.loads(sidecar.read_text())["Warnings"]
    page = next((tmp_path / "out").glob("group_*.html")).read_text()
    assert "can reach is 0.0625" in page


def test_five_subjects_do_for_one_tail(make_study, cli, tmp_path):
    ran = cli(make_study(5), tmp_path / "out", "group", "--tail", "positive", "--no-report")
    assert ran.code == 0
    assert corrections(tmp_path / "out") == USUAL
    assert "in the place of" not in ran.stderr


def test_few_permutations_are_too_few_and_named(make_study, cli, tmp_path):
    ran = cli(make_study(8), tmp_path / "out", "group", "--permutations", "15", "--no-report")
    assert corrections(tmp_path / "out") == FEW
    assert "relabellings with --permutations 15 can reach is 0.0667" in ran.stderr


def test_each_test_has_what_its_own_relabellings_allow(make_study, cli, tmp_path):
    """One subject against seven: 8 arrangements; the mean: 256 flips."""
    root = make_study(8, group=["a"] * 7 + ["b"])
    words = ["--formula", "1 + C(group)", "--test", "mean=Intercept", "differ=C(group)[T.b]"]
    dry = cli(root, tmp_path / "out", "group", *words, "--dry-run")
    shown = " ".join(dry.stdout.replace("│", " ").split())
    assert "ols (mean: fdr max-stat cluster-mass; differ: fdr bonferroni)" in shown
    assert not (tmp_path / "out").exists()
    ran = cli(root, tmp_path / "out", "group", *words)
    assert ran.code == 0, ran.stderr
    assert corrections(tmp_path / "out", "test-mean") == USUAL
    assert corrections(tmp_path / "out", "test-differ") == FEW
    assert "Test differ: the smallest p that relabellings of these maps can reach is 0.125" in ran.stderr


def test_names_beside_auto_are_done_whatever_auto_takes(make_study, cli, tmp_path):
    root = make_study(5)
    assert cli(root, tmp_path / "few", "group", "--inference", "auto", "tfce", "--no-report").code == 0
    assert corrections(tmp_path / "few") == {*FEW, "tfce"}
    words = ["--inference", "auto", "tfce", "fdr", "--tail", "negative", "--no-report"]
    assert cli(root, tmp_path / "usual", "group", *words).code == 0
    assert corrections(tmp_path / "usual") == {*USUAL, "tfce"}


def test_p_without_a_sign_is_not_relabelled(make_study, cli, tmp_path):
    ran = cli(make_study(8, kind="p"), tmp_path / "out", "group", "--no-report")
    assert ran.code == 0, ran.stderr
    assert corrections(tmp_path / "out") == FEW
    assert "Relabelling p maps without a sign changes nothing: --inference auto takes bonferroni" in ran.stderr


def test_p_with_a_sign_is(make_study, cli, tmp_path):
    root = make_study(8, kind="p")
    for path in root.rglob("*stat-p_statmap.nii.gz"):
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"Tail": "positive"}))
    ran = cli(root, tmp_path / "out", "group", "--no-report")
    assert ran.code == 0, ran.stderr
    assert corrections(tmp_path / "out") == USUAL


def test_the_log_keeps_auto_and_so_repeats_the_choice(make_study, cli, tmp_path):
    root = make_study(6)
    assert cli(root, tmp_path / "out", "group", "--no-report").code == 0
    options = next((tmp_path / "out" / "logs").glob("*/options.toml")).read_text()
    assert 'inference = ["auto"]' in options.replace("\n", "").replace("    ", "").replace(",]", "]")


def test_what_rests_on_one_map_is_not_relabelled(make_study, cli, tmp_path):
    """Half of the flips leave the largest z of a voxel as it is: resampled p are a half or more."""
    root = make_study(10)
    for path in root.rglob("*stat-effect_statmap.nii.gz"):
        path.rename(path.with_name(path.name.replace("stat-effect", "stat-z")))
    ran = cli(root, tmp_path / "out", "group", "--estimator", "tippett", "--no-report")
    assert ran.code == 0, ran.stderr
    assert corrections(tmp_path / "out") == FEW
    assert "tippett rests on a single map" in ran.stderr
    words = ["--estimator", "tippett", "--inference", "max-stat", "--tail", "positive", "--no-report"]
    assert cli(root, tmp_path / "named", "group", *words).code == 0
    corrected = nib.load(next((tmp_path / "named" / "group").glob("*corr-maxStat_stat-log10p*.nii.gz"))).get_fdata()
    assert corrected.max() < -np.log10(0.49)
