"""Rank and aliasing, whatever the units."""

import numpy as np

from ibma_app.designs.aliases import describe_aliases, has_full_rank


def test_rank_does_not_hinge_on_units():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((12, 4))
    assert has_full_rank(matrix)
    assert has_full_rank(matrix * [1e-12, 1e12, 1, 1e5])
    aliased = np.column_stack([matrix, matrix @ [1, -2, 0, 0.5]])
    assert not has_full_rank(aliased)
    assert not has_full_rank(aliased * [1e-12, 1e12, 1, 1e5, 1e-6])


def test_a_large_mean_is_not_aliasing():
    years = 2000.0 + np.arange(10)
    assert has_full_rank(np.column_stack([np.ones(10), years]))


def test_equations():
    a, b = np.array([1.0, 1, 0, 0, 0]), np.array([0, 0, 1.0, 1, 1])
    matrix = np.column_stack([np.ones(5), a, b, np.zeros(5), np.arange(5), 3 * a + 2 * np.arange(5)])
    names = ["intercept", "a", "b", "nil", "age", "mix"]
    assert describe_aliases(matrix, names) == [
        "'b' = 'intercept' - 'a'",
        "'nil' is 0 everywhere",
        "'mix' = 3*'a' + 2*'age'",
    ]


def test_long_equations_are_cut():
    matrix = np.column_stack([np.eye(9), np.ones(9)])
    (equation,) = describe_aliases(matrix, [f"x{i}" for i in range(10)])
    assert equation.endswith("'x5' + ... (9 columns)")
