"""Compile every kernel that an estimator calls, while the image is built.

The kernels land beside their source (``ibma_app/stats/__pycache__``), where a
container finds them under any uid and on a read-only file system. They are
compiled for a generic CPU (NUMBA_CPU_NAME in the Dockerfile), so that they
serve, with the same bits, on every machine that the image runs on.
"""

import numpy as np

from ibma_app.core.block import VoxelBlock
from ibma_app.core.design import Design, Test
from ibma_app.estimators import ESTIMATORS, find_estimator

K, B = 6, 4


def make_block() -> VoxelBlock:
    """Make a block of noise."""
    random = np.random.default_rng(0)
    z = random.normal(size=(K, B))
    return VoxelBlock(
        covered=np.ones((K, B), dtype=bool),
        effect=z,
        variance=random.uniform(0.5, 2, size=(K, B)),
        z=z,
        dof=np.full((K, B), 30.0),
        sample_size=np.full(K, 31.0),
    )


def make_design(*, one_sample: bool) -> Design:
    """Make a design with t tests, and with an F test where it has a slope."""
    mean = Test("mean", np.array([[1.0]]))
    if one_sample:
        return Design(np.ones((K, 1)), ("Intercept",), (mean,))
    tests = (Test("slope", np.array([[0.0, 1.0]])), Test("both", np.eye(2), is_f=True))
    return Design(
        np.column_stack([np.ones(K), np.arange(K) - 2.5]), ("Intercept", "x"), tests, formula="1 + x"
    )


block = make_block()
for name in ESTIMATORS:
    estimator = find_estimator(name)
    for one_sample in (True, False):
        if one_sample or estimator.takes_designs:
            estimator.fit(block, make_design(one_sample=one_sample))
