"""Advice on what lies around the data: workers, disks, servers, native folders, sizes of groups. It is followed."""

import re
import shutil
from collections import namedtuple

import nibabel as nib
import numpy as np
import pytest

from ibma_app.stream import memory_plan
from ibma_app.stream.hedges_g import Sample, hedges_g, pool_variances

MNI = "MNI152NLin6Asym"
QUICK = ("--no-report", "--nprocs", "1")


@pytest.fixture
def subjects(tmp_path, describe_dataset, write_statmap):
    root, rng = describe_dataset(tmp_path / "in"), np.random.default_rng(1)
    for number in range(1, 7):
        names = {"sub": f"{number:02d}", "space": MNI, "contrast": "a"}
        write_statmap(root, "effect", rng.normal(1, 1, (20, 20, 20)), **names)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:9", "workers.json"])
def test_a_dask_that_does_not_answer_is_replaced_by_workers_here(address, subjects, tmp_path, cli):
    pytest.importorskip("distributed")
    (tmp_path / "workers.json").write_text('{"address": "tcp://127.0.0.1:9"}')
    words = ("group", "--estimator", "ols", "--inference", "fdr", *QUICK)
    ran = cli(subjects, tmp_path / "out", *words, "--dask", address, cwd=tmp_path)
    assert ran.code == 64, ran.stderr
    assert not (tmp_path / "out" / "group").exists()
    advised = re.search(r"say (--dask )?(local)", ran.stderr)
    assert advised, ran.stderr
    then = cli(subjects, tmp_path / "out", *words, "--dask", advised[2], cwd=tmp_path)
    assert then.code == 0, then.stderr
    assert list((tmp_path / "out").glob("group/*stat-z*"))


def test_a_work_folder_without_room(subjects, tmp_path, cli, monkeypatch):
    """Two pieces of advice: another folder, and more memory."""
    full, usage = tmp_path / "full", namedtuple("usage", "total used free")
    monkeypatch.setattr(memory_plan, "STACK_SHARE", 0.001)  # these maps are small: files from 1/1000 of memory on
    free = shutil.disk_usage

    def disk_usage(path):
        return usage(1, 1, 1000) if str(path).startswith(str(full)) else free(path)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    words = ("group", "--estimator", "ols", "--inference", "fdr", *QUICK)
    ran = cli(subjects, tmp_path / "out", *words, "--mem", "1M", "-w", full)
    least = re.search(r"--mem (\d+M)", ran.stderr)
    assert least, ran.stderr
    ran = cli(subjects, tmp_path / "out", *words, "--mem", least[1], "-w", full)
    assert ran.code == 73, ran.stderr
    assert re.search(r"has 0\.0 GiB left.*another with --work-dir, or give more memory with --mem", ran.stderr)
    assert not list((tmp_path / "out").glob("group/*"))
    for name, more in (("a", ("--mem", least[1], "-w", tmp_path / "roomy")), ("b", ("--mem", "2G", "-w", full))):
        then = cli(subjects, tmp_path / name, *words, *more)
        assert then.code == 0, then.stderr
        assert list((tmp_path / name).glob("group/*stat-z*"))


@pytest.fixture
def studies(tmp_path, write_statmap, describe_dataset):
    """Five studies of 20 people, the last of two groups."""
    root, rng = describe_dataset(tmp_path / "in"), np.random.default_rng(2)
    for number in range(1, 6):
        told = {"SampleSize": 20, "DegreesOfFreedom": 18 if number == 5 else 19}
        names = {"study": f"s{number}", "space": MNI, "contrast": "a"}
        write_statmap(root, "t", rng.normal(2, 1, (4, 4, 3)), metadata=told, **names)
    return root


def studies_table(root, *columns, **cells):
    """Write studies.tsv, the cells of the last study."""
    rows = ["\t".join(("study_id", *columns))]
    for number in range(1, 6):
        rows.append("\t".join((f"s{number}", *(str(cells[name]) if number == 5 else "n/a" for name in columns))))
    (root / "studies.tsv").write_text("\n".join(rows) + "\n")


G = ("group", "--units", "hedges-g", "--estimator", "reml", "--inference", "fdr", *QUICK)


@pytest.mark.parametrize(
    ("before", "says", "after", "size"),
    [
        ({}, r"give (n1) and (n2) for two groups", {"n1": 8, "n2": 12}, 4.8),
        ({}, r"or a column (design) that says (one-sample)", {"design": "one-sample"}, 20.0),
        ({"design": "between"}, r"Choose from: .*(two-sample)", {"design": "two-sample", "n1": 8, "n2": 12}, 4.8),
        ({"design": "two-sample"}, r"give them as (n1) and (n2)", {"design": "two-sample", "n1": 8, "n2": 12}, 4.8),
        ({"n1": 8}, r"states (n1) and not (n2)", {"n1": 8, "n2": 12}, 4.8),
        ({"n1": 8, "n2": 30}, r"n1 \+ n2 is 38", {"n1": 8, "n2": 12}, 4.8),
        (
            {"n1": 8.5, "n2": 12},
            r"n1 of study-s5_contrast-a is 8\.5; a sample has .* a whole number",
            {"n1": 8, "n2": 12},
            4.8,
        ),
    ],
)
def test_the_sizes_of_two_groups_are_asked_for(before, says, after, size, tmp_path, cli, studies):
    root = studies
    if before:
        studies_table(root, *before, **before)
    ran = cli(root, tmp_path / "out", *G)
    assert ran.code == 65, ran.stderr
    assert re.search(says, ran.stderr), ran.stderr
    studies_table(root, *after, **after)
    ran = cli(root, tmp_path / "out", *G)
    assert ran.code == 0, ran.stderr
    # the weighted mean by hand, from what each study's g should be
    t = [nib.load(path).get_fdata() for path in sorted(root.rglob("*_stat-t_statmap.nii.gz"))]
    samples = [Sample(20, 19)] * 4 + [Sample(size, 18)]
    g = np.array([hedges_g(one, sample)[0].ravel() for one, sample in zip(t, samples, strict=True)])
    variance = pool_variances(g, np.ones(g.shape, dtype=bool), samples)
    (effect,) = (tmp_path / "out").glob("group/*_stat-effect_statmap.nii.gz")
    (tau2,) = (tmp_path / "out").glob("group/*_stat-tau2_statmap.nii.gz")
    weights = 1 / (variance + nib.load(tau2).get_fdata().ravel())
    expected = (weights * g).sum(axis=0) / weights.sum(axis=0)
    np.testing.assert_allclose(nib.load(effect).get_fdata().ravel(), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("advice", "mend"),
    [
        (r"featregapply (\S+),", "registered"),
        (r"give the group analysis \((\.gfeat)\)", "gfeat"),
        (r"import them as a subject's \((--participant-label)\)", "subject"),
        (r"say which: (--space MNI152NLin6Asym)", "space"),
    ],
)
def test_native_folders_of_feat(advice, mend, tmp_path, maker, ibma_import):
    made, rng = maker("feat_folder"), np.random.default_rng(0)
    pair = {"1": (rng.normal(size=made.SHAPE), rng.uniform(1, 2, made.SHAPE))}
    folder = made.make_feat(tmp_path / "one.feat", {"a": [1, 0]}, pair)
    words = ("fsl", folder, tmp_path / "out", "--study-label", "x")
    ran = ibma_import(*words)
    assert ran.code == 65, ran.stderr
    found = re.search(advice, ran.stderr)
    assert found, ran.stderr
    if mend == "registered":  # what featregapply does
        made.make_feat(folder, {"a": [1, 0]}, pair, registered=True)
    if mend == "gfeat":
        folder = tmp_path / "group.gfeat"
        made.make_feat(folder / "cope1.feat", {"mean": [1]}, pair, heights=(1.0,), level=2, code=4, dof=11)
    more = {"subject": ("--participant-label", "01"), "space": ("--study-label", "x", *found[1].split())}
    then = ibma_import("fsl", folder, tmp_path / "out", *more.get(mend, ("--study-label", "x")))
    assert then.code == 0, then.stderr
    assert list((tmp_path / "out").rglob("*stat-effect_statmap.nii.gz"))
