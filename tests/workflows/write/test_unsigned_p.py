"""p maps without a sign: their z is that of evidence in whatever direction, and nothing says otherwise."""

from pathlib import Path

import numpy as np

from ibma_app.workflows.write.saved_results import find_records, read_record


def test_pages_and_texts_of_p_without_a_sign(tmp_path: Path, describe_dataset, write_statmap, cli) -> None:
    root, rng = describe_dataset(tmp_path / "in"), np.random.default_rng(4)
    for number in range(5):
        p = rng.uniform(0.001, 0.999, (8, 8, 6))
        p[:3, :3, :3] = 1e-4
        write_statmap(
            root, "p", p, metadata={"SampleSize": 20}, study=f"{number}", space="MNI152NLin6Asym", contrast="x"
        )
    ran = cli(root, tmp_path / "out", "group", "--mask", "data", "--grid", "common", "--atlas", "none")
    assert ran.code == 0, ran.stderr
    (record,) = find_records(tmp_path / "out", "group").values()
    (test,) = read_record(record, tmp_path / "out").results.design.tests
    assert (test.unsigned, test.signed, test.tail) == (True, False, "positive")
    (page,) = (tmp_path / "out").glob("group_*.html")
    text = page.read_text(encoding="utf-8")
    assert "evidence of all maps together, whatever its direction" in text
    assert "for a positive mean" not in text
    assert "Smallest z" not in text
    assert ">largest z<" in text
    assert ">smallest z<" not in text  # it would be the least evidence, not evidence in the other direction
