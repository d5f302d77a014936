"""The model that options mean gives the design of the options, number for number."""

import json

import numpy as np
import pytest

from ibma_app.core.errors import UsageError
from ibma_app.firstlevel.conditions import condition_contrast, list_conditions, model_of_options
from ibma_app.firstlevel.design import build_design
from ibma_app.firstlevel.model.reading.read_model import make_model
from ibma_app.firstlevel.model.run_model import model_of_node
from ibma_app.firstlevel.model.write_run_node import run_node
from ibma_app.firstlevel.records import RunContrast, RunSettings, RunTables, Timing

NAMES = {"events": "events.tsv", "confounds": "confounds.tsv"}
TIMING = Timing(2.0, 80, 1.0, "StartTime")


def tables(rng, *, cosines=True):
    motion = [f"{kind}_{axis}{ending}" for kind in ("trans", "rot") for axis in "xyz"
              for ending in ("", "_derivative1", "_power2", "_derivative1_power2")]  # fmt: skip
    confounds = {name: rng.standard_normal(80) for name in [*motion, "csf", "white_matter", "a_comp_cor_00"]}
    confounds["trans_x_derivative1"][0] = np.nan
    confounds["framewise_displacement"] = np.abs(rng.standard_normal(80)) / 4
    confounds["non_steady_state_outlier00"] = (np.arange(80) == 0).astype(float)
    if cosines:
        confounds |= {f"cosine0{k}": np.cos(np.pi * (k + 1) * (np.arange(80) + 0.5) / 80) for k in range(2)}
    events = {
        "onset": ("2", "14", "31", "50", "n/a", "77", "105", "120", "400"),
        "duration": ("2", "2", "0", "4", "1", "2", "2", "2", "2"),
        "trial_type": ("go", "no_go", "go", "2", "go", "", "no_go", "2", "go"),
    }
    return RunTables({name: tuple("" if c == "n/a" else c for c in cells) for name, cells in events.items()}, confounds)


@pytest.mark.parametrize(
    ("settings", "cosines"),
    [
        (RunSettings(), True),
        (RunSettings(), False),
        (RunSettings(hrf="glover + derivative", confounds=("simple", "a_comp_cor_*"), high_pass=0.01), True),
        (RunSettings(hrf="spm + derivative + dispersion", confounds=("motion6",), scrub_fd=0.4), True),
        (RunSettings(hrf="fir", fir_delays=(0, 1, 2, 3), confounds=("none",), high_pass=0.0), False),
    ],
)
def test_the_model_of_options_has_their_design(settings, cosines, rng):
    made = tables(rng, cosines=cosines)
    contrasts = [condition_contrast(name, settings) for name in list_conditions(made.events)]
    if settings.hrf != "fir":
        contrasts.append(RunContrast("goVno", ({"go": 1.0, "no_go": -1.0},)))
        contrasts.append(RunContrast("any", ({"go": 1.0}, {"no_go": 0.5, "2": -0.5}), "F"))
    wanted = model_of_options(made, TIMING, settings, contrasts, NAMES)
    document = {"Name": "default", "BIDSModelVersion": "1.0.0", "Nodes": [run_node(settings, contrasts)]}
    (node,) = make_model(json.loads(json.dumps(document)), None).nodes
    got = model_of_node(node, made, TIMING, settings, NAMES)
    assert (got.notes, got.scrubbed, got.missing, got.confounds) == (
        wanted.notes, wanted.scrubbed, wanted.missing, wanted.confounds
    )  # fmt: skip
    theirs, ours = (build_design(one, TIMING, settings, "sub-01") for one in (wanted, got))
    assert ours.columns == theirs.columns
    np.testing.assert_array_equal(ours.matrix, theirs.matrix)
    for name in ("conditions", "contrasts", "heights", "hrf", "high_pass", "notes", "inflation", "efficiency"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_a_condition_that_the_run_lacks(rng):
    settings, made = RunSettings(confounds=("none",)), tables(rng)
    contrasts = [RunContrast("goVstop", ({"go": 1.0, "stop": -1.0},))]
    wanted = model_of_options(made, TIMING, settings, contrasts, NAMES)
    document = {"Name": "default", "BIDSModelVersion": "1.0.0", "Nodes": [run_node(settings, contrasts)]}
    got = model_of_node(make_model(document, None).nodes[0], made, TIMING, settings, NAMES)
    assert got.missing == wanted.missing == {"goVstop": "the run has no events of stop"}


def test_strategies_that_are_no_columns_are_refused():
    with pytest.raises(UsageError, match="--confounds scrubbing depends on each run's values"):
        run_node(RunSettings(confounds=("scrubbing",)), [])
