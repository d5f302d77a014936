"""Which maps a run takes: filter files, exclusions, spaces that names do not state, long names, names of datasets."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SHAPE = (3, 4, 2)
DOCS = Path(__file__).resolve().parents[3] / "docs"
OLS = ("--estimator", "ols", "--no-report")


@pytest.fixture
def dataset(tmp_path, describe_dataset):
    return describe_dataset(tmp_path / "in")


def save(root, name, values):
    path = root / name.partition("_")[0] / "func" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(values.astype(np.float32), np.diag([4.0, 4, 4, 1])).to_filename(path)


def one(root, pattern):
    (path,) = root.rglob(pattern)
    return path


def values_of(root, pattern):
    return nib.load(one(root, pattern)).get_fdata()


def content_of(root, pattern):
    return json.loads(one(root, pattern).read_text())


def pooled(effect, variance):
    return (effect / variance).sum(axis=0) / (1 / variance).sum(axis=0)


FILTERS = {
    "docs": None,
    "suffixes": {"effect": {"suffix": "beta"}, "variance": {"suffix": "varbeta"}},
    "stats": {"effect": {"stat": "beta"}, "variance": {"stat": "varbeta"}},
    "desc and suffix": {"effect": {"desc": "b", "suffix": "map"}, "variance": {"desc": "v", "suffix": "map"}},
}
NAMES = {
    "docs": ("desc-beta_statmap", "desc-varbeta_statmap"),
    "suffixes": ("beta", "varbeta"),
    "stats": ("stat-beta_statmap", "stat-varbeta_statmap"),
    "desc and suffix": ("desc-b_map", "desc-v_map"),
}


@pytest.mark.parametrize("case", FILTERS)
def test_a_filter_file_says_all_and_effect_pairs_with_variance(dataset, tmp_path, cli, rng, case):
    effect, variance = rng.normal(1, 1, (4, *SHAPE)), rng.uniform(0.2, 0.9, (4, *SHAPE))
    for run in range(4):
        for name, values in zip(NAMES[case], (effect[run], variance[run]), strict=True):
            save(dataset, f"sub-01_task-x_run-{run}_contrast-a_{name}.nii.gz", values)
        # what the filter file does not ask for stays out
        save(dataset, f"sub-01_task-x_run-{run}_contrast-a_stat-effect_statmap.nii.gz", values * 0 + 7)
        save(dataset, f"sub-01_task-x_run-{run}_contrast-a_desc-other_statmap.nii.gz", values * 0 + 9)
    (text,) = re.findall(r"```json\n(\{\"effect\".*?)```", (DOCS / "usage.md").read_text(), re.S)
    path = tmp_path / "filter.json"
    path.write_text(text if FILTERS[case] is None else json.dumps(FILTERS[case]))
    ran = cli(dataset, tmp_path / "out", "participant", "--dof", 50, "--bids-filter-file", path, "--no-report")
    assert ran.code == 0, ran.stderr
    found = values_of(tmp_path / "out", "*stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(found, pooled(effect, variance), rtol=1e-5)


def test_a_filter_file_that_selects_nothing_does_not_let_other_kinds_in(dataset, tmp_path, cli, rng):
    for sub in ("01", "02", "03"):
        for kind in ("effect", "t"):
            save(dataset, f"sub-{sub}_contrast-a_stat-{kind}_statmap.nii.gz", rng.normal(size=SHAPE))
    path = tmp_path / "filter.json"
    path.write_text('{"effect": {"desc": "smooth"}}')
    ran = cli(dataset, tmp_path / "out", "group", "--bids-filter-file", path)
    assert ran.code == 18
    assert '0 with desc "smooth"' in ran.stderr


@pytest.mark.parametrize("form", ["words", "prefix", "file"])
@pytest.mark.parametrize("unit", ["sub", "study"])
def test_subjects_and_studies_are_excluded(dataset, tmp_path, cli, write_statmap, rng, unit, form):
    effects = rng.normal(1, 1, (5, *SHAPE))
    for number, values in enumerate(effects):
        write_statmap(dataset, "effect", values, contrast="a", **{unit: f"{number:02d}"})
    flag = "--exclude-participant-label" if unit == "sub" else "--exclude-study-label"
    (tmp_path / "labels.txt").write_text(f"{unit}-01\n03\n")
    words = {"words": ["01", "03"], "prefix": [f"{unit}-01", f"{unit}-03"], "file": [tmp_path / "labels.txt"]}[form]
    ran = cli(dataset, tmp_path / "out", "group", flag, *words, *OLS, "--mask", "data", "--units", "assume-same")
    assert ran.code == 0, ran.stderr
    assert "nothing to exclude" not in ran.stderr
    found = values_of(tmp_path / "out", "*stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(found, effects[[0, 2, 4]].mean(axis=0), rtol=1e-4)


def test_excluding_whom_there_is_not_and_excluding_all(dataset, tmp_path, cli, write_statmap, rng):
    for sub in ("01", "02", "03"):
        write_statmap(dataset, "effect", rng.normal(size=SHAPE), sub=sub, contrast="a")
    ran = cli(dataset, tmp_path / "out", "group", "--dry-run", "--exclude-participant-label", "03", "99")
    assert ran.code == 0
    assert "No map has sub-99" in ran.stderr
    assert [f"sub-{sub}" in ran.stdout for sub in ("01", "02", "03")] == [True, True, False]
    ran = cli(dataset, tmp_path / "out", "group", "--exclude-participant-label", "01", "02", "03")
    assert ran.code == 18
    assert "0 with no sub-01, 02, 03" in ran.stderr


def test_a_space_that_names_do_not_state_is_recorded_and_used(dataset, tmp_path, cli, write_statmap, rng):
    affine = np.diag([30.0, 36.0, 40.0, 1.0])  # a brain's box, at a guess
    affine[:3, 3] = (-75, -110, -60)
    effects = rng.normal(1, 1, (4, 6, 6, 4))
    for number, values in enumerate(effects):
        space = {"space": "MNI152NLin6Asym"} if number == 3 else {}
        write_statmap(dataset, "effect", values, study=f"s{number}", contrast="a", affine=affine, **space)
    words = (*OLS[:2], "--units", "assume-same", "--inference", "uncorrected")
    refused = cli(dataset, tmp_path / "none", "group", *words)
    assert refused.code == 16
    ran = cli(dataset, tmp_path / "out", "group", *words, "--space-is", "MNI152NLin6Asym")
    assert ran.code == 0, ran.stderr
    name = "space-MNI152NLin6Asym_contrast-a_desc-ols_stat-effect_statmap"
    assert content_of(tmp_path / "out", f"{name}.json")["SpaceSource"] == (
        "--space-is MNI152NLin6Asym (3 of 4 maps state none)"
    )
    found = values_of(tmp_path / "out", f"{name}.nii.gz")
    inside = found != 0
    assert 0 < inside.sum() < inside.size, "studies in MNI space are kept within its brain"
    np.testing.assert_allclose(found[inside], effects.mean(axis=0)[inside], rtol=1e-4)
    (page,) = (tmp_path / "out").glob("group_*.html")
    assert '"backdrop": null' not in page.read_text()
    assert cli(dataset, tmp_path / "bad", "group", *words, "--space-is", "not a label").code == 64


@pytest.mark.parametrize("words", [(), ("--test", "slope=age", "--formula", "1 + age"), ("--formula", "1 + age")])
def test_names_that_would_be_too_long_are_shortened_before_anything_is_computed(
    dataset, tmp_path, cli, write_statmap, rng, words
):
    label = "Faces" * 38  # 190 letters: the input's name is just short enough
    effects = rng.normal(1, 1, (6, *SHAPE))
    for number, values in enumerate(effects):
        write_statmap(dataset, "effect", values, sub=f"{number:02d}", contrast=label)
    rows = "\n".join(f"sub-{number:02d}\t{20 + number**2}" for number in range(6))
    (dataset / "participants.tsv").write_text(f"participant_id\tage\n{rows}\n")
    ran = cli(dataset, tmp_path / "out", "group", "--estimator", "ols", "--inference", "bonferroni", *words)
    assert ran.code == 0, ran.stderr
    assert max(len(path.name) for path in (tmp_path / "out").rglob("*")) <= 255
    test = "_test-intercept" if words[:1] == ("--formula",) else "_test-slope" if words else ""
    content = content_of(tmp_path / "out", f"*{test}_desc-ols_stat-effect_statmap.json")
    assert content["Contrast"] == label
    assert content["FullLabels"] == {"contrast": label}
    if not words:
        found = values_of(tmp_path / "out", "*desc-ols_stat-effect_statmap.nii.gz")
        np.testing.assert_allclose(found, effects.mean(axis=0), rtol=1e-4)


def test_long_names_of_two_contrasts_stay_apart(dataset, tmp_path, cli, write_statmap, rng):
    labels = ["Faces" * 38 + end for end in "ab"]
    for sub in ("01", "02", "03"):
        for label in labels:
            write_statmap(dataset, "effect", rng.normal(size=SHAPE), sub=sub, contrast=label)
    ran = cli(dataset, tmp_path / "out", "group", *OLS)
    assert ran.code == 0, ran.stderr
    found = [json.loads(p.read_text())["Contrast"] for p in (tmp_path / "out").rglob("*_stat-effect_statmap.json")]
    assert sorted(found) == labels


def test_a_second_dataset_of_one_folder_name_gets_another_name(tmp_path, cli, describe_dataset, write_statmap, rng):
    roots = [describe_dataset(tmp_path / place / "subjects", name=place) for place in ("data", "results", "more")]
    for number, root in enumerate(roots):
        for sub in ("01", "02", "03"):
            write_statmap(root, "effect", rng.normal(size=SHAPE), sub=sub, contrast=f"c{number}")
    out = tmp_path / "out"
    for root in (*roots, roots[1]):
        ran = cli(roots[0], out, "group", "-d", root, *OLS)
        assert ran.code == 0, ran.stderr
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    assert links == {
        "subjects": "../data/subjects", "subjects-2": "../results/subjects", "subjects-3": "../more/subjects",
    }  # fmt: skip
    for number, name in enumerate(links):
        content = content_of(out, f"contrast-c{number}_*stat-effect_statmap.json")
        assert {uri.split(":")[1] for uri in content["Sources"]} == {name}
    ran = cli(roots[0], out, "group", "-d", f"subjects={roots[1]}", *OLS)
    assert ran.code == 64  # a name that is stated is meant
