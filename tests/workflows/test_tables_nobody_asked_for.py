"""A defect of participants.tsv stops only what needs it; studies.tsv is always needed, for it holds sample sizes."""

import nibabel as nib
import numpy as np
import pytest

QUICK = ("--estimator", "ols", "--inference", "fdr", "--no-report", "--nprocs", "1")
HEAD = {"sub": "participant_id", "study": "study_id"}
DEFECTS = {
    "a row twice": "{head}\tage\n{unit}1\t20\n{unit}1\t21\n",
    "no key column": "name\tage\na\t20\n",
    "commas": "{head},age\n{unit}1,20\n",
    "rows of several lengths": "{head}\tage\n{unit}1\t20\t3\n{unit}2\n",
    "two columns of one name": "{head}\tage\tage\n{unit}1\t20\t21\n",
    "a row without a name": "{head}\tage\nn/a\t20\n",
    "nothing": "",
    "other encodings": "{head}\tname\n{unit}1\tJ\udce9r\udcf4me\n",
}


@pytest.fixture(scope="module")
def maps(tmp_path_factory, describe_dataset, write_statmap):
    """Return a function that makes a dataset of five maps of subjects or studies."""
    rng, made = np.random.default_rng(5), {}
    values = rng.normal(1, 1, (5, 4, 4, 3))
    for unit in HEAD:
        made[unit] = describe_dataset(tmp_path_factory.mktemp(unit))
        for number in range(5):
            told = {"Units": "percent", "SampleSize": 20}
            names = {unit: str(number + 1), "space": "T1w", "contrast": "a"}
            write_statmap(made[unit], "effect", values[number], metadata=told, **names)
    return made, values.mean(axis=0)


@pytest.mark.parametrize("unit", HEAD)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_table_is_judged_where_it_is_needed(unit, defect, maps, tmp_path, cli):
    made, mean = maps
    root = tmp_path / "in"
    root.mkdir()
    for path in made[unit].iterdir():
        (root / path.name).symlink_to(path)
    text = DEFECTS[defect].format(head=HEAD[unit], unit="sub-" if unit == "sub" else "study-")
    table = root / ("participants.tsv" if unit == "sub" else "studies.tsv")
    table.write_bytes(text.encode("utf-8", "surrogateescape"))
    asked = cli(root, tmp_path / "asked", "group", "--formula", "1 + age", "--dry-run", *QUICK)
    assert asked.code == 65, asked.stderr
    assert table.name in asked.stderr
    ran = cli(root, tmp_path / "out", "group", *QUICK)
    if unit == "study":
        assert (ran.code, ran.stderr) == (65, asked.stderr)
        return
    assert ran.code == 0, ran.stderr
    (effect,) = (tmp_path / "out").rglob("*_stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(effect).get_fdata(), mean, atol=1e-6)
