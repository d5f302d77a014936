"""Confounds: the strategies of nilearn's load_confounds, columns by name, volumes that are left out."""

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError
from ibma_app.firstlevel.confounds import choose_confounds, drop_short_segments
from ibma_app.firstlevel.run_tables import read_confounds, read_confounds_metadata

N = 60


@pytest.fixture(scope="module")
def fmriprep(runs, tmp_path_factory):
    """A confounds table with outliers, beside a BOLD of fMRIPrep's name."""
    folder = tmp_path_factory.mktemp("func")
    columns = runs.confounds_columns(N)
    columns["framewise_displacement"][[20, 24, 50]] = 0.9
    columns["std_dvars"][[35]] = 2.0
    columns["non_steady_state_outlier00"] = (np.arange(N) == 0).astype(float)
    table = runs.write_confounds(folder / "sub-01_task-x_run-1_desc-confounds_timeseries.tsv", columns)
    bold = folder / "sub-01_task-x_run-1_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, N), np.float32), np.eye(4)), bold)
    return bold, table


@pytest.mark.parametrize("strategy", ["simple", "scrubbing", "compcor"])
def test_strategies_are_nilearns(fmriprep, strategy):
    from nilearn.interfaces.fmriprep import load_confounds_strategy

    bold, path = fmriprep
    reference, kept = load_confounds_strategy(str(bold), strategy, demean=False)
    ours = choose_confounds(read_confounds(path, N), [strategy], str(path), metadata=read_confounds_metadata(path))
    assert sorted(ours.columns) == sorted(reference.columns)
    assert sorted(set(range(N)) - set(ours.scrubbed)) == list(kept)
    used = list(kept)
    for name in reference.columns:  # values of scrubbed volumes do not matter
        np.testing.assert_array_equal(ours.columns[name][used], reference[name].to_numpy()[used])


@pytest.mark.parametrize(("name", "motion"), [("motion6", "basic"), ("motion24", "full")])
def test_motion_is_nilearns(fmriprep, name, motion):
    from nilearn.interfaces.fmriprep import load_confounds

    bold, path = fmriprep
    reference, _ = load_confounds(str(bold), ("motion", "high_pass"), motion=motion, demean=False)
    ours = choose_confounds(read_confounds(path, N), [name], str(path))
    assert sorted(ours.columns) == sorted(reference.columns)
    assert ours.high_pass
    assert ours.scrubbed == (0,)
    for column in reference.columns:
        np.testing.assert_array_equal(ours.columns[column][1:], reference[column].to_numpy()[1:])


def test_columns_by_pattern_keep_the_high_pass_once(fmriprep):
    table = read_confounds(fmriprep[1], N)
    chosen = choose_confounds(table, ["a_comp_cor_0[01]", "csf", "cosine*"], "c.tsv")
    assert list(chosen.columns) == ["a_comp_cor_00", "a_comp_cor_01", "csf", "cosine00", "cosine01", "cosine02"]
    without = choose_confounds(table, ["csf"], "c.tsv", cosines=False)
    assert list(without.columns) == ["csf"]


def test_outlier_columns_become_scrubbed_volumes(fmriprep):
    table = {**read_confounds(fmriprep[1], N), "motion_outlier00": (np.arange(N) == 7).astype(float)}
    chosen = choose_confounds(table, ["csf", "motion_outlier*"], "c.tsv")
    assert chosen.scrubbed == (0, 7)
    assert "motion_outlier00" not in chosen.columns


def test_scrub_fd_and_short_segments(fmriprep):
    chosen = choose_confounds(read_confounds(fmriprep[1], N), ["motion6"], "c.tsv", scrub_fd=0.5)
    assert chosen.scrubbed == (0, 20, 21, 22, 23, 24, 50)
    assert drop_short_segments({3, 10}, 14, 5) == {0, 1, 2, 3, 10, 11, 12, 13}
    assert drop_short_segments((), 3, 5) == set()


def test_dropped_volumes_have_no_row(fmriprep):
    table = read_confounds(fmriprep[1], N - 4, dropped=4)
    assert len(table["csf"]) == N - 4
    with pytest.raises(DataError, match="60 rows, and the BOLD 58 volumes"):
        read_confounds(fmriprep[1], 58)


@pytest.mark.parametrize(
    ("change", "asked", "words"),
    [
        ({"csf": np.full(N, np.nan)}, ["csf"], "the column csf has no number at all"),
        ({"csf": np.where(np.arange(N) == 9, np.nan, 1.0)}, ["csf"], "no number in 1 volume.*volume 9"),
        ({}, ["trans_q"], "no column trans_q. Did you mean trans_"),
        ({}, ["compcor"], "JSON beside the table names none"),
    ],
)
def test_what_cannot_be_used_is_named(fmriprep, change, asked, words):
    with pytest.raises(DataError, match=words):
        choose_confounds({**read_confounds(fmriprep[1], N), **change}, asked, "c.tsv")


def test_a_strategy_whose_columns_are_missing(fmriprep):
    words = r"--confounds motion24 needs trans_y, .* and 16 more.* Choose another strategy \(none\)"
    with pytest.raises(DataError, match=words):
        choose_confounds({"trans_x": np.zeros(5)}, ["motion24"], "c.tsv")
    table = {name: values for name, values in read_confounds(fmriprep[1], N).items() if not name.startswith("csf")}
    with pytest.raises(DataError, match=r"needs csf, .* Choose another strategy \(motion6, motion24, none\)"):
        choose_confounds(table, ["simple"], "c.tsv")


def test_expansions_that_a_table_lacks_are_fmripreps(fmriprep):
    table = read_confounds(fmriprep[1], N)
    fewer = {name: values for name, values in table.items() if "derivative1" not in name and "power2" not in name}
    whole, made = (choose_confounds(one, ["motion24"], "c.tsv") for one in (table, fewer))
    assert list(made.columns) == list(whole.columns)
    for name, values in whole.columns.items():
        np.testing.assert_allclose(made.columns[name], values, rtol=1e-12, atol=1e-14)
    assert whole.notes == ()
    assert made.notes == ("c.tsv: 18 derivatives and squares that the table lacks are made of its other columns.",)
