"""Family-wise error on surfaces, and on surfaces and volumes together, in maps without any effect.

``python validation/surfaces.py [--sets 1000] [--keep FILE] [--write FILE]`` simulates maps of smooth noise on both
hemispheres of fsaverage5 (nilearn's mesh), and on its left one beside two boxes of voxels, where each kind's largest
score is ranked in its own null. It counts the data sets in which anything is significant. ``--keep`` adds each data set
to a file and begins after those in it. The other FILE is docs/validation-surfaces.md. It exits with 1 when 0.05 lies
outside of the 99 % interval of any share.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import nibabel as nib  # noqa: E402
import nilearn  # noqa: E402
import numpy as np  # noqa: E402
from familywise_cells import ALPHA  # noqa: E402
from scipy import ndimage, sparse, stats  # noqa: E402

from ibma_app.core.anatomy.elements import Elements  # noqa: E402
from ibma_app.core.anatomy.structures import Mesh, Surface, Voxels  # noqa: E402
from ibma_app.core.design import Design, Test  # noqa: E402
from ibma_app.core.estimate import Field  # noqa: E402
from ibma_app.core.methods import InferenceSettings  # noqa: E402
from ibma_app.core.results import MapSurvey  # noqa: E402
from ibma_app.estimators import find_estimator  # noqa: E402
from ibma_app.inference import find_inference  # noqa: E402
from ibma_app.stats.tails import z_to_log10p  # noqa: E402
from ibma_app.stream.estimate import Model, estimate_maps  # noqa: E402
from ibma_app.stream.resampling.resample import score_resamples  # noqa: E402
from ibma_app.stream.row_store import RowStore  # noqa: E402
from ibma_app.stream.stack import Stack  # noqa: E402

N_MAPS, ROUNDS, BOX, BORDER = 12, 8, 10, 4
INFERENCES = ("max-stat", "cluster-size", "cluster-mass", "tfce")
CLUSTER_P = 0.005
RESAMPLES = {"both hemispheres": 80, "left hemisphere and two boxes": 240}
"""Flips come in pairs of mirror images: of 40 pairs two are 0.05, of 120 six, three for each of two kinds."""


@cache
def read_mesh(side: str) -> Mesh:
    """Read a pial surface of fsaverage5."""
    folder = Path(nilearn.__file__).parent / "datasets" / "data" / "fsaverage5"
    points, triangles = (array.data for array in nib.load(folder / f"pial_{side}.gii.gz").darrays[:2])
    return Mesh(points.astype(np.float64), triangles.astype(np.int32), f"pial_{side}")


@cache
def make_shape(cell: str) -> Elements:
    """Lay out the structures of a kind of data."""
    left, right = (Surface(f"CORTEX_{side.upper()}", 10242, mesh=read_mesh(side)) for side in ("left", "right"))
    if cell == "both hemispheres":
        return Elements.whole((left, right), ".func.gii")
    indices = np.argwhere(np.ones((BOX, BOX, BOX))).astype(np.int32)
    affine, box = np.diag([2.0, 2, 2, 1]), (BOX, BOX, BOX)
    boxes = (Voxels(f"THALAMUS_{side}", indices, affine, box) for side in ("LEFT", "RIGHT"))
    return Elements.whole((left, *boxes), ".dscalar.nii")


@cache
def smoother(structure: Surface) -> sparse.csr_array:
    """Return what takes each vertex's mean with its neighbours."""
    one, two = structure.mesh.pairs.T
    ones, n = np.ones(one.size), structure.size
    near = sparse.coo_array((ones, (one, two)), shape=(n, n))
    near = (near + near.T + sparse.eye_array(n)).tocsr()
    return (sparse.diags_array(1 / near.sum(axis=1)) @ near).tocsr()


def draw(shape: Elements, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth noise of variance 1, (K, V), structures apart."""
    parts = []
    for structure in shape.structures:
        if isinstance(structure, Surface):
            noise = rng.standard_normal((structure.size, N_MAPS))
            for _ in range(ROUNDS):
                noise = smoother(structure) @ noise
            parts.append(noise.T)
        else:
            wide = rng.standard_normal((N_MAPS, *(BOX + 2 * BORDER,) * 3))
            inside = (slice(None), *(slice(BORDER, -BORDER),) * 3)
            parts.append(ndimage.gaussian_filter(wide, (0, 1, 1, 1))[inside].reshape(N_MAPS, -1))
    return np.concatenate([part / part.std() for part in parts], axis=1)


def infer_null(cell: str, number: int) -> dict[str, bool]:
    """Say of each inference whether anything of one data set is significant."""
    shape = make_shape(cell)
    store = RowStore()
    for row, values in enumerate(draw(shape, np.random.default_rng([number, len(cell)]))):
        store.append("effect", row, values.astype(np.float32), 0)
    store.select({0: np.arange(shape.n_voxels)})
    survey = tuple(MapSurvey(f"sub-{row}", (), shape.n_voxels) for row in range(N_MAPS))
    stack = Stack(shape, survey, (), ("effect",), tuple(range(N_MAPS)), (True,) * N_MAPS, None, None, store)
    test = Test("mean", np.ones((1, 1)))
    model = Model(find_estimator("ols"), Design(np.ones((N_MAPS, 1)), ("Intercept",), (test,)))
    settings = InferenceSettings(permutations=RESAMPLES[cell], cluster_p=CLUSTER_P, seed=number, alpha=ALPHA)
    null = score_resamples(stack, model, test, {name: find_inference(name).score for name in INFERENCES}, settings)
    fitted = estimate_maps(stack, model).tests["mean"]
    field = Field(fitted.z, "two-sided", fitted.estimable, shape, z_to_log10p(fitted.z, "two-sided"))
    found = {name: find_inference(name).infer(field, null, settings) for name in INFERENCES}
    return {name: bool(one.significant.any()) for name, one in found.items()}


def collect(sets: int, kept: Path | None) -> dict[str, list[dict[str, bool]]]:
    """Infer on every data set that is not kept yet, kinds of data in turn."""
    found: dict[str, list[dict[str, bool]]] = {cell: [] for cell in RESAMPLES}
    for line in kept.read_text().splitlines() if kept and kept.exists() else ():
        row = json.loads(line)
        found[row["cell"]].append(row["any"])
    for cell, number in _missing(found, sets):
        found[cell].append(infer_null(cell, number))
        if kept:
            with kept.open("a") as stream:
                stream.write(json.dumps({"cell": cell, "any": found[cell][-1]}) + "\n")
    return {cell: rows[:sets] for cell, rows in found.items()}


def _missing(found: dict[str, list[dict[str, bool]]], sets: int) -> Iterator[tuple[str, int]]:
    begun = {cell: len(rows) for cell, rows in found.items()}
    for number in range(sets):
        yield from ((cell, number) for cell in found if number >= begun[cell])


def interval(count: int, sets: int, level: float = 0.99) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a share."""
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, count, sets - count + 1) if count else 0.0
    return float(low), float(stats.beta.isf(tail, count + 1, sets - count)) if count < sets else 1.0


def write_page(found: dict[str, list[dict[str, bool]]]) -> tuple[str, bool]:
    """Return the page, and whether its claim holds."""
    rows, holds = [], True
    for cell, results in found.items():
        cells = []
        for name in INFERENCES:
            count = sum(one[name] for one in results)
            low, high = interval(count, len(results))
            holds &= low <= ALPHA <= high
            cells.append(f"{count / len(results):.3f} ({low:.3f}-{high:.3f})")
        rows.append(f"| {cell} | {len(results)} | {RESAMPLES[cell]} | {' | '.join(cells)} |")
    names = " | ".join(f"`{name}`" for name in INFERENCES)
    return (
        f"""# Surfaces and volumes: the family-wise error

Made by `python validation/surfaces.py --write docs/validation-surfaces.md`; do not edit by hand.

Shares of data sets without any effect in which anything is significant, with their 99 % Clopper-Pearson intervals;
{ALPHA:g} is what is asked for. Each data set has {N_MAPS} maps of smooth noise, combined by `ols`, two-sided; clusters
are formed at p < {CLUSTER_P:g}. Noise on a mesh is white noise of which {ROUNDS} times the mean with the neighbours was
taken, in boxes of {BOX}³ voxels of 2 mm it has a FWHM of 2.4 voxels. The meshes are the pial surfaces of fsaverage5
(10,242 vertices each).

| elements | data sets | relabellings | {names} |
|---|---|---|{"---|" * len(INFERENCES)}
{chr(10).join(rows)}

Over both hemispheres one null holds the largest score of either. Areas and volumes do not compare: beside the boxes
each kind's largest score is ranked in its own null, and the smallest p of both kinds is the joint score (`max-stat`
compares heights, in one null). The relabellings are as few as they are to make many data sets; the level of a
relabelling test does not depend on their number.
""",
        holds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    page, holds = write_page(collect(options.sets, options.keep))
    if options.write:
        options.write.write_text(page, encoding="utf-8")
    print(page)
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
