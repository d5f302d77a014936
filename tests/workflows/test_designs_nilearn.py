"""Designs through the command line against nilearn's SecondLevelModel: the tutorial's and the classics."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

SHAPE = (4, 4, 3)
FACES = ("FF", "UF", "SF")
TIMES = ("Ini", "Imm", "Del")
CONDITIONS = tuple(time + face for time in TIMES for face in FACES)
SUBJECTS = tuple(f"{number:02d}" for number in range(1, 17))
FORMULA = "0 + C(contrast) + C(participant_id)"


POOLED = '[estimator.ols]\nerrors = "pooled"\n'


def write_config(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def effects() -> dict[tuple[str, str], np.ndarray]:
    rng = np.random.default_rng(11)
    subject = {sub: rng.normal(size=SHAPE) for sub in SUBJECTS}
    mean = {name: rng.normal(size=SHAPE) for name in CONDITIONS}
    return {
        (sub, name): (mean[name] + subject[sub] + rng.normal(size=SHAPE)).astype(np.float32)
        for sub in SUBJECTS
        for name in CONDITIONS
    }


def weights(condition: str) -> dict[str, float]:
    pairs = zip(CONDITIONS, _contrast(condition), strict=True)
    return {f"C(contrast)[{name}]": value for name, value in pairs if value}


def _contrast(which: str) -> list[float]:
    if which == "faces":  # familiar and unfamiliar against scrambled
        return [-1 / 3 if name.endswith("SF") else 1 / 6 for name in CONDITIONS]
    return [{"FF": 1 / 3, "UF": -1 / 3, "SF": 0.0}[name[3:]] for name in CONDITIONS]


def interaction_rows() -> list[list[float]]:
    """Time (initial, immediate, delayed) by face (familiar against unfamiliar): two rows."""
    rows = []
    for first, second in (("Ini", "Imm"), ("Imm", "Del")):
        sign = {first: 1.0, second: -1.0}
        face = {"FF": 1.0, "UF": -1.0}
        rows.append([sign.get(name[:3], 0.0) * face.get(name[3:], 0.0) for name in CONDITIONS])
    return rows


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory, describe_dataset, write_statmap) -> Path:
    root = describe_dataset(tmp_path_factory.mktemp("tutorial") / "data")
    for (sub, name), values in effects().items():
        write_statmap(root, "effect", values, sub=sub, task="faces", space="MNI152NLin2009cAsym", contrast=name)
    tests = {
        "faces": weights("faces"),
        "fame": weights("fame"),
        "interaction": [
            {f"C(contrast)[{name}]": value for name, value in zip(CONDITIONS, row, strict=True) if value}
            for row in interaction_rows()
        ],
    }
    (root.parent / "tests.json").write_text(json.dumps(tests))
    return root


def nilearn_maps(images: list[nib.Nifti1Image], design: pd.DataFrame, contrast, kind: str) -> dict[str, np.ndarray]:
    from nilearn.glm.second_level import SecondLevelModel

    mask = nib.Nifti1Image(np.ones(SHAPE, dtype=np.uint8), images[0].affine)
    model = SecondLevelModel(mask_img=mask, minimize_memory=False).fit(images, design_matrix=design)
    made = model.compute_contrast(np.asarray(contrast), second_level_stat_type=kind, output_type="all")
    names = {"effect": "effect_size", "stat": "stat", "z": "z_score"}
    return {key: made[name].get_fdata() for key, name in names.items()}


def group_map(out: Path, test: str, kind: str) -> np.ndarray:
    (path,) = (out / "group").glob(f"*_test-{test}_desc-ols_stat-{kind}_statmap.nii.gz")
    return nib.load(path).get_fdata()


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    # float32 files: 2e-5 relative, plus 1e-6 of the largest value near zero
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6 * np.abs(expected).max())


def check_tutorial(out: Path, affine: np.ndarray) -> None:
    values = effects()
    rows = [(sub, name) for sub in SUBJECTS for name in CONDITIONS]
    images = [nib.Nifti1Image(values[row], affine) for row in rows]
    condition = pd.get_dummies(pd.Series([name for _, name in rows]), dtype=float)[list(CONDITIONS)]
    subject = pd.get_dummies(pd.Series([sub for sub, _ in rows]), dtype=float).iloc[:, 1:]
    design = pd.concat([condition, subject], axis=1)
    rest = [0.0] * subject.shape[1]
    for test, contrast in (("faces", _contrast("faces")), ("fame", _contrast("fame"))):
        expected = nilearn_maps(images, design, [*contrast, *rest], "t")
        for kind, key in (("effect", "effect"), ("t", "stat"), ("z", "z")):
            assert_same(group_map(out, test, kind), expected[key])
    expected = nilearn_maps(images, design, [[*row, *rest] for row in interaction_rows()], "F")
    assert_same(group_map(out, "interaction", "F"), expected["stat"])
    # nilearn's z of F is isf(p) too
    assert_same(group_map(out, "interaction", "z"), expected["z"])


def test_tutorial_of_nine_conditions(tutorial: Path, tmp_path: Path, cli) -> None:
    ran = cli(tutorial, tmp_path, "group", "--inference", "fdr", "bonferroni",
              "--formula", FORMULA, "--contrast-file", tutorial.parent / "tests.json",
              "--config-file", write_config(tmp_path, POOLED), "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "assumes sphericity" in ran.stderr
    check_tutorial(tmp_path, nib.load(next(tutorial.rglob("*.nii.gz"))).affine)
    design = next((tmp_path / "group").glob("*_design.tsv")).read_text().splitlines()
    assert len(design) == 1 + 144
    assert not [path for path in (tmp_path / "group").iterdir() if "contrast-" in path.name]


def test_tutorial_named_by_desc(tutorial: Path, tmp_path: Path, cli, describe_dataset) -> None:
    root = describe_dataset(tmp_path / "data")
    for path in tutorial.rglob("*.nii.gz"):
        sub, name = path.name.split("_")[0], path.name.split("contrast-")[1].split("_")[0]
        folder = root / sub / "func"
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / f"{sub}_task-faces_space-MNI152NLin2009cAsym_desc-{name}_effect.nii.gz"
        copy.write_bytes(path.read_bytes())
    query = {"effect": {"suffix": "effect", "desc": "*", "stat": None}}
    (tmp_path / "filter.json").write_text(json.dumps(query))
    config = write_config(tmp_path, f'{POOLED}[inputs]\ncontrast = "desc"\n')
    ran = cli(root, tmp_path / "out", "group", "--inference", "fdr", "bonferroni",
              "--formula", FORMULA, "--contrast-file", tutorial.parent / "tests.json",
              "--bids-filter-file", tmp_path / "filter.json", "--config-file", config,
              "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    check_tutorial(tmp_path / "out", nib.load(next(tutorial.rglob("*.nii.gz"))).affine)


def test_summary_statistic_route(tutorial: Path, tmp_path: Path, cli) -> None:
    ran = cli(tutorial, tmp_path, "group", "--compute", "FacesScrambled=(IniFF+IniUF)/2-IniSF", "--contrast",
              "FacesScrambled", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    values = effects()
    differences = np.stack([
        (values[sub, "IniFF"].astype(float) + values[sub, "IniUF"]) / 2 - values[sub, "IniSF"] for sub in SUBJECTS
    ])  # fmt: skip
    expected = stats.ttest_1samp(differences, 0.0, axis=0)
    (path,) = (tmp_path / "group").glob("*_contrast-FacesScrambled_desc-ols_stat-t_statmap.nii.gz")
    assert_same(nib.load(path).get_fdata(), expected.statistic)
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert len(sidecar["Sources"]) == 48


def test_paired(tutorial: Path, tmp_path: Path, cli) -> None:
    ran = cli(tutorial, tmp_path, "group", "--contrast", "IniFF", "IniUF", "--formula", FORMULA, "--test",
              "paired=C(contrast)[IniFF] - C(contrast)[IniUF]", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    values = effects()
    one, other = (np.stack([values[sub, name].astype(float) for sub in SUBJECTS]) for name in ("IniFF", "IniUF"))
    assert_same(group_map(tmp_path, "paired", "t"), stats.ttest_rel(one, other, axis=0).statistic)


def test_two_samples_with_a_covariate_and_anova(tutorial: Path, tmp_path: Path, cli) -> None:
    ages = np.linspace(20, 60, 16) ** 1.1
    groups = [("a", "b", "c")[index % 3] for index in range(16)]
    lines = [f"sub-{sub}\t{age}\t{group}" for sub, age, group in zip(SUBJECTS, ages, groups, strict=True)]
    (tmp_path / "covariates.tsv").write_text("\n".join(["participant_id\tage\tgroup", *lines]) + "\n")
    ran = cli(tutorial, tmp_path / "out", "group", "--contrast", "IniFF", "--covariates", tmp_path / "covariates.tsv",
              "--formula", "0 + C(group) + age", "--test", "ab=C(group)[a] - C(group)[b]",
              "any=C(group)[a] - C(group)[b], C(group)[b] - C(group)[c]", "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    values = effects()
    affine = nib.load(next(tutorial.rglob("*.nii.gz"))).affine
    images = [nib.Nifti1Image(values[sub, "IniFF"], affine) for sub in SUBJECTS]
    design = pd.get_dummies(pd.Series(groups), dtype=float)
    design["age"] = ages
    expected = nilearn_maps(images, design, [1, -1, 0, 0], "t")
    for kind, key in (("effect", "effect"), ("t", "stat"), ("z", "z")):
        assert_same(group_map(tmp_path / "out", "ab", kind), expected[key])
    expected = nilearn_maps(images, design, [[1, -1, 0, 0], [0, 1, -1, 0]], "F")
    assert_same(group_map(tmp_path / "out", "any", "F"), expected["stat"])
