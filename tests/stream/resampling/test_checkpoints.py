"""A pass that was cut short goes on, with the numbers that it would have had."""

import logging

import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.core.errors import OutputError
from ibma_app.core.methods import InferenceSettings
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling import checkpoints as checkpoint
from ibma_app.stream.resampling.checkpoints import Checkpoints, digest
from ibma_app.stream.resampling.resample import score_resamples
from ibma_app.stream.workers.resources import Resources

NAMES = ("max-stat", "tfce")
DESIGN = Design(np.ones((10, 1)), ("intercept",), (Test("m", np.eye(1)),))


@pytest.fixture
def logged(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ibma_app"), "propagate", True)
    caplog.set_level(logging.INFO, "ibma_app")
    return caplog


@pytest.fixture
def at_once(monkeypatch):
    """Save after every job."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)


@pytest.fixture
def open_run(tmp_path):
    """Return ``open_run() -> Checkpoints``: those of one more run into the same folder."""
    folder = tmp_path / "kept"

    def write(name, content):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return lambda: Checkpoints(folder, write)


@pytest.fixture
def resample(stack_of):
    """Return ``resample(estimator, checkpoints=None, **options) -> Null`` of ten maps."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(10, 125))
    variance = rng.uniform(0.5, 2, values.shape)

    def run(estimator="ols", checkpoints=None, names=NAMES, values=values, threads=1, on_progress=None, **options):
        stack = stack_of(np.ones((5, 5, 5), dtype=bool), effect=values, variance=variance)
        scores = {name: find_inference(name).score for name in names}
        settings = InferenceSettings(**{"cluster_p": 0.02, "permutations": 100, **options})
        resources = Resources(threads=threads, checkpoints=checkpoints)
        model = Model(find_estimator(estimator), DESIGN)
        return score_resamples(stack, model, DESIGN.tests[0], scores, settings, resources, on_progress)

    run.values = values
    return run


class Stop(Exception):
    pass


def stop_after(relabellings):
    """Give a progress function that ends the run."""
    done = []

    def logged(count):
        done.append(count)
        if sum(done) >= relabellings:
            raise Stop

    return logged


@pytest.mark.parametrize("estimator", ["ols", "reml", "fixed-effects"])
@pytest.mark.parametrize("threads", [1, 3])
def test_it_goes_on_with_the_same_numbers(resample, open_run, at_once, logged, estimator, threads):
    whole = resample(estimator)
    with pytest.raises(Stop):
        resample(estimator, open_run(), on_progress=stop_after(40), threads=threads)
    counts = []
    again = open_run()
    found = resample(estimator, again, on_progress=counts.append, threads=threads)
    assert "Test m goes on from resample" in logged.text
    assert 33 <= counts[0] < 100, "what was there was not computed again"
    assert sum(counts) == 100
    for name in NAMES:
        assert found.maxima[name].tobytes() == whole.maxima[name].tobytes()
        assert found.observed[name].tobytes() == whole.observed[name].tobytes()
    counts.clear()
    resample(estimator, open_run(), on_progress=counts.append)
    assert counts == [100], "a finished pass is kept until its run is over"
    again.remove()
    assert not again._folder.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"permutations": 101},
        {"names": ("max-stat",)},
        {"estimator": "reml"},
        {"cluster_p": 0.01},
        {"values": 1},
    ],
)
def test_whatever_differs_begins_anew(resample, open_run, at_once, change):
    if "values" in change:
        change = {"values": resample.values + 1e-6}
    with pytest.raises(Stop):
        resample("ols", open_run(), on_progress=stop_after(50))
    counts = []
    resample(checkpoints=open_run(), on_progress=counts.append, **change)
    assert counts[0] == 1


def test_a_short_run_writes_nothing(resample, open_run):
    kept = open_run()
    resample("ols", kept)
    assert not kept._folder.exists()


def test_a_damaged_file_counts_for_nothing(resample, open_run, at_once, logged):
    kept = open_run()
    resample("ols", kept)
    (file,) = kept._folder.iterdir()
    for content in (b"", file.read_bytes()[:-9], b"\x93NUMPY nonsense"):
        file.write_bytes(content)
        counts = []
        resample("ols", open_run(), on_progress=counts.append)
        assert counts[0] == 1
    assert "starts anew" in logged.text


def test_a_full_disk_ends_the_saving_alone(resample, tmp_path, at_once, logged):
    calls = []

    def write(name, content):
        calls.append(name)
        raise OutputError("no space left")

    null = resample("ols", Checkpoints(tmp_path / "none", write))
    assert null.resamples == 100
    assert len(calls) == 1
    assert "no space left" in logged.text


def test_others_files_stay(open_run, resample, at_once, monkeypatch):
    one, two = open_run(), open_run()
    resample("ols", one)
    resample("reml", two)
    one.remove()
    assert len(list(two._folder.iterdir())) == 1
    monkeypatch.setattr(checkpoint, "LASTING", -1.0)
    open_run().remove()
    assert not two._folder.exists(), "what nobody took up again goes"


def test_digests_tell_arrays_apart():
    square = np.arange(4.0).reshape(2, 2)
    parts = [[square], [square.T], [square.ravel()], [square.astype(np.float32)], [square, 1], [square, "1"], []]
    assert len({digest(one) for one in parts}) == len(parts)
    assert digest([np.asfortranarray(square)]) == digest([square])
