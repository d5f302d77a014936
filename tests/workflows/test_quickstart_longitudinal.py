"""The commands of docs/quickstart-longitudinal.md on data of known truth: they run, and they find it."""

import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bids.layout import BIDSLayout
from scipy import stats

from ibma_app import pybids_config

PAGE = Path(__file__).parents[2] / "docs" / "quickstart-longitudinal.md"
SHAPE = (6, 5, 4)
SPACE = "MNI152NLin2009cAsym"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


@pytest.fixture(scope="module")
def maps(tmp_path_factory, describe_dataset, write_statmap) -> Path:
    """Patients whose effect grows from visit to visit in some voxels; a fifth of the later visits are missing."""
    root, rng = describe_dataset(tmp_path_factory.mktemp("visits") / "maps"), np.random.default_rng(11)
    grows = np.zeros(SHAPE)
    grows[:2] = 1.5
    people, visits = ["participant_id\tgroup"], ["participant_id\tsession\tmonths\tgroup"]
    for number in range(1, 21):
        sub, group, own = f"{number:02d}", "control" if number % 2 else "patient", rng.normal(size=SHAPE)
        people.append(f"sub-{sub}\t{group}")
        for session in (1, 2, 3):
            if session > 1 and rng.random() < 0.2:
                continue
            values = own + 0.7 * rng.normal(size=SHAPE) + grows * (session - 1) * (group == "patient")
            write_statmap(
                root, "effect", values, sub=sub, ses=str(session), task="faces", space=SPACE, contrast="faces"
            )
            visits.append(f"sub-{sub}\t{session}\t{6 * (session - 1) + rng.uniform(0, 1):.2f}\t{group}")
    (root / "participants.tsv").write_text("\n".join(people) + "\n")
    (root / "visits.tsv").write_text("\n".join(visits) + "\n")
    return root


def read(out: Path, test: str, kind: str, estimator: str = "randomIntercept") -> np.ndarray:
    (path,) = (out / "group").glob(f"*_test-{test}_desc-{estimator}_stat-{kind}_statmap.nii.gz")
    return nib.load(path).get_fdata()


@pytest.mark.slow
def test_the_commands_of_the_page(maps: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "maps").symlink_to(maps, target_is_directory=True)
    told = commands()
    assert len(told) == 4
    assert all(words[0] == "ibma-app" for words in told)
    for words in told:
        ran = cli(*words[1:], "--permutations", "60", "--nprocs", "1", cwd=tmp_path)
        assert ran.code == 0, ran.stderr
        if "--dry-run" in words:
            assert "random-intercept" in ran.stdout
            assert not (tmp_path / "results").exists()
    assert "20 independent participants" in ran.stderr
    # truth: patients change in the first third of the voxels, nobody does elsewhere
    p = read(tmp_path / "results", "change", "p")
    assert (p[:2] < 0.001).mean() > 0.9
    assert 0.0 <= (p[2:] < 0.05).mean() < 0.15
    later = read(tmp_path / "results", "later", "effect")
    assert later[:2].mean() == pytest.approx(1.5, abs=0.15)
    assert later[2:].mean() == pytest.approx(0.0, abs=0.15)
    faster = read(tmp_path / "results-months", "faster", "effect")
    assert 6 * faster[:2].mean() == pytest.approx(1.5, abs=0.2)
    icc = nib.load(next((tmp_path / "results" / "group").glob("*_stat-icc_*.nii.gz"))).get_fdata()
    assert icc.mean() == pytest.approx(1 / 1.49, abs=0.06)
    robust = read(tmp_path / "results-robust", "change", "z", "ols")
    z = read(tmp_path / "results", "change", "z")
    assert stats.spearmanr(robust.ravel(), z.ravel()).statistic > 0.85
    scheme = next((tmp_path / "results" / "group").glob("*_test-groups_*_corr-maxStat_stat-log10p_statmap.json"))
    assert json.loads(scheme.read_text())["Inference"]["Scheme"] == "sign flips of residuals of whole clusters"
    page = next((tmp_path / "results").glob("group_*.html")).read_text()
    assert "session 2, group patient" in page or "group patient, session 2" in page
    assert "% of the variance lies between participants" in re.sub(r"<[^>]*>", "", page)
    check_cells(tmp_path / "results", page)
    (query,) = re.findall(r"`layout(\.get\(.*randomIntercept.*\))`", (PAGE.parent / "python.md").read_text())
    layout = BIDSLayout(tmp_path / "results", validate=False, config=[str(pybids_config)])
    (mask,) = eval(f"layout{query}", {"layout": layout})  # the page's own words
    assert "_test-change_desc-randomIntercept_corr-maxStat_stat-z_" in mask.filename
    dofs = re.search(r"<dt>dof</dt><dd>([^<]*)</dd>", page)
    assert dofs is not None
    for name in ("groups", "change"):  # each test has its own
        dof = read(tmp_path / "results", name, "dof")
        assert f"{name}: {dof.min():g} to {dof.max():g}" in dofs[1]


def check_cells(out: Path, page: str) -> None:
    """The table of cells: what the model says of a difference of two cells is the difference of their means."""
    (table,) = (out / "group").glob("*_test-change_desc-randomIntercept_cells.tsv")
    assert f'href="group/{table.name}"' in page
    cells = pd.read_csv(table, sep="\t")
    first = cells[cells["peak"] == cells["peak"][0]].set_index("cell")
    assert len(first) == 6
    assert 40 < first["maps"].sum() < 60
    (path,) = (out / "group").glob("*_test-later_desc-randomIntercept_stat-effect_statmap.nii.gz")
    image = nib.load(path)
    x, y, z = np.linalg.inv(image.affine) @ [*first.iloc[0][["x", "y", "z"]].astype(float), 1.0] @ np.eye(4)[:, :3]
    mean = first["mean"].rename(lambda cell: ", ".join(sorted(cell.split(", "))))
    later = mean["group patient, session 2"] - mean["group patient, session 1"]
    assert later == pytest.approx(image.get_fdata()[round(x), round(y), round(z)], rel=1e-4)
    half = stats.t.isf(0.025, first["dof"]) * first["se"]
    np.testing.assert_allclose(first["upper"] - first["mean"], half, rtol=1e-4)
    np.testing.assert_allclose(first["mean"] - first["lower"], half, rtol=1e-4)
