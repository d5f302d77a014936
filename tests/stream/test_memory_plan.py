"""Memory is shared out before anything is read, and what was promised is held."""

import itertools
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.core.errors import UsageError
from ibma_app.core.methods import InferenceSettings
from ibma_app.designs.build import one_sample_design
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.stream import memory_plan, stack
from ibma_app.stream.estimate import Model, estimate_maps
from ibma_app.stream.grid_and_mask import choose_grid
from ibma_app.stream.memory_plan import MemoryNeeds, Resampled, block_size, plan_memory
from ibma_app.stream.prepare import Plan
from ibma_app.stream.resampling.resample import score_resamples
from ibma_app.stream.similarity import compare_maps
from ibma_app.stream.stack import stack_maps
from ibma_app.stream.workers.machine import parse_size
from ibma_app.stream.workers.resources import Resources

BRAIN = MemoryNeeds(
    n_maps=3000, volume=902_629, base=902_629, voxels=228_483, stacked=3000 * 228_483 * 9, opened=2, kept=2
)
GIB = 1024**3


def test_a_laptop_takes_thousands_of_maps_from_disk():
    shared = plan_memory(BRAIN, 2 * GIB, 2)
    assert shared.on_disk
    assert (shared.readers, shared.threads) == (2, 2)
    assert 0 < shared.window <= GIB / 4
    assert not plan_memory(BRAIN, 64 * GIB, 2).on_disk


@pytest.mark.parametrize(
    "needs", [BRAIN, MemoryNeeds(2, 902_629, 902_629, 300_000, 10**7), MemoryNeeds(10**5, 9, 9, 9, 9 * 10**5)]
)
def test_what_cannot_be_done_is_refused_with_the_least_that_would_do(needs):
    with pytest.raises(UsageError, match="need at least") as caught:
        plan_memory(needs, needs.least - 1, 8)
    named = re.search(r"--mem (\d+M)", caught.value.message)
    assert named
    assert parse_size(named[1]) < needs.least + 2**20
    shared = plan_memory(needs, parse_size(named[1]), 8)
    assert shared.readers >= 1
    assert shared.threads >= 1


def test_each_of_several_processes_needs_it():
    with pytest.raises(UsageError, match=r"by each process.*fewer --nprocs") as caught:
        plan_memory(BRAIN, BRAIN.least // 2, 1, processes=4)
    named = re.search(r"--mem (\d+M)", caught.value.message)
    assert named
    assert parse_size(named[1]) // 4 >= BRAIN.least


def test_more_memory_never_does_less():
    least = BRAIN.least
    found = [plan_memory(BRAIN, int(least * factor), 16) for factor in (1, 1.5, 2, 4, 8, 64)]
    for one, more in itertools.pairwise(found):
        assert one.readers <= more.readers
        assert one.threads <= more.threads
        assert one.on_disk >= more.on_disk
    assert found[-1].threads == 16


def test_what_resampling_holds_is_counted():
    resampled = replace(BRAIN, resampled=Resampled(least_squares=True))
    assert resampled.least > 4 * 3000 * 228_483 > BRAIN.least
    with pytest.raises(UsageError, match=r"2\.7 GiB"):
        plan_memory(resampled, GIB, 2)
    assert plan_memory(resampled, 3 * GIB, 64).threads < plan_memory(BRAIN, 3 * GIB, 64).threads


def test_threads_are_those_of_the_final_mask(observe, rng, monkeypatch):
    """The first map covers little; the mask that three of four maps cover is large."""
    shape = (20, 20, 20)
    small = np.zeros(shape)
    small[:3, :3, :3] = rng.normal(size=(3, 3, 3))
    rows = [observe(f"{k}", {"effect": rng.normal(size=shape) if k else small}) for k in range(4)]
    grid, _ = choose_grid(rows, "common", "study", ("effect",))
    found = []
    plain = plan_memory
    monkeypatch.setattr(stack, "plan_memory", lambda needs, *limits: found.append(needs) or plain(needs, *limits))
    with stack_maps(rows, Plan(grid, ("effect",), "study")) as stacked:
        assert stacked.n_voxels == 8000
    assert [needs.voxels for needs in found] == [33, 8000]


def test_tiles_depend_on_the_maps_alone():
    assert [block_size(k) for k in (2, 512, 513, 3000, 10**6)] == [8192, 8192, 4096, 1024, 256]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_promise_is_held(observe, rng, tmp_path, threads, monkeypatch):
    """At the least memory that is accepted, and from disk, the arrays of a run stay within 1.3 times of it.

    The kernels of numba allocate a tile's scratch that tracemalloc does not
    see; all else is seen, buffers of the decompressor included.
    """
    shape, n_maps = (40, 40, 30), 60
    inside = rng.random(shape) < 0.4
    rows = []
    for k in range(n_maps):
        effect = np.where(inside, rng.normal(size=shape), 0).astype(np.float32)
        variance = np.where(inside, rng.gamma(5.0, 0.2, size=shape), 0).astype(np.float32)
        rows.append(observe(f"{k:02d}", {"effect": effect, "variance": variance}))
    grid, _ = choose_grid(rows, "common", "subject", ("effect", "variance"))
    reml = Model(find_estimator("reml"), one_sample_design(n_maps))
    n_voxels = int(inside.sum())
    needs = MemoryNeeds(n_maps, inside.size, inside.size, n_voxels, n_maps * n_voxels * 9, 2, 2)
    monkeypatch.setattr(memory_plan, "STACK_SHARE", 0.0)
    monkeypatch.setattr(memory_plan, "KEPT", 0)  # what the C library keeps is seen by nobody here

    def run(memory):
        plan = Plan(grid, ("effect", "variance"), "subject")
        with stack_maps(rows, plan, Resources(threads, memory, tmp_path)) as stacked:
            assert stacked.on_disk
            compare_maps(stacked)
            return estimate_maps(stacked, reml, Resources(threads=min(threads, stacked.side_by_side)))

    run(2 * needs.least)  # compiles
    for memory in (needs.least, 2 * needs.least):
        tracemalloc.start()
        estimate = run(memory)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 1.3 * memory
        assert estimate.n.size == n_voxels


@pytest.mark.parametrize("threads", [1, 3])
def test_the_promise_is_held_while_mixed_models_are_resampled(stack_of, rng, threads, monkeypatch):
    """Whole maps of many relabellings are the most that is held."""
    shape, n_maps = (60, 60, 50), 8
    stack = stack_of(
        np.ones(shape, dtype=bool),
        effect=rng.normal(size=(n_maps, 180_000)),
        variance=rng.uniform(0.5, 2, (n_maps, 180_000)),
    )
    columns = np.column_stack([np.ones(n_maps), np.arange(n_maps)])
    design = Design(columns, ("Intercept", "x"), (Test("x", np.array([[0.0, 1.0]])),))
    model, settings = Model(find_estimator("reml"), design), InferenceSettings(permutations=66)
    scores = {name: find_inference(name).score for name in ("max-stat", "cluster-mass", "tfce")}
    monkeypatch.setattr(memory_plan, "KEPT", 0)
    needs = MemoryNeeds(n_maps, 180_000, 180_000, 180_000, 0, kept=2, resampled=Resampled(others=True, columns=2))
    score_resamples(stack, model, design.tests[0], scores, replace(settings, permutations=2))  # compiles
    tracemalloc.start()
    estimate = estimate_maps(stack, model)
    null = score_resamples(stack, model, design.tests[0], scores, settings, Resources(threads=threads))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert null.resamples == 66
    assert estimate.n.size == 180_000
    assert 64 * 4 * 180_000 < peak <= needs.resampling(threads)
