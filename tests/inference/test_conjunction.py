"""Conjunctions: the weakest test counts, at each voxel and after correction."""

from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.core.estimate import Field
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import CaveatFacts
from ibma_app.core.methods import InferenceSettings
from ibma_app.inference import find_inference
from ibma_app.inference.conjunction import conjoin, conjoin_fields
from ibma_app.stats.tails import z_to_log10p

A = np.array([4.0, 4.0, -5.0, 1.0, 0.0, 3.5])
B = np.array([3.0, -6.0, -4.0, 5.0, 4.0, 3.6])


def field(z: np.ndarray, tail: str = "two-sided") -> Field:
    estimable = np.array([True] * 5 + [False])
    grid = Grid(np.eye(4), np.ones((z.size, 1, 1), dtype=bool))
    return Field(np.where(estimable, z, 0.0), tail, estimable, grid, np.where(estimable, z_to_log10p(z, tail), 0.0))


def test_the_weakest_statistic_of_one_sign_counts():
    both = conjoin_fields([field(A), field(B)])
    assert both.z.tolist() == [3.0, 0.0, -4.0, 1.0, 0.0, 0.0]  # signs differ: nothing; not estimable: nothing
    expected = z_to_log10p(np.array([3.0, 0.0, -4.0, 1.0, 0.0, 0.0]), "two-sided")
    np.testing.assert_allclose(both.log10_p, expected, atol=1e-12)
    up, down = (conjoin_fields([field(A, tail), field(B, tail)]) for tail in ("positive", "negative"))
    assert up.z.tolist() == [3.0, -6.0, -5.0, 1.0, 0.0, 0.0]
    assert down.z.tolist() == [4.0, 4.0, -4.0, 5.0, 4.0, 0.0]
    np.testing.assert_allclose(up.log10_p[:5], z_to_log10p(up.z[:5], "positive"))


@pytest.mark.parametrize("name", ["bonferroni", "fdr"])
def test_p_of_the_conjunction_are_corrected(name):
    record, settings = find_inference(name), InferenceSettings(alpha=0.02)
    fields = [field(A), field(B)]
    parts = [record.infer(one, None, settings) for one in fields]
    both = conjoin_fields(fields)
    found = conjoin(record, both, parts, settings)
    np.testing.assert_allclose(found.log10_p, record.infer(both, None, settings).log10_p)
    assert found.significant.tolist() == [True, False, True, False, False, False]


def test_corrected_p_of_other_inferences_are_intersected():
    record, settings = find_inference("max-stat"), InferenceSettings()
    fields = [field(A), field(B)]
    parts = [find_inference("bonferroni").infer(one, None, settings) for one in fields]
    parts[0] = replace(parts[0], facts=(*parts[0].facts, CaveatFacts("so so")))
    found = conjoin(record, conjoin_fields(fields), parts, settings)
    assert found.significant.tolist() == [True, False, True, False, False, False]
    assert found.log10_p[0] == pytest.approx(min(part.log10_p[0] for part in parts))
    assert found.log10_p[1] == 0.0  # the signs differ
    assert found.z_threshold == 3.0
    assert any(isinstance(fact, CaveatFacts) for fact in found.facts)


def test_conjunctions_are_named_after_their_tests():
    tests = tuple(Test(name, np.eye(2)[[row]], title=f"C({name})") for row, name in enumerate(("old", "young")))
    together = Design(np.eye(2), ("a", "b"), tests).conjoin(("old", "young"))
    assert (together.name, together.of, together.is_f) == ("oldAndYoung", ("old", "young"), False)
    assert together.title == "C(old) and C(young)"
    np.testing.assert_array_equal(together.weights, np.eye(2))
