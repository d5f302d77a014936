"""Maps without any effect: of subjects and of studies, alike or unlike, for voxels that are smooth or independent."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from repeated_layouts import Layout, observe
from scipy import ndimage, stats

from ibma_app.core.design import Design, Test
from ibma_app.core.grid import Grid
from ibma_app.core.results import MapSurvey
from ibma_app.designs.build import build_design
from ibma_app.designs.tables import collect_covariates
from ibma_app.designs.tests import parse_tests
from ibma_app.stats.tails import t_to_z
from ibma_app.stream.hedges_g import Sample, hedges_g, pool_variances
from ibma_app.stream.row_store import RowStore
from ibma_app.stream.stack import Stack

FWHM = 2.5  # voxels
SIDE = 8  # of the cube of smooth voxels
MARGIN = 3  # voxels between the cube and its repetition: noise is periodic
RUN_DOF, STUDY_SIZES = 200, (10, 60)
TAU2 = {"studies": 0.05, "subjects": 1.0}  # about as large as a typical sampling variance
Noise = Callable[[np.random.Generator, int], np.ndarray]
"""Draws standard noise of K maps, (K, V)."""


@dataclass(frozen=True)
class Maps:
    """What is combined."""

    kind: str  # "subjects" or "studies": how many degrees of freedom a variance has, and how much variances differ
    n: int
    design: str = "mean"  # or "moderator", "groups", "three groups", "repeated"
    differ: bool = True  # whether true effects do (tau2)
    known: bool = False  # variances are true, not estimates
    missing: float = 0.0  # share of values; two maps are everywhere
    first: int = 0  # maps of the first of two groups
    spread: float = 1.0  # the SD of that group over the other's: of subjects all of it, of studies that of true effects
    standardised: bool = False  # effects are Hedges' g

    @property
    def title(self) -> str:
        """Return it in words."""
        if self.design == "repeated":
            return f"{self.n} subjects x 3 conditions"
        parts = [f"{self.n} {self.kind}"]
        if self.first:
            parts[0] += f", {self.first} against {self.n - self.first}"
        parts[0] += ", Hedges' g" if self.standardised else ""
        parts += {"moderator": ["a moderator"], "three groups": ["three groups, F"]}.get(self.design, [])
        parts += [] if self.differ else ["effects that agree"]
        parts += ["variances known"] if self.known else []
        parts += [f"{self.missing:.0%} missing"] if self.missing else []
        if self.spread != 1:
            parts.append(f"{'tau' if self.kind == 'studies' else 'SD'} {self.spread:g} times in the first")
        return ", ".join(parts)


LAYOUT = Layout(subjects=12, sds=(2.0, 2.0, 0.3))  # no sphericity


def white(n_voxels: int) -> Noise:
    """Return noise that is independent from voxel to voxel."""
    return lambda rng, n_maps: rng.standard_normal((n_maps, n_voxels))


def smooth() -> Noise:
    """Return noise with the smoothness of a Gaussian kernel in a cube of `SIDE` voxels."""
    size, sigma = SIDE + MARGIN, FWHM / np.sqrt(8 * np.log(2))
    kernel = ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0, mode="wrap", truncate=6)
    kernel /= np.sqrt((kernel**2).sum(axis=1))[:, None]

    def draw(rng: np.random.Generator, n_maps: int) -> np.ndarray:
        values = rng.standard_normal((n_maps, size, size, size))
        for axis in (1, 2, 3):
            values = np.moveaxis(np.tensordot(values, kernel[:SIDE], axes=(axis, 1)), -1, axis)
        return values.reshape(n_maps, -1)

    return draw


def chi_square_over_dof(noise: np.ndarray, dof: np.ndarray) -> np.ndarray:
    """Turn standard noise into estimates of a variance of 1 (Wilson & Hilferty 1931)."""
    width = 2 / (9 * dof)
    return (1 - width + np.sqrt(width) * noise) ** 3


def draw_maps(maps: Maps, noise: Noise, rng: np.random.Generator, kinds: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Draw the kinds that are asked for, (K, V) each, NaN where missing; dof (K, 1) and sample sizes (K,)."""
    if maps.design == "repeated":
        return {"effect": np.array(list(LAYOUT.draw(lambda r: noise(r, 1)[0], rng)))}
    if maps.kind == "studies":
        sizes = rng.integers(STUDY_SIZES[0], STUDY_SIZES[1] + 1, maps.n).astype(float)
        true, dof = 1.25 / sizes[:, None], sizes[:, None] - 1
    else:
        sizes = np.ones(maps.n)
        true, dof = rng.uniform(0.25, 1.0, (maps.n, 1)), np.full((maps.n, 1), float(RUN_DOF))
    spread = np.where(np.arange(maps.n) < maps.first, maps.spread, 1.0)[:, None]
    true = true * spread**2 if maps.kind == "subjects" else true
    between = TAU2[maps.kind] * spread**2 if maps.differ else 0.0
    effect = noise(rng, maps.n) * np.sqrt(true + between)
    found, variance = {"effect": effect}, np.broadcast_to(true, effect.shape)
    if kinds != ("effect",):
        found["variance"] = variance if maps.known else true * chi_square_over_dof(noise(rng, maps.n), dof)
    if maps.missing:
        gone = rng.random(effect.shape) < maps.missing
        gone[:2] = False
        found = {name: np.where(gone, np.nan, values) for name, values in found.items()}
    more = {"dof": np.full_like(dof, np.inf) if maps.known else dof, "sample_size": sizes}
    if kinds != ("z",) and not maps.standardised:
        return found | more
    t = found["effect"] / np.sqrt(found["variance"])
    if not maps.standardised:
        return found | more | {"z": t if maps.known else t_to_z(np.nan_to_num(t), dof) + 0 * t}
    samples = [Sample(float(n), n - 1.0) for n in sizes]
    g = np.array([hedges_g(row, sample)[0] for row, sample in zip(t, samples, strict=True)])
    return {"effect": g, "variance": pool_variances(g, np.isfinite(g), samples), **more}


def design_of(maps: Maps) -> Design:
    """Ask for the mean, the slope of a moderator, a difference between groups or conditions."""
    if maps.design == "repeated":
        rows = observe(LAYOUT)
        test = "1/2*contrast[c0] + 1/2*contrast[c1] - contrast[c2]"
        formula = "0 + C(contrast) + C(participant_id)"
        return build_design(rows, collect_covariates(rows), formula, parse_tests([f"test={test}"]))
    ones = np.ones(maps.n)
    if maps.design == "mean":
        return Design(ones[:, None], ("intercept",), (Test("test", np.ones((1, 1))),))
    if maps.design == "three groups":
        matrix = np.eye(3)[np.arange(maps.n) % 3]
        weights = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
        return Design(matrix, ("a", "b", "c"), (Test("test", weights),))
    if maps.design == "groups":
        column = (np.arange(maps.n) >= maps.first).astype(float)
    else:
        column = stats.norm.ppf((np.random.default_rng(maps.n).permutation(maps.n) + 0.5) / maps.n)
    tests, groups = (Test("test", np.array([[0.0, 1.0]])),), tuple("ab"[int(one > 0)] for one in column)
    return Design(
        np.column_stack([ones, column]), ("intercept", "x"), tests, groupings={"x": groups} if maps.first else {}
    )


def cube() -> Grid:
    """Return the grid of the smooth voxels."""
    mask = np.zeros((SIDE + 2,) * 3, dtype=bool)
    mask[1:-1, 1:-1, 1:-1] = True
    return Grid(np.diag([2.0, 2, 2, 1]), mask)


def make_stack(found: dict[str, np.ndarray], kinds: tuple[str, ...], grid: Grid) -> Stack:
    """Stack maps as they are stacked from files."""
    n_maps, n_voxels = found["effect"].shape
    store = RowStore()
    for kind in kinds:
        for row, values in enumerate(found[kind]):
            store.append(kind, row, values, 0)
    store.select({0: np.arange(n_voxels)})
    survey = tuple(MapSurvey(f"map-{row}", (), n_voxels) for row in range(n_maps))
    rows, signed = tuple(range(n_maps)), (True,) * n_maps
    return Stack(grid, survey, (), kinds, rows, signed, found.get("sample_size"), found.get("dof"), store)


TARGET = SimpleNamespace(grid=cube())
"""What `make_field` wants to know of a result."""
