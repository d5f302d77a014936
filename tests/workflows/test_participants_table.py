"""participants.tsv in OUTPUT_DIR: who was combined, as the input's table has them; nothing is overwritten."""

import json

import numpy as np
import pytest

SOURCE = "participant_id\tage\tgroup\nsub-01\t31\tpatient\nsub-02\t24\tcontrol\nsub-03\tn/a\tcontrol\n"


@pytest.fixture
def maps(tmp_path, describe_dataset, write_statmap):
    root = describe_dataset(tmp_path / "in")
    rng = np.random.default_rng(2)
    for sub in ("01", "02", "03", "04", "05"):
        names = {"sub": sub, "space": "T1w", "contrast": "c"}
        write_statmap(root, "effect", rng.normal(1, 1, (3, 3, 2)), **names, metadata={"DegreesOfFreedom": 30})
        write_statmap(root, "variance", rng.uniform(0.2, 0.6, (3, 3, 2)), **names)
    return root


def combine(cli, maps, out, *words):
    ran = cli(maps, out, "participant", "--no-report", "--nprocs", "1", *words)
    assert ran.code == 0, ran.stderr
    return ran


def test_rows_are_those_of_the_input(cli, maps, tmp_path):
    (maps / "participants.tsv").write_text(SOURCE)
    (maps / "participants.json").write_text(json.dumps({"age": {"Description": "Age", "Units": "years"}}))
    combine(cli, maps, tmp_path / "out", "--participant-label", "01", "03", "05")
    table = tmp_path / "out" / "participants.tsv"
    assert table.read_text() == (
        "participant_id\tage\tgroup\nsub-01\t31\tpatient\nsub-03\tn/a\tcontrol\nsub-05\tn/a\tn/a\n"
    )
    described = json.loads(table.with_suffix(".json").read_text())
    assert described["age"] == {"Description": "Age", "Units": "years"}
    assert described["participant_id"] == {"Description": "Participant"}
    combine(cli, maps, tmp_path / "out", "--participant-label", "02")  # another job
    assert [line.split("\t")[0] for line in table.read_text().splitlines()[1:]] == [
        "sub-01",
        "sub-02",
        "sub-03",
        "sub-05",
    ]


def test_without_a_table_there_are_labels(cli, maps, tmp_path):
    combine(cli, maps, tmp_path / "out")
    rows = (tmp_path / "out" / "participants.tsv").read_text().split()
    assert rows == ["participant_id", "sub-01", "sub-02", "sub-03", "sub-04", "sub-05"]


def test_what_is_there_stays(cli, maps, tmp_path):
    (maps / "participants.tsv").write_text(SOURCE)
    out = tmp_path / "out"
    out.mkdir()
    mine = "participant_id\tnote\nsub-02\tmy own words\n"
    (out / "participants.tsv").write_text(mine)
    combine(cli, maps, out, "--participant-label", "02")
    assert (out / "participants.tsv").read_text() == mine
    combine(cli, maps, out, "--participant-label", "01")
    assert (out / "participants.tsv").read_text().splitlines() == [
        "participant_id\tnote\tage\tgroup", "sub-01\tn/a\t31\tpatient", "sub-02\tmy own words\tn/a\tn/a",
    ]  # fmt: skip
    (out / "participants.tsv").write_text("no table of participants\n")
    ran = combine(cli, maps, out, "--participant-label", "03")
    assert "The participants are not listed" in ran.stderr
    assert (out / "participants.tsv").read_text() == "no table of participants\n"


def test_covariates_are_those_of_the_input_not_of_the_copy(cli, maps, tmp_path):
    ages = [31, 24, 45, 52, 38]
    lines = [f"sub-{k:02d}\t{age}" for k, age in enumerate(ages, start=1)]
    (maps / "participants.tsv").write_text("\n".join(["participant_id\tage", *lines]) + "\n")
    out = tmp_path / "out"
    combine(cli, maps, out)
    lines = [f"sub-{k:02d}\t{age + 7 * k}" for k, age in enumerate(ages, start=1)]  # corrected afterwards
    (maps / "participants.tsv").write_text("\n".join(["participant_id\tage", *lines]) + "\n")
    words = ("--formula", "1 + age", "--estimator", "ols", "--inference", "fdr", "--no-report")
    ran = cli(maps, out, "group", *words)
    assert ran.code == 0, ran.stderr
    (design,) = out.glob("group/*_desc-ols_design.tsv")
    head, *rows = [line.split("\t") for line in design.read_text().splitlines()]
    assert [float(row[head.index("age")]) for row in rows] == [age + 7 * k for k, age in enumerate(ages, start=1)]
