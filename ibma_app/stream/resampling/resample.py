"""Resampling: the largest score of a test's map in each relabelling, for any estimator and design."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.design import Test
from ibma_app.core.errors import DataError, UsageError
from ibma_app.core.estimate import Null
from ibma_app.core.methods import InferenceSettings, Score
from ibma_app.stream.estimate import Model
from ibma_app.stream.resampling.by_kind import join_kinds, split_by_kind
from ibma_app.stream.resampling.checkpoints import digest
from ibma_app.stream.resampling.fast_bounds import FastBounded, takes_bounds
from ibma_app.stream.resampling.fast_flips import FastFlips, gather_sums
from ibma_app.stream.resampling.fast_incomplete import FastIncomplete, takes_products
from ibma_app.stream.resampling.fast_mixed import FastMixed, takes_scan
from ibma_app.stream.resampling.fast_ols import FastLeastSquares, gather_residuals
from ibma_app.stream.resampling.fast_sandwich import FastSandwich, gather_clusters
from ibma_app.stream.resampling.one_pass import Resampler, score_all
from ibma_app.stream.resampling.refit import Refit, Refitter
from ibma_app.stream.resampling.relabelling import Scheme, count_ties, plan_scheme
from ibma_app.stream.resampling.scoring import Scoring
from ibma_app.stream.stack import Stack
from ibma_app.stream.workers.resources import ONE_THREAD, Resources

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def score_resamples(
    stack: Stack,
    model: Model,
    test: Test,
    scores: Mapping[str, Score],
    settings: InferenceSettings,
    resources: Resources = ONE_THREAD,
    on_progress: Callable[[int], None] | None = None,
) -> Null:
    """Relabel the maps of one test and keep the largest of each score, all scores in one pass.

    The estimator is fitted anew in every relabelling (tau2 included). Least
    squares with complete coverage, and t tests of mixed models, take
    faster paths to the same heights.

    Parameters
    ----------
    stack : Stack
        K maps, V voxels.
    model : Model
        Its design has one row per row of the stack.
    test : Test
        One of the design's; its tail decides (F tests: upper tail).
    scores : mapping of str to Score
        By inference name; at least one.
    settings : InferenceSettings
        Passed to the scores. Its ``permutations`` is the number of
        relabellings: random ones, the identity among them, or all distinct
        ones where there are no more. Its ``seed`` alone decides which.
    resources : Resources
        Its workers are sent the maps, and score relabellings in the threads'
        place; its checkpoints keep the scores of a long pass.
    on_progress : callable, optional
        Called with the number of relabellings done since the last call; `count_relabellings` counts all.

    Returns
    -------
    Null

    Raises
    ------
    DataError
        Maps of unsigned p: relabelling them changes nothing.
    UsageError
        Fewer than 1 permutation, or a negative seed.
    """
    if not scores:
        raise ValueError("There is nothing to score.")
    _check(stack, settings)
    scheme = plan_scheme(model, test, settings)
    if "tau2_ci" in model.settings:  # its intervals are not scored, and take long
        model = replace(model, settings={**model.settings, "tau2_ci": "no"})
    parts = split_by_kind(scores, stack.grid, scheme.tail, settings)
    every = {name: score for of in parts.values() for name, score in of.items()}
    resampler = _choose_resampler(stack, model, scheme, _open_scoring(stack, scheme, every, settings), resources)
    maxima = np.full((len(resampler.names), scheme.relabellings.n_drawn), np.nan)
    if resources.checkpoints is not None:
        key = _identify(resampler, stack.grid, model, scheme, settings)
        maxima = resources.checkpoints.begin(key, maxima, f"Test {test.name}")
    observed = score_all(resampler, maxima, resources, on_progress)
    joined = join_kinds(parts, observed, dict(zip(resampler.names, maxima, strict=True)))
    null = _to_null(scheme, *joined, settings.seed)
    return replace(null, kinds={name: len(of) for name, of in parts.items() if name not in of})


def _open_scoring(
    stack: Stack, scheme: Scheme, scores: Mapping[str, Score], settings: InferenceSettings
) -> Callable[[Integers], Scoring]:
    return lambda live: Scoring(scores, stack.grid, scheme.tail, settings, live)


def _choose_resampler(
    stack: Stack, model: Model, scheme: Scheme, open_scoring: Callable[[Integers], Scoring], resources: Resources
) -> Resampler:
    """Take the fastest path that gives the numbers of the general one."""
    if model.clusters is not None:
        clusters = gather_clusters(stack, model, scheme)
        if clusters is not None:
            return FastSandwich(clusters, open_scoring(clusters.live))
    elif model.estimator.relabels is not None and (data := gather_residuals(stack, scheme)) is not None:
        return FastLeastSquares(data, scheme, open_scoring(data.live))
    independent = model.design.dependence is None
    if independent and (sums := gather_sums(stack, model, scheme)) is not None:
        return FastFlips(sums, scheme, open_scoring(sums.live))
    refitter = Refitter(stack, model, scheme, resources.threads)
    scoring = open_scoring(np.flatnonzero(refitter.live))
    if refitter.n_live and takes_bounds(model, scheme, scoring):
        return FastBounded(model, refitter, scoring)
    if refitter.n_live and takes_scan(model, scheme):
        return FastMixed(model, refitter, scoring)
    if refitter.n_live and takes_products(model, scheme):
        return FastIncomplete(refitter, scoring)
    return Refit(refitter, scoring)


def _identify(resampler: Resampler, grid: Shape, model: Model, scheme: Scheme, settings: InferenceSettings) -> str:
    """Hash everything that decides the numbers of a pass."""
    partition, relabellings, design = scheme.partition, scheme.relabellings, scheme.design
    names = (resampler.names, scheme.kind, scheme.tail, scheme.rows, model.estimator.name)
    chosen = (sorted(model.settings.items()), model.variance_groups)
    options = (chosen, settings.cluster_p, sorted(settings.options.items()))
    arrays = (partition.effective, partition.nuisance, relabellings.orders, relabellings.signs, design.matrix)
    known = None if model.design.dependence is None else model.design.dependence.correlation
    depend = (model.relabelled_together, known)
    return digest(itertools.chain((names, options, grid.mask, *_place(grid)), arrays, depend, resampler.data()))


def count_relabellings(model: Model, test: Test, settings: InferenceSettings) -> int:
    """Count the relabellings that `score_resamples` computes: mirror images are not computed."""
    scheme = plan_scheme(model, test, settings)
    return scheme.relabellings.n_drawn


def _check(stack: Stack, settings: InferenceSettings) -> None:
    if settings.permutations < 1:
        raise UsageError(f"--permutations is {settings.permutations}; it must be 1 or more, such as 5000.")
    if not 0 <= settings.seed < 2**64:
        raise UsageError(f"--seed is {settings.seed}; it must be 0 or a positive integer.")
    if not all(stack.signed):
        raise DataError(
            "Resampling relabels the direction of the maps' effects, and maps of unsigned p values have none. "
            "Use inferences that do not resample with them."
        )


def _to_null(scheme: Scheme, observed: Mapping[str, Floats], maxima: Mapping[str, Floats], seed: int) -> Null:
    """Make the null distribution, in which a relabelling stands for its mirror image too."""
    relabellings = scheme.relabellings
    times = 2 if relabellings.mirrored else 1
    return Null(
        maxima={name: np.tile(values, times) for name, values in maxima.items()},
        observed=observed,
        exhaustive=relabellings.exhaustive,
        relabelling=scheme.relabelling,
        seed=None if relabellings.exhaustive else seed,
        ties=count_ties(scheme),
    )


def _place(shape: Shape) -> tuple[NDArray[np.float64], ...]:
    """Return what tells where elements lie, and how large they are."""
    if shape.box is not None:
        return (shape.box.affine,)
    every = np.arange(shape.n_voxels)
    return shape.places_at(every), shape.sizes_at(every)
