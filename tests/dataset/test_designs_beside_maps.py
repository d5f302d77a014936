"""Degrees of freedom of the design matrices beside maps, as nilearn and FitLins name them."""

import numpy as np
import pytest

from ibma_app.dataset.sidecars import DesignReader

MAP = "sub-01/sub-01_task-a_{run}contrast-aGtB_stat-t_statmap.nii.gz"


def table(rows, columns, *, twice=False, seed=3):
    """Write a design of ``columns`` independent columns; ``twice``: and a copy of the first."""
    values = np.random.default_rng(seed).normal(size=(rows, columns)) * 10.0 ** -np.arange(columns)
    if twice:
        values = np.column_stack([values, values[:, 0]])
    lines = [
        "\t".join(f"x{k}" for k in range(values.shape[1])),
        *("\t".join(map(repr, row)) for row in values.tolist()),
    ]
    return "\n".join(lines) + "\n"


ONE, TWO = table(40, 4), table(50, 5, twice=True)


@pytest.mark.parametrize(
    ("name", "designs", "expected"),
    [
        (MAP.format(run=""), {"sub-01/sub-01_task-a_design.tsv": ONE}, 36),
        (MAP.format(run="run-1_"), {"sub-01/sub-01_task-a_run-1_design.tsv": ONE}, 36),
        (MAP.format(run="run-01_"), {"sub-01/sub-01_task-a_run-1_design.tsv": ONE}, 36),
        # a column that is another's copy costs nothing
        (MAP.format(run="run-2_"), {"sub-01/sub-01_task-a_run-2_design.tsv": TWO}, 45),
        # nilearn sums the contrasts of several runs, and their degrees of freedom
        (MAP.format(run=""), {f"sub-01/sub-01_task-a_run-{k}_design.tsv": d for k, d in ((1, ONE), (2, TWO))}, 81),
        ("group/contrast-x_stat-t_statmap.nii.gz", {"group/design.tsv": ONE}, 36),  # its second level, without a prefix
        # none of these is this map's
        (MAP.format(run="run-1_"), {"sub-01/sub-01_task-a_run-2_design.tsv": ONE}, None),
        (MAP.format(run=""), {"sub-01/sub-01_task-b_design.tsv": ONE}, None),
        (MAP.format(run=""), {"sub-01/sub-01_task-a_desc-x_design.tsv": ONE}, None),
        (MAP.format(run=""), {"sub-02/sub-01_task-a_design.tsv": ONE}, None),
        # nor is a table with text (ours), a square one, or half of the runs
        (MAP.format(run=""), {"sub-01/sub-01_task-a_design.tsv": "map\tintercept\nsub-01\t1\n"}, None),
        (MAP.format(run=""), {"sub-01/sub-01_task-a_design.tsv": table(4, 4)}, None),
        (MAP.format(run=""), {f"sub-01/sub-01_task-a_run-{k}_design.tsv": d for k, d in ((1, ONE), (2, ""))}, None),
    ],
)  # fmt: skip
def test_rows_less_rank(make_dataset, name, designs, expected):
    root = make_dataset({name: "", **designs})
    reader = DesignReader()
    assert reader.dof(root / name) == reader.dof(root / name) == expected
