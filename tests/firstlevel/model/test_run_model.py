"""The model of a run: transformations as PyBIDS has them, and a design that FitLins has stored."""

import json

import numpy as np
import pandas as pd
import pytest

from ibma_app.core.errors import DataError
from ibma_app.firstlevel.model.missing_levels import missing_everywhere
from ibma_app.firstlevel.model.reading.read_model import make_model
from ibma_app.firstlevel.model.run_model import boxcar, model_of_node
from ibma_app.firstlevel.model.transformations import apply_instructions
from ibma_app.firstlevel.model.variables import EventVariable, read_variables
from ibma_app.firstlevel.records import RunSettings, RunTables, Timing
from ibma_app.firstlevel.run_tables import read_events

TIMING = Timing(2.0, 60, 1.0, "StartTime")
SETTINGS = RunSettings()
NAMES = {"events": "events.tsv", "confounds": "confounds.tsv"}
EVENTS = {
    "onset": ("0", "10", "20", "30", "40"),
    "duration": ("2", "2", "1.5", "2", "0"),
    "trial_type": ("congruent", "incongruent", "congruent", "", "incongruent"),
    "response_time": ("0.5", "0.75", "", "0.6", "0.9"),
    "gain": ("1", "2", "3", "4", "6"),
}


def tables(events=EVENTS, **more):
    generator = np.random.default_rng(3)
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"] + ["cosine00", "motion_outlier00"]
    confounds = {name: generator.standard_normal(60) for name in names}
    confounds["motion_outlier00"] = (np.arange(60) == 7).astype(float)
    return RunTables(events, {**confounds, **more})


def run_node(flanker, *instructions, **changes):
    node = flanker["Nodes"][0]
    if instructions:
        node["Transformations"]["Instructions"] = list(instructions)
    node["Model"] |= {key: value for key, value in changes.items() if key in ("X", "HRF", "Options")}
    node |= {key: value for key, value in changes.items() if key not in ("X", "HRF", "Options")}
    return make_model(flanker, None).nodes[0]


def test_the_model_of_a_run(flanker):
    model = model_of_node(run_node(flanker), tables(), TIMING, SETTINGS, NAMES)
    assert [(one.name, one.hrf) for one in model.regressors] == [("congruent", "spm"), ("incongruent", "spm")]
    np.testing.assert_array_equal(model.regressors[0].onsets, [0, 20])
    np.testing.assert_array_equal(model.regressors[0].durations, [2, 1.5])
    np.testing.assert_array_equal(model.regressors[1].amplitudes, [1, 1])
    assert tuple(model.columns) == ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "cosine00")
    assert [(one.name, one.rows) for one in model.contrasts] == [
        ("inVcon", ({"incongruent": 1.0, "congruent": -1.0},)),
        ("go", ({"incongruent": 0.5, "congruent": 0.5},)),
    ]
    assert (model.high_pass, model.scrubbed, model.missing) == (0.0, (), {})
    assert model.notes == ("events.tsv: 1 row(s) without onset or trial_type (n/a) are no events.",)


def test_a_run_without_a_condition_lacks_its_contrasts(flanker):
    events = {**EVENTS, "trial_type": ("congruent",) * 5}
    model = model_of_node(run_node(flanker), tables(events), TIMING, SETTINGS, NAMES)
    assert [one.name for one in model.regressors] == ["congruent"]
    assert model.missing == dict.fromkeys(("inVcon", "go"), "the run has no events of incongruent")
    assert model.contrasts == ()


def test_reaction_times_as_durations(flanker):
    """As the published models have it: a copy of trial_type whose events last as long as the reaction."""
    node = run_node(
        flanker,
        {"Name": "Copy", "Input": ["trial_type"], "Output": ["rt_reg"]},
        {"Name": "Replace", "Input": ["rt_reg"], "Replace": {"congruent": "rt", "incongruent": "rt"}},
        {"Name": "Factor", "Input": ["trial_type", "rt_reg"]},
        {"Name": "Assign", "Input": ["response_time"], "Target": ["rt_reg.rt"], "TargetAttr": "duration"},
        {"Name": "Convolve", "Model": "glover", "Derivative": True, "Input": ["trial_type.*", "rt_reg.rt"]},
        X=[1, "trial_type.*", "rt_reg.rt", "cosine*"],
    )
    model = model_of_node(node, tables(), TIMING, SETTINGS, NAMES)
    reaction = model.regressors[-1]
    assert [one.name for one in model.regressors] == ["congruent", "incongruent", "rt_reg.rt"]
    assert [one.hrf for one in model.regressors] == ["glover + derivative", "glover + derivative", "glover"]
    np.testing.assert_array_equal(reaction.onsets, [0, 10, 40])  # the third has no reaction, the fourth no trial type
    np.testing.assert_array_equal(reaction.durations, [0.5, 0.75, 0.9])
    assert any("1 event(s) of rt_reg.rt have no duration" in note for note in model.notes)


CASES = [
    [{"Name": "Demean", "Input": ["gain"]}],
    [{"Name": "Demean", "Input": ["gain", "trans_x"], "Output": ["a", "b"]}],
    [{"Name": "Scale", "Input": ["gain"], "Output": ["z"]}, {"Name": "Scale", "Input": ["gain"], "Rescale": False}],
    [{"Name": "Threshold", "Input": ["gain"], "Threshold": 3, "Binarize": True}],
    [
        {
            "Name": "Threshold",
            "Input": ["trans_x"],
            "Threshold": 0.5,
            "Above": False,
            "Signed": False,
            "Output": ["still"],
        }
    ],
    [{"Name": "Rename", "Input": ["gain"], "Output": ["won"]}],
    [{"Name": "Copy", "Input": ["trans_x"], "Output": ["again"]}],
    [{"Name": "Factor", "Input": ["stimulus"], "Constraint": "drop_one"}],
    [{"Name": "Replace", "Input": ["stimulus"], "Replace": {"a": "c"}}, {"Name": "Factor", "Input": ["stimulus"]}],
    [{"Name": "Replace", "Input": ["stimulus"], "Replace": {"a": "b"}, "Output": ["same"]}],
    [{"Name": "Assign", "Input": ["gain"], "Target": ["gain"], "TargetAttr": "onset", "Output": ["later"]}],
]


@pytest.mark.parametrize("place", range(len(CASES)))
def test_transformations_are_those_of_pybids(place, flanker):
    """PyBIDS transforms what it reads itself; the same tables go through our variables."""
    from bids.modeling import transformations as theirs
    from bids.utils import convert_JSON
    from bids.variables import DenseRunVariable, SparseRunVariable
    from bids.variables.collections import BIDSRunVariableCollection
    from bids.variables.entities import RunInfo

    events = {**EVENTS, "stimulus": ("a", "b", "a", "a", "b")}
    table = tables(events)
    info = [RunInfo({"run": 1, "subject": "01"}, 120.0, 2.0, "", 60)]
    frame = pd.DataFrame(events)
    frame = frame.astype(dict.fromkeys(("onset", "duration", "gain"), float))
    made = [
        SparseRunVariable(name, frame[["onset", "duration"]].assign(amplitude=frame[name], run=1), info, "events")
        for name in ("gain", "stimulus")
    ]
    made.append(DenseRunVariable("trans_x", pd.DataFrame(table.confounds["trans_x"]), info, "regressors", 0.5))
    collection = BIDSRunVariableCollection(made)
    for one in CASES[place]:
        arguments = convert_JSON(one)
        getattr(theirs, arguments.pop("name"))(collection, arguments.pop("input"), **arguments)

    node = run_node(flanker, *CASES[place], X=[1, "trans_*"], Contrasts=[], DummyContrasts={"Test": "t"})
    ours = apply_instructions(read_variables(table, "events.tsv"), node.instructions, TIMING)
    for name, variable in collection.variables.items():
        values = np.asarray(variable.values).ravel()
        if name in ours.confounds:
            np.testing.assert_array_equal(ours.confounds[name], values, err_msg=name)
            continue
        got = ours.events[name]
        numbers = got.values if values.dtype.kind in "OUT" else got.values.astype(float)
        np.testing.assert_array_equal(numbers, values, err_msg=name)
        np.testing.assert_array_equal(got.onsets, variable.onset, err_msg=name)
        np.testing.assert_array_equal(got.durations, variable.duration, err_msg=name)
    gone = {name for name in ("gain", "stimulus", "trans_x") if name not in collection.variables}
    assert gone.isdisjoint(ours.events)


def test_variables_that_are_not_convolved_are_boxcars(flanker):
    node = run_node(flanker, X=[1, "trial_type.*", "gain", "cosine*"])
    model = model_of_node(node, tables(), TIMING, SETTINGS, NAMES)
    column = model.columns["gain"]
    assert column[[0, 4, 5, 9, 10, 14, 15, 20]].tolist() == [1, 0, 2, 0, 3, 0, 4, 0]  # an impulse lasts for no volume
    assert "gain is not convolved: its events are boxcars in the design." in model.notes
    assert model.confounds == ("cosine00",)
    both = EventVariable(np.array([0.0, 1.0]), np.array([3.0, 3.0]), np.array([1.0, 2.0]))
    assert boxcar(both, np.array([0.0, 1.0, 2.9, 3.0, 4.0])).tolist() == [1, 3, 3, 2, 0]


def test_outliers_are_left_out_and_high_pass_is_the_models(flanker):
    node = run_node(flanker, X=[1, "trial_type.*", "motion_outlier*"], Options={"HighPassFilterCutoffHz": 0.01})
    model = model_of_node(node, tables(), TIMING, SETTINGS, NAMES)
    assert (model.scrubbed, tuple(model.columns), model.high_pass) == ((7,), (), 0.01)
    moving = {"framewise_displacement": np.r_[np.nan, np.zeros(56), 2.0, 0, 0]}
    settings = RunSettings(scrub_fd=0.5)
    scrubbed = model_of_node(node, tables(**moving), TIMING, settings, NAMES).scrubbed
    assert scrubbed == (7, 57, 58, 59)  # the last two are too few to keep
    without = model_of_node(run_node(flanker, X=[1, "trial_type.*"], Options={}), tables(), TIMING, SETTINGS, NAMES)
    assert without.high_pass == 0.0
    assert "Nodes[0].Model: the design has no high-pass" in without.notes[-1]


def test_responses_of_the_model(flanker):
    responses = {"Variables": ["trial_type.*"], "Model": "FIR", "Parameters": {"fir_delays": [0, 2]}}
    node = run_node(
        flanker, {"Name": "Factor", "Input": ["trial_type"]}, HRF=responses,
        Contrasts=[{"Name": "late", "ConditionList": ["trial_type.congruent_delay_2", 1], "Weights": [1, "-1/2"],
                    "Test": "t"}],
    )  # fmt: skip
    model = model_of_node(node, tables(), TIMING, SETTINGS, NAMES)
    assert [(one.name, one.hrf, one.fir_delays) for one in model.regressors] == [
        ("congruent", "fir", (0, 2)), ("incongruent", "fir", (0, 2))
    ]  # fmt: skip
    assert model.contrasts[0].rows == ({"congruent_delay_2": 1.0, "constant": -0.5},)


@pytest.mark.parametrize(
    ("instructions", "x", "words"),
    [
        ([{"Name": "Convolve", "Input": ["trial_type"]}], [1, "trial_type"],
         r"Instructions\[0\]: trial_type is text \('congruent'\)\. Make columns of its values first, with Factor\."),
        ([{"Name": "Convolve", "Input": ["trans_x"]}], [1, "trans_x"], "trans_x is a value for each volume"),
        ([{"Name": "Demean", "Input": ["gains"]}], [1, "gains"], r"there is no gains\. Did you mean gain\?"),
        ([{"Name": "Factor", "Input": ["trial_type"]}], [1, "reward"], r"X\[1\]: there is no column reward\."),
        ([{"Name": "Assign", "Input": ["trans_x"], "Target": ["gain"]}], [1, "gain"], "Assign takes variables of"),
    ],
)  # fmt: skip
def test_what_a_run_lacks_is_said(instructions, x, words, flanker):
    node = run_node(flanker, *instructions, X=x, Contrasts=[], DummyContrasts={"Test": "t"})
    with pytest.raises(DataError, match=words):
        model_of_node(node, tables(), TIMING, SETTINGS, NAMES)


def test_numbers_are_replaced_by_their_value(flanker):
    """Keys of JSON are texts, so that PyBIDS finds no number: 2.0 is 2, and n/a is what is left out."""
    instructions = (
        {"Name": "Replace", "Input": ["gain"], "Replace": {"2.0": 7, "3": "n/a"}},
        {"Name": "Replace", "Input": ["gain"], "Replace": {"2": 0.5}, "Attribute": "duration", "Output": ["short"]},
    )
    node = run_node(flanker, *instructions, X=[1, "gain", "cosine*"], Contrasts=[], DummyContrasts={"Test": "t"})
    made = apply_instructions(read_variables(tables(), "events.tsv"), node.instructions, TIMING)
    assert made.events["gain"].values.tolist() == ["1", "7", "", "4", "6"]
    assert made.events["short"].durations.tolist() == [0.5, 0.5, 1.5, 0.5, 0]


def test_confounds_are_scaled(flanker):
    """PyBIDS' Scale fails on its own variables of confounds."""
    node = run_node(flanker, {"Name": "Scale", "Input": ["trans_x"]}, X=[1, "trans_*"], DummyContrasts={"Test": "t"},
                    Contrasts=[])  # fmt: skip
    before = read_variables(tables(), "events.tsv")
    values = before.confounds["trans_x"]
    after = apply_instructions(before, node.instructions, TIMING).confounds["trans_x"]
    np.testing.assert_allclose(after, (values - values.mean()) / values.std(ddof=1), rtol=1e-12)
    assert before.confounds["trans_x"] is values


def test_conditions_that_no_run_has(flanker):
    """A typing error is one of all runs; a run alone cannot tell it from a condition that did not occur."""
    contrasts = flanker["Nodes"][0]["Contrasts"]
    contrasts[0]["ConditionList"][0] = "trial_type.incongruemt"
    contrasts[1]["ConditionList"][0] = "trial_type.incongruent_derivative"
    node = run_node(flanker)
    others = {**EVENTS, "trial_type": ("congruent",) * 5}
    assert missing_everywhere(node, [others, EVENTS]) == [
        "Nodes[0].Contrasts[0].ConditionList[0]: no run has events of trial_type.incongruemt. Did you mean "
        "trial_type.incongruent? There are: trial_type.congruent, trial_type.incongruent."
    ]
    assert len(missing_everywhere(node, [others])) == 2


def test_copies_have_the_levels_that_replace_gives_them(flanker):
    node = run_node(
        flanker,
        {"Name": "Copy", "Input": ["trial_type"], "Output": ["rt_reg"]},
        {"Name": "Replace", "Input": ["rt_reg"], "Replace": {"congruent": "rt"}},
        {"Name": "Factor", "Input": ["rt_reg"]},
        {"Name": "Convolve", "Input": ["rt_reg.*"]},
        X=[1, "rt_reg.*"],
        Contrasts=[{"Name": "a", "ConditionList": ["rt_reg.rt", "rt_reg.incongruent", "rt_reg.x"],
                    "Weights": [1, 1, 1], "Test": "t"}],
    )  # fmt: skip
    (text,) = missing_everywhere(node, [EVENTS])
    assert "no run has events of rt_reg.x." in text


def test_columns_of_fir_have_delays(flanker):
    convolve = {"Name": "Convolve", "Input": ["trial_type.*"], "Model": "fir", "FirDelays": [0, 1]}
    node = run_node(flanker, {"Name": "Factor", "Input": ["trial_type"]}, convolve)
    words = r"trial_type\.incongruent is convolved with fir: its columns are trial_type\.incongruent_delay_0, trial"
    with pytest.raises(DataError, match=words):
        model_of_node(node, tables(), TIMING, SETTINGS, NAMES)


def test_wildcards_have_one_output_each(flanker):
    demean = {"Name": "Demean", "Input": ["trans_*"], "Output": ["a"]}
    with pytest.raises(DataError, match="Output has 1 names for 3 variables that Input stands for here"):
        model_of_node(run_node(flanker, demean, X=[1, "a"], Contrasts=[], DummyContrasts={"Test": "t"}), tables(),
                      TIMING, SETTINGS, NAMES)  # fmt: skip


def test_durations_that_the_table_lacks_are_refused(flanker):
    events = {**EVENTS, "duration": ("2", "n", "1", "1", "1")}
    with pytest.raises(DataError, match="the event at 10 s has no duration"):
        model_of_node(run_node(flanker), tables(events), TIMING, SETTINGS, NAMES)


def stretched(regressor, timing, every_onset, every_duration):
    """Convolve and resample as PyBIDS does: at 10 Hz, then to one row a volume, the time stretched."""
    from bids.modeling import transformations as theirs
    from bids.variables import SparseRunVariable
    from bids.variables.collections import BIDSRunVariableCollection
    from bids.variables.entities import RunInfo

    info = [
        RunInfo({"run": 1}, timing.repetition_time * timing.n_volumes, timing.repetition_time, "", timing.n_volumes)
    ]
    onset, duration = every_onset.astype(float), every_duration.astype(float)
    amplitude = np.zeros(len(onset))
    for start, length, height in zip(regressor.onsets, regressor.durations, regressor.amplitudes, strict=True):
        place = int(np.flatnonzero(onset == start)[0])
        duration[place], amplitude[place] = length, height
    data = pd.DataFrame({"onset": onset, "duration": duration, "amplitude": amplitude, "run": 1})
    collection = BIDSRunVariableCollection([SparseRunVariable(regressor.name, data, info, "events")])
    theirs.Convolve(collection, [regressor.name], model=regressor.hrf)
    return np.ravel(collection.variables[regressor.name].resample(1 / timing.repetition_time).values)


def test_a_stored_design_of_fitlins(shared):
    """Our reading of a published model, convolved with PyBIDS' stretching, is what FitLins stored, to 1e-10."""
    folder = shared / "realdata" / "stats_models"
    model = json.loads((folder / "models" / "ds000102-flanker_specs.json").read_text(encoding="utf-8"))
    node = make_model(model, None).nodes[0]
    events = read_events(folder / "designs" / "ds000102_sub-16_task-flanker_run-2_events.tsv")
    stored = pd.read_csv(folder / "designs" / "ds000102_task-flanker_design-matrix.tsv", sep="\t")
    confounds = {name: stored[name].to_numpy() for name in stored.columns[4:-1]}
    timing = Timing(2.0, len(stored), 0.0, "")
    made = model_of_node(node, RunTables(events, confounds), timing, SETTINGS, NAMES)
    assert [*(one.name for one in made.regressors), *made.columns] == [
        name.removeprefix("trial_type.") for name in stored.columns[:-1]
    ]
    onsets, durations = (np.array(events[name], dtype=float) for name in ("onset", "duration"))
    for one, column in zip(made.regressors, stored.columns[:4], strict=True):
        every = np.array(events["response_time"], dtype=float) if column == "rt_reg.rt" else durations
        theirs = stretched(one, timing, onsets, every)
        np.testing.assert_allclose(theirs, stored[column], atol=1e-10, rtol=0, err_msg=column)
