"""All three levels with one model file give the bytes that they give with options."""

import json

import numpy as np
import pytest

CONTRASTS = ("inVcon=incongruent-congruent", "go=(incongruent+congruent)/2")
OF_RUN = ("-t", "flanker", "--confounds", "motion6", "--contrasts", *CONTRASTS)
OF_GROUP = ("--formula", "1 + age", "--test", "old=age", "--estimator", "ols", "--inference", "fdr")


@pytest.fixture
def bids(tmp_path, maker):
    """Return a raw dataset of three subjects with two runs each, and its preprocessed BOLD."""
    document = maker("flanker_model").FLANKER
    inputs = {"subject": ["01", "02", "03"], "task": ["flanker"], "run": [1, 2]}
    raw, derived = maker("made_datasets").write_dataset(tmp_path, {**document, "Input": inputs}, subjects=3, runs=2)
    rows = "".join(f"sub-{label}\t{20 + place**2}\n" for place, label in enumerate(inputs["subject"]))
    (raw / "participants.tsv").write_text(f"participant_id\tage\n{rows}", encoding="utf-8")
    return raw, derived


@pytest.mark.slow
def test_a_model_file_gives_the_bytes_of_the_options(contents, tmp_path, cli, bids):
    raw, derived = bids
    out, model = tmp_path / "out", tmp_path / "model-flanker_smdl.json"
    data = ("-d", f"fmriprep={derived}")
    printed = cli(raw, out, "run", *data, "-m", "default", *OF_RUN, *OF_GROUP)
    assert printed.code == 0, printed.stderr
    model.write_text(printed.stdout, encoding="utf-8")
    assert [node["Level"] for node in json.loads(printed.stdout)["Nodes"]] == ["Run", "Subject", "Dataset"]
    chosen = ("-t", "flanker")
    with_options = {"run": (*data, *OF_RUN), "participant": chosen, "group": (*chosen, *OF_GROUP)}
    with_model = {"run": (*data, "-m", model), "participant": ("-m", model), "group": ("-m", model)}
    written = []
    for chain in (with_options, with_model):
        for level, words in chain.items():
            ran = cli(raw, out, level, *words)
            assert ran.code == 0, ran.stderr
        written.append(contents(out))
        out.rename(tmp_path / f"out{len(written)}")
    options, of_model = written
    assert any("_run-2_" in name and "contrast-go_stat-variance" in name for name in options)
    assert any("group/" in name and "contrast-inVcon_test-old_desc-ols_stat-t" in name for name in options)
    assert list(options) == list(of_model)
    assert [name for name, content in options.items() if content != of_model[name]] == []
    sizes = [len(content) for name, content in options.items() if name.endswith(".nii.gz")]
    assert np.median(sizes) > 50
