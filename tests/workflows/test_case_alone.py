"""Labels that differ in case alone are refused or numbered: many file systems take their files for one."""

import nibabel as nib
import numpy as np
import pytest

SHAPE = (5, 5, 5)


@pytest.fixture
def maps(tmp_path, write_statmap, describe_dataset):
    """Return ``maps(*entities)``: four subjects' effects (and variances) for each set of entities."""

    def make(*entities):
        rng = np.random.default_rng(2)
        root = describe_dataset(tmp_path / "in")
        for row in range(4):
            for one in entities:
                for kind in ("effect", "variance"):
                    values = rng.uniform(0.5, 1.5, size=SHAPE)
                    about = {"DegreesOfFreedom": 30}
                    write_statmap(root, kind, values, metadata=about, **{"sub": f"0{row}", "contrast": "a", **one})
        return root

    return make


CONTRASTS, TASKS, DESCS = (tuple({key: label} for label in labels) for key, labels in (
    ("contrast", ("faces", "Faces")), ("task", ("nback", "nBack")), ("desc", ("x", "X"))))  # fmt: skip


@pytest.mark.parametrize(
    ("level", "one", "other", "advice"),
    [
        ("participant", *CONTRASTS, "--contrast Faces, then --contrast faces"),
        ("participant", *TASKS, "--task-id nBack, then --task-id nback"),
        ("participant", *DESCS, "Rename the maps of one"),
        ("group", *CONTRASTS, "--contrast Faces, then --contrast faces"),
        ("group", *TASKS, "--task-id nBack, then --task-id nback"),
    ],
)
def test_results_whose_names_differ_in_case_alone(maps, tmp_path, cli, level, one, other, advice):
    root = maps(one, other)
    ran = cli(root, tmp_path / "out", level, "--no-report")
    assert ran.code == 16
    assert "differ in case alone" in ran.stderr
    assert advice in ran.stderr
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_the_advice_works(maps, tmp_path, cli):
    root = maps({"contrast": "faces"}, {"contrast": "Faces"})
    for label in ("faces", "Faces"):
        ran = cli(root, tmp_path / label, "group", "--no-report", "--estimator", "ols", "--contrast", label)
        assert ran.code == 0, ran.stderr
        assert list((tmp_path / label / "group").glob(f"*contrast-{label}_*stat-t_statmap.nii.gz"))


def test_participants_whose_labels_differ_in_case_alone(maps, tmp_path, cli):
    ran = cli(maps({"sub": "a1"}, {"sub": "A1"}), tmp_path / "out", "participant", "--no-report")
    assert ran.code == 16
    assert "--participant-label" in ran.stderr


def test_tests_whose_names_differ_in_case_alone(maps, tmp_path, cli):
    words = ("--test", "mean=intercept", "Mean=2*intercept", "--estimator", "ols")
    ran = cli(maps({}), tmp_path / "out", "group", "--no-report", *words)
    assert ran.code == 64
    assert "'mean'" in ran.stderr
    assert "'Mean'" in ran.stderr


def table_of(tmp_path, write_statmap, rows):
    lines = ["study_id\tpath\tkind\tcontrast\tspace\tsample_size"]
    for number, (study, contrast) in enumerate(rows):
        values = np.random.default_rng(number).standard_t(19, size=SHAPE)
        path = write_statmap(tmp_path / "maps", "t", values, sub=str(number), contrast="x")
        lines.append(f"{study}\t{path}\tt\t{contrast}\tT1w\t20")
    table = tmp_path / f"maps{len(rows)}{rows[0][0]}.tsv"
    table.write_text("\n".join(lines))
    return table


def test_imported_contrasts_of_one_study_are_numbered(tmp_path, write_statmap, ibma_import):
    table = table_of(tmp_path, write_statmap, [("a", "Faces"), ("a", "faces"), ("a", "other")])
    ran = ibma_import("table", table, tmp_path / "out")
    assert ran.code == 0, ran.stderr
    assert "2 contrasts are called 'Faces' and 'faces' (case aside)" in ran.stderr
    names = sorted(path.name.split("contrast-")[1].split("_")[0] for path in (tmp_path / "out").rglob("*.nii.gz"))
    assert names == ["Faces1", "faces2", "other"]
    (path,) = (tmp_path / "out").rglob("*contrast-faces2_*.nii.gz")
    expected = np.random.default_rng(1).standard_t(19, size=SHAPE).astype(np.float32)
    np.testing.assert_array_equal(nib.load(path).get_fdata().astype(np.float32), expected)


def test_imported_studies_are_refused(tmp_path, write_statmap, ibma_import):
    table = table_of(tmp_path, write_statmap, [("Smith", "x"), ("smith", "x")])
    ran = ibma_import("table", table, tmp_path / "out")
    assert ran.code == 16
    assert "'Smith' and 'smith' would both be study-Smith" in ran.stderr


def test_a_later_import_is_refused(tmp_path, write_statmap, ibma_import):
    assert ibma_import("table", table_of(tmp_path, write_statmap, [("Smith", "x")]), tmp_path / "out").code == 0
    ran = ibma_import("table", table_of(tmp_path, write_statmap, [("smith", "x")]), tmp_path / "out")
    assert ran.code == 16
    assert "differs from it in case alone" in ran.stderr
