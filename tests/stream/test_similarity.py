"""Maps that stand out are flagged, sound ones are not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ibma_app.stream import similarity
from ibma_app.stream.similarity import compare_maps

MASK = np.ones((16, 16, 16), dtype=bool)


def smooth(rng, n_maps, width=1.5):
    maps = np.stack([gaussian_filter(rng.normal(size=MASK.shape), width).ravel() for _ in range(n_maps)])
    return maps / maps.std(axis=1, keepdims=True)


@pytest.fixture
def with_signal(rng) -> np.ndarray:
    """Twelve maps that share a signal, each with an amplitude of its own."""
    return smooth(rng, 12) + smooth(rng, 1) * rng.uniform(0.5, 1.5, (12, 1))


@pytest.fixture
def compare(stack_of):
    """Return ``compare(maps (K, V), kind="effect", signed=True) -> Similarity``; the survey's medians are the maps'."""

    def run(maps, kind="effect", *, signed=True, variance=None):
        kinds = {kind: maps} if variance is None else {kind: maps, "variance": variance}
        stack = stack_of(MASK, signed=signed, **kinds)
        survey = [
            replace(
                one,
                median_abs_effect=float(np.nanmedian(np.abs(maps[row]))) if kind == "effect" else None,
                median_variance=None if variance is None else float(np.median(variance[row])),
            )
            for row, one in enumerate(stack.survey)
        ]
        return compare_maps(replace(stack, survey=tuple(survey)))

    return run


def kinds(found) -> dict[str, tuple[int, ...]]:
    return {flag.kind: flag.rows for flag in found.flags}


def test_correlations_are_those_of_the_maps(compare, with_signal):
    found = compare(with_signal)
    expected = np.corrcoef(with_signal)
    shown = np.array(found.correlations, dtype=float)
    off = ~np.eye(12, dtype=bool)
    np.testing.assert_allclose(shown[off], expected[off], rtol=0, atol=6e-5)  # kept to four digits
    assert all(found.correlations[row][row] is None for row in range(12))
    assert found.n_voxels == MASK.size
    assert found.scale[5] == float(np.median(np.abs(with_signal[5])))
    assert found.flags == ()


def test_a_turned_map_is_named(compare, with_signal):
    with_signal[4] *= -1
    found = compare(with_signal)
    assert kinds(found) == {"sign": (4,)}
    assert "sub-4 (−" in found.flags[0].text
    assert "sign" not in kinds(compare(with_signal, kind="z", signed=False))


def test_a_map_that_is_there_twice_is_named(compare, with_signal):
    mirrored = with_signal.copy()
    mirrored[2] = -1.5 * mirrored[8]
    with_signal[[2, 9]] = 40 * with_signal[7]
    found = compare(with_signal)
    assert kinds(found)["duplicate"] == (2, 7, 9)
    assert "sub-2 = sub-7 = sub-9" in found.flags[0].text
    assert "The same map with the sign turned" in compare(mirrored).flags[0].text


def test_a_map_in_another_unit_is_named(compare, with_signal):
    with_signal[0] *= 100
    assert kinds(compare(with_signal)) == {"scale": (0,)}
    assert "sub-0 (" in compare(with_signal).flags[0].text
    variance = np.full(with_signal.shape, 0.04)
    with_signal[0] /= 100
    variance[3] /= 1e4
    assert kinds(compare(with_signal, variance=variance)) == {"variance": (3,)}
    assert "sub-3 (0.01 times)" in compare(with_signal, variance=variance).flags[0].text


def test_honest_maps_raise_nothing(compare, rng):
    # noise alone, scales that differ threefold, two groups of opposite effects, studies each in a unit of its own
    for _ in range(10):
        assert compare(smooth(rng, 8) * rng.lognormal(0, 0.4, (8, 1))).flags == ()
    signal = smooth(rng, 1)
    opposite = smooth(rng, 12) + signal * np.repeat([1.0, -1.0], 6)[:, None]
    assert compare(opposite).flags == ()
    units = (smooth(rng, 12) + signal) * 10.0 ** rng.integers(-3, 4, (12, 1))
    assert compare(units).flags == ()


def test_few_maps_accuse_no_one(compare, with_signal):
    few = with_signal[:4] * [[1], [1], [1], [-100]]
    assert compare(few).flags == ()
    assert compare(with_signal[:1]) is None


def test_many_maps_are_sampled_and_grouped(monkeypatch, compare, with_signal):
    monkeypatch.setattr(similarity, "VALUES", 12 * 1024)
    monkeypatch.setattr(similarity, "DRAWN", 5)
    with_signal[11] = with_signal[6]
    found = compare(with_signal)
    assert found.n_voxels == 1024
    assert found.starts == (0, 2, 4, 7, 9)
    assert (len(found.correlations), len(found.agreement)) == (5, 12)
    assert kinds(found) == {"duplicate": (6, 11)}
    whole = np.corrcoef(with_signal)
    # a quarter of smooth maps of some 200 resels: r is known to about 0.1
    assert found.correlations[0][2] == pytest.approx(whole[:2, 4:7].mean(), abs=0.2)


def test_uncovered_voxels_take_no_part(compare, with_signal):
    expected = np.corrcoef(with_signal[:2, 1000:])[0, 1]
    with_signal[0, :1000] = np.nan
    assert compare(with_signal).correlations[0][1] == pytest.approx(expected, abs=6e-5)
