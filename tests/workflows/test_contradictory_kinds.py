"""Maps of one contrast that contradict each other are named, on reading and on import."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SHAPE = (8, 8, 8)
WORDS = ("--estimator", "fixed-effects", "--inference", "bonferroni", "--mask", "data", "--no-report")


@pytest.fixture
def studies(tmp_path, write_statmap, describe_dataset):
    """Return ``make(change)``: six studies with effect, variance and t; ``change`` alters the last one's."""

    def make(change) -> Path:
        rng = np.random.default_rng(9)
        root = describe_dataset(tmp_path / "in")
        for row in range(6):
            effect, variance = rng.normal(size=SHAPE), rng.uniform(0.5, 2.0, size=SHAPE)
            kinds = {"effect": effect, "variance": variance, "t": effect / np.sqrt(variance)}
            for kind, volume in (change(kinds) if row == 5 else kinds).items():
                about = {"Units": "percent", "DegreesOfFreedom": 19, "SampleSize": 20}
                write_statmap(root, kind, volume, study=f"s{row}", space="T1w", contrast="c", metadata=about)
        return root

    return make


def test_some_opposite_signs_are_a_warning_with_their_share(tmp_path, studies, cli):
    def change(kinds):
        t = kinds["t"].copy()
        t[0, :2] *= -1  # 16 of 512
        return {**kinds, "t": t}

    ran = cli(studies(change), tmp_path / "out", "group", *WORDS)
    assert ran.code == 0, ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if "opposite signs" in line]
    assert "s5" in line
    share = float(line.split(" % of")[0].split()[-1])
    assert share == pytest.approx(100 * 16 / 512, rel=0.2)


def test_a_variance_that_is_no_squared_error_is_a_warning(tmp_path, studies, cli):
    ran = cli(studies(lambda kinds: {**kinds, "variance": 20 * kinds["variance"]}), tmp_path / "out", "group", *WORDS)
    assert ran.code == 0, ran.stderr
    assert "t and effect / sqrt(variance) differ" in ran.stderr


def test_a_turned_map_is_an_error(tmp_path, studies, cli):
    ran = cli(studies(lambda kinds: {**kinds, "t": -kinds["t"]}), tmp_path / "out", "group", *WORDS)
    assert ran.code == 65
    assert "opposite signs in 100 %" in ran.stderr
    assert "study-s5" in ran.stderr
    assert not list((tmp_path / "out").glob("group/*"))


def test_maps_that_agree_raise_no_word(tmp_path, studies, cli):
    ran = cli(studies(lambda kinds: kinds), tmp_path / "out", "group", *WORDS)
    assert ran.code == 0, ran.stderr
    assert "opposite" not in ran.stderr
    assert "differ in" not in ran.stderr


def test_import_of_contradicting_maps(tmp_path, run_python):
    rng = np.random.default_rng(10)
    effect = rng.normal(size=SHAPE)
    rows = ["study_id\tcontrast\tkind\tpath\tsample_size"]
    for study, sign in (("a", 1.0), ("b", -1.0)):
        t = 3 * effect * sign
        t[0, 0] *= -1
        for kind, volume in (("effect", effect), ("t", t)):
            name = f"{study}_{kind}.nii.gz"
            nib.Nifti1Image(volume.astype(np.float32), np.diag([4.0, 4.0, 4.0, 1.0])).to_filename(tmp_path / name)
            rows.append(f"{study}\tc\t{kind}\t{name}\t20")
    (tmp_path / "maps.tsv").write_text("\n".join(rows) + "\n")
    words = ["table", str(tmp_path / "maps.tsv"), str(tmp_path / "out"), "--space", "T1w"]
    ran = run_python("-c", f"import sys; from ibma_app.cli import import_main; sys.exit(import_main({words!r}))")
    assert ran.code == 1, ran.stderr
    assert (
        "study-a_space-T1w_contrast-c: The maps contradict each other: effect and t have opposite signs" in ran.stderr
    )
    assert "turned round or of another contrast" in ran.stderr
    assert [path.name for path in (tmp_path / "out").glob("study-*")] == ["study-a"]
