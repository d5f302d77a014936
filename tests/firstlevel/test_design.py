"""The design matrix of a run: nilearn's columns, heights, rank."""

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import gamma

from ibma_app.core.errors import DataError
from ibma_app.firstlevel.conditions import condition_contrast, model_of_options
from ibma_app.firstlevel.design import build_design, cosines, reference_durations, response_height
from ibma_app.firstlevel.records import Regressor, RunContrast, RunModel, RunSettings, RunTables, Timing
from ibma_app.firstlevel.run_tables import read_events

TIMING = Timing(2.0, 90, 0.75, "test")
NAMES = {"events": "events.tsv", "confounds": "confounds.tsv"}


def _design(tmp_path: Path, text: str, settings: RunSettings, timing: Timing = TIMING, confounds=None, contrasts=()):
    path = tmp_path / "events.tsv"
    path.write_text(text)
    tables = RunTables(read_events(path), confounds or {})
    model = model_of_options(tables, timing, settings, contrasts, NAMES)
    return build_design(model, timing, settings, "run-1")


@pytest.mark.parametrize(
    "hrf", ["spm", "glover", "spm + derivative", "glover + derivative + dispersion", "spm + derivative + dispersion"]
)
def test_columns_are_nilearns(runs, tmp_path, hrf):
    from nilearn.glm.first_level import make_first_level_design_matrix

    confounds = runs.confounds_columns(90)
    text = runs.events_text()
    settings = RunSettings(hrf=hrf, confounds=("trans_*",))
    ours = _design(tmp_path, text, settings, confounds=confounds)
    kept = [name for name in ours.columns if name in ours.confounds]
    reference = make_first_level_design_matrix(
        TIMING.frame_times,
        pd.read_csv(StringIO(text), sep="\t"),
        hrf_model=hrf,
        drift_model=None,
        add_regs=np.column_stack([np.where(np.isnan(confounds[name]), 0, confounds[name]) for name in kept]),
        add_reg_names=kept,
    )
    conditions = list(ours.conditions)
    assert conditions == list(reference.columns[: len(conditions)])
    np.testing.assert_allclose(ours.matrix[:, : len(conditions)], reference[conditions].to_numpy(), rtol=0, atol=1e-12)
    assert ours.columns[-1] == "constant"


def test_fir_and_own_high_pass_are_nilearns(runs, tmp_path):
    from nilearn.glm.first_level import make_first_level_design_matrix

    settings = RunSettings(hrf="fir", fir_delays=(0, 1, 2), confounds=("none",))
    ours = _design(tmp_path, runs.events_text(), settings)
    reference = make_first_level_design_matrix(
        TIMING.frame_times, pd.read_csv(StringIO(runs.events_text()), sep="\t"), hrf_model="fir", fir_delays=[0, 1, 2],
        drift_model="cosine", high_pass=1 / 128,
    )  # fmt: skip
    assert list(ours.columns) == list(reference.columns)
    np.testing.assert_allclose(ours.matrix, reference.to_numpy(), rtol=0, atol=1e-12)


def test_modulation_is_the_height_of_events(runs, tmp_path):
    from nilearn.glm.first_level import make_first_level_design_matrix

    table = pd.read_csv(StringIO(runs.events_text()), sep="\t").assign(modulation=np.linspace(-1, 2, 12))
    settings = RunSettings(confounds=("none",), high_pass=0.0)
    ours = _design(tmp_path, table.to_csv(sep="\t", index=False), settings)
    reference = make_first_level_design_matrix(TIMING.frame_times, table, hrf_model="spm", drift_model=None)
    np.testing.assert_allclose(ours.matrix, reference.to_numpy(), rtol=0, atol=1e-12)


def test_events_before_and_after_are_nilearns_and_counted(tmp_path):
    from nilearn.glm.first_level import make_first_level_design_matrix

    text = "onset\tduration\ttrial_type\n-40\t1\tgo\n-8\t0\tgo\n30\t0\tgo\n300\t2\tgo\n60\t5\tstop\n"
    ours = _design(tmp_path, text, RunSettings(confounds=("none",), high_pass=0.0))
    with pytest.warns(UserWarning, match="null duration"), pytest.warns(UserWarning, match="earlier than"):
        reference = make_first_level_design_matrix(
            TIMING.frame_times, pd.read_csv(StringIO(text), sep="\t"), hrf_model="spm", drift_model=None
        )
    np.testing.assert_allclose(ours.matrix, reference.to_numpy(), rtol=0, atol=1e-12)
    words = " ".join(ours.notes)
    assert "1 event(s) begin after the last volume" in words
    assert "1 event(s) end more than 24 s before" in words


def test_trial_types_of_mixed_types_stay_texts(tmp_path):
    text = "onset\tduration\ttrial_type\n4\t1\t1\n20\t1\tn/a\n40\t1\t2\n60\t1\tgo left\nn/a\t1\t2\n"
    design = _design(tmp_path, text, RunSettings(confounds=("none",), high_pass=0.0))
    assert design.conditions == ("1", "2", "go left")
    assert "2 row(s) without onset or trial_type" in " ".join(design.notes)


def test_a_condition_without_events_within_the_run_has_no_column(tmp_path):
    text = "onset\tduration\ttrial_type\n4\t1\tgo\n40\t1\tgo\n500\t1\tstop\n"
    settings = RunSettings(confounds=("none",), high_pass=0.0)
    contrasts = (RunContrast("x", ({"stop": 1.0, "go": -1.0},)), condition_contrast("go", settings))
    design = _design(tmp_path, text, settings, contrasts=contrasts)
    assert design.conditions == ("go",)
    assert [one.name for one in design.contrasts] == ["go"]
    assert design.missing == {"x": "the run has no events of stop"}


def test_cosines_of_the_confounds_are_the_high_pass(runs, tmp_path):
    design = _design(
        tmp_path, runs.events_text(), RunSettings(confounds=("motion6",)), confounds=runs.confounds_columns(90)
    )
    assert [name for name in design.columns if name.startswith(("cosine", "drift"))] == [
        "cosine00",
        "cosine01",
        "cosine02",
    ]
    assert design.high_pass == "the 3 cosines of the confounds table"
    slower = _design(
        tmp_path,
        runs.events_text(),
        RunSettings(confounds=("motion6",), high_pass=0.005),
        confounds=runs.confounds_columns(90),
    )
    assert [name for name in slower.columns if name.startswith(("cosine", "drift"))] == ["drift_1"]
    np.testing.assert_allclose(slower.matrix[:, slower.columns.index("drift_1")], cosines(90, 2.0, 0.005)[:, 0])


def test_dependent_columns_are_named():
    values = np.arange(90.0)
    model = RunModel((), {"a": values, "b": np.sin(values), "double": 2 * values})
    with pytest.raises(DataError, match="double is a combination of a") as caught:
        build_design(model, TIMING, RunSettings(), "run-1")
    assert caught.value.code == 65
    with pytest.raises(DataError, match="flat is zero in all volumes"):
        build_design(RunModel((), {"flat": np.zeros(90)}), TIMING, RunSettings(), "run-1")


def test_no_degrees_of_freedom():
    rng = np.random.default_rng(0)
    model = RunModel((), {f"c{index}": rng.standard_normal(90) for index in range(89)})
    with pytest.raises(DataError, match="leave no degrees of freedom"):
        build_design(model, TIMING, RunSettings(high_pass=0.0), "run-1")


def test_heights_of_impulses_follow_nilearns_grid():
    # an impulse is one step of nilearn's grid, TR / 50: its response at TR 2 is twice as high as at TR 1
    one = Regressor("x", np.array([10.0, 11.0]), np.zeros(2), np.ones(2))
    slow, fast = (response_height(one, 0.0, tr, RunSettings()) for tr in (2.0, 1.0))
    assert slow / fast == pytest.approx(2.0, rel=0.02)
    # a long block overshoots to the highest value of the response's integral F, and undershoots as far below 0 after it
    block = Regressor("x", np.array([10.0]), np.array([60.0]), np.ones(1))
    seconds = np.arange(0, 32, 0.01)
    integral = (gamma.cdf(seconds, 6) - gamma.cdf(seconds, 16) / 6) / (5 / 6)
    assert response_height(block, 60.0, 2.0, RunSettings()) == pytest.approx(2 * integral.max() - 1, rel=0.01)


def test_height_does_not_depend_on_the_other_events():
    settings = RunSettings()
    alone = Regressor("x", np.array([10.0]), np.array([1.0]), np.ones(1))
    many = Regressor("x", np.arange(10.0, 90.0, 3.0), np.ones(27), np.linspace(0, 3, 27))
    assert response_height(alone, 1.0, 2.0, settings) == response_height(many, 1.0, 2.0, settings)


def test_durations_that_vary_share_a_reference():
    ones = np.ones(3)
    block = Regressor("block", np.arange(3.0), 18 * ones, ones)
    impulse = Regressor("impulse", np.arange(3.0), 0 * ones, ones)
    fast = Regressor("fast", np.arange(3.0), np.array([0.5, 0.6, 0.7]), ones)
    slow = Regressor("slow", np.arange(3.0), np.array([0.8, 0.9, 1.3]), ones)
    found = reference_durations((block, impulse, fast, slow))
    assert found == {"block": 18.0, "impulse": 0.0, "fast": pytest.approx(0.75), "slow": pytest.approx(0.75)}


def test_variance_inflation_is_that_of_regressions():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 90))
    close = a + 0.3 * b
    model = RunModel((Regressor("x", np.arange(5, 170, 16.0), np.ones(11), np.ones(11)),), {"a": a, "close": close})
    design = build_design(model, TIMING, RunSettings(high_pass=0.0), "run-1")
    x = design.matrix[:, 0]
    others = design.matrix[:, 1:]
    left = x - others @ np.linalg.lstsq(others, x, rcond=None)[0]
    assert design.inflation == {"x": pytest.approx(((x - x.mean()) ** 2).sum() / (left**2).sum())}
