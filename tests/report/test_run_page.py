"""The page of a run: what it shows and says."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.bold_run import RunContrastResult, RunResults
from ibma_app.core.grid import Grid
from ibma_app.report.figures.time_courses import draw_column_correlations, draw_motion, draw_regressors
from ibma_app.report.run_page import write_run_page

T, SHAPE = 40, (4, 5, 3)


@pytest.fixture(scope="module")
def results() -> RunResults:
    rng = np.random.default_rng(0)
    times = 0.5 + 2.0 * np.arange(T)
    matrix = np.column_stack([np.sin(times / 5), np.cos(times / 7), rng.standard_normal(T), np.ones(T)])
    voxels = int(np.prod(SHAPE))
    contrast = RunContrastResult(
        "go>stop", rng.standard_normal(voxels), "Effect (percent)", True, 31.5, 0.25, "+1 go; -1 stop"
    )
    return RunResults(
        name="sub-01_task-x_run-1_space-S",
        entities={"sub": "01", "task": "x", "run": "1", "space": "S"},
        grid=Grid.whole(np.diag([3.0, 3.0, 3.0, 1.0]), SHAPE),
        columns=("go", "stop", "trans_x", "constant"),
        matrix=matrix,
        conditions=("go", "stop"),
        confounds=("trans_x",),
        frame_times=times,
        events={"go": np.array([[3.0, 2.0], [500.0, 1.0]]), "stop": np.zeros((0, 2))},
        motion={"framewise displacement": np.append(np.nan, rng.random(T - 1))},
        scrubbed=(7, 8),
        inflation={"go": 1.2, "stop": 7.5},
        contrasts=(contrast,),
        missing={"late": "the run has no events of late"},
        maps={"mean": 1000 + rng.random(voxels), "rsquared": rng.random(voxels), "rho": rng.normal(0.3, 0.1, voxels)},
        facts=(("TR (s)", 2.0),),
        notes=("a note <of> the run",),
        methods=("What was done.",),
        references=("Worsley KJ (2002). A title. NeuroImage. https://doi.org/10.1006/nimg.2001.0933",),
    )


def test_the_page_says_what_the_run_is(results, tmp_path):
    written = {}
    path = write_run_page(results, tmp_path, lambda path, text: written.setdefault(path, text), "1.0", {"numpy": "2"})
    assert path == tmp_path / "run_sub-01_task-x_run-1_space-S.html"
    page = written[path]
    for words in (
        "38 volumes, 2 regressors of events and 1 confounds at 60 voxels",
        "Contrast late is missing: the run has no events of late.",
        "Hard to tell from other columns (VIF above 5), with large errors: stop.",
        "a note &lt;of&gt; the run",
        "+1 go; -1 stop",
        "Marked: 2 volume(s) that are left out.",
        'href="https://doi.org/10.1006/nimg.2001.0933"',
    ):
        assert words in page
    assert "http:" not in re.sub(r"http://www\.w3\.org\S*", "", page)
    names = {path.name for path in written if path.parent.name == "figures"}
    stem = "sub-01_task-x_run-1_space-S"
    endings = ("regressors", "motion", "stat-mean", "stat-rsquared", "stat-rho", "contrast-goGtStop_stat-effect")
    assert names == {f"{stem}_{one}.svg" for one in endings}


def test_events_are_bars_where_they_happen(results):
    plot = draw_regressors(results)
    (bars,) = [shape for shape in plot.shapes if shape.style == "bars"]
    assert bars.d.count("Z") == 1  # the second event of go lies after the run; stop has none
    curves = [shape for shape in plot.shapes if shape.style == "curve"]
    assert [shape.title for shape in curves] == ["go", "stop"]
    assert all(shape.d.count("L") == T - 1 for shape in curves)


def test_scrubbed_volumes_are_marked(results):
    plot = draw_motion(results)
    assert [shape.title for shape in plot.shapes if shape.style == "observed"] == [
        "volume 7: left out",
        "volume 8: left out",
    ]
    assert draw_motion(replace(results, motion={})) is None


def test_correlations_name_conditions_first(results):
    matrix = draw_column_correlations(results)
    assert [label.text for label in matrix.labels] == ["go", "stop", "trans_x"]
