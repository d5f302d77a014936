"""What the headers of written maps say: intent with degrees of freedom, units, description."""

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.grid import Grid
from ibma_app.dataset.write import save_statmap
from ibma_app.images.read import read_image


@pytest.fixture(scope="module")
def headers(tmp_path_factory, describe_dataset, write_statmap, cli):
    """The headers of two groups' maps: by ols (dof 6 everywhere) and reml (voxelwise)."""
    root = describe_dataset(tmp_path_factory.mktemp("headers") / "in")
    rng, rows = np.random.default_rng(2), ["participant_id\tgroup"]
    for sub in range(9):
        rows.append(f"sub-{sub:02d}\t{'abc'[sub % 3]}")
        names = {"sub": f"{sub:02d}", "space": "T1w", "contrast": "c"}
        write_statmap(root, "effect", rng.normal(1, 1, (4, 4, 3)), **names)
        write_statmap(root, "variance", rng.uniform(0.2, 0.6, (4, 4, 3)), **names)
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    out = root.parent / "out"
    test = ("--test", "any=C(group)[T.b], C(group)[T.c]", "b=C(group)[T.b]")
    words = ("--formula", "1 + C(group)", *test, "--inference", "fdr", "--no-report")
    ran = cli(root, out, "group", "--estimator", "ols", "fixed-effects", *words)
    assert ran.code == 0, ran.stderr
    found = {path.name.removeprefix("space-T1w_contrast-c_"): nib.load(path).header for path in out.rglob("*.nii.gz")}
    return {name.removesuffix("_statmap.nii.gz"): header for name, header in found.items()}


@pytest.mark.parametrize(
    ("name", "intent"),
    [
        ("test-b_desc-ols_stat-t", ("t test", (6.0,), "t")),  # 9 maps, 3 columns
        ("test-any_desc-ols_stat-F", ("f test", (2.0, 6.0), "F")),
        ("test-b_desc-ols_stat-z", ("z score", (), "z")),
        ("test-b_desc-ols_stat-p", ("p value", (), "p")),
        ("test-b_desc-ols_stat-log10p", ("log10 p value", (), "log10p")),
        ("test-b_desc-ols_corr-fdr_stat-z", ("z score", (), "z")),
        ("test-b_desc-ols_corr-fdr_stat-log10p", ("log10 p value", (), "log10p")),
        ("test-b_desc-ols_stat-effect", ("none", (), "effect")),
        ("desc-ols_stat-n", ("none", (), "n")),
    ],
)
def test_intents(headers, name, intent):
    assert headers[name].get_intent() == intent


def test_units_and_words(headers):
    for name, header in headers.items():
        assert header.get_xyzt_units() == ("mm", "sec"), name
        assert bytes(header["descrip"].tobytes()).startswith(b"ibma-app: "), name
    words = headers["test-b_desc-ols_stat-t"]["descrip"].item().decode()
    assert words.startswith("ibma-app: t statistic, by ")
    assert len(words) <= 79


@pytest.mark.parametrize(
    ("kind", "dof", "code"),
    [("t", 12.5, 3), ("t", "voxelwise", 0), ("t", None, 0), ("F", 12, 0), ("z", "voxelwise", 5), ("variance", 12, 0)],
)
def test_degrees_of_freedom_that_are_not_one_number_are_not_promised(tmp_path, kind, dof, code):
    from ibma_app.dataset.output_dir import open_output

    grid = Grid.whole(np.diag([2.0, 2, 2, 1]), (3, 3, 3))
    with open_output(tmp_path) as output:
        sidecar = {"DegreesOfFreedom": dof, "Description": "größer " * 20}
        path = save_statmap(output, f"a_stat-{kind}_statmap.nii", np.arange(27.0), grid, sidecar=sidecar)
    header = nib.load(path).header
    assert int(header["intent_code"]) == code
    assert header["intent_name"].item().decode() == kind
    assert float(header["intent_p1"]) == (12.5 if code == 3 else 0.0)
    np.testing.assert_array_equal(read_image(path).data.ravel(), np.arange(27.0).reshape(3, 3, 3).ravel())
