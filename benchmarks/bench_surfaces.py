"""TFCE on meshes and on grayordinates, beside the package `tfce`, in one run.

    python benchmarks/bench_surfaces.py [--maps 20] [--threads 2]

The mesh is a torus of 32,400 vertices, each with six neighbours; the grayordinates are two of these without an eighth
of their vertices, and two boxes of 34,600 voxels: 91,300 elements. One map of both signs is enhanced by us and by the
package (skipped when it is not installed); 20 maps of grayordinates are resampled, and seconds told for 5,000
relabellings. As in bench_resampling.py, a figure is the difference between a long and a short run, and the best of
several counts.
"""

import argparse
import importlib.util
import time

from bench_resampling import make_stack, time_ours  # before numpy: it settles threads

import numpy as np  # isort: skip

SIDE = 180  # of the torus, vertices
CUT = 8  # one part in so many of a mesh is no cortex
BOX = (20, 25, 34), (20, 25, 35)
ROUNDS, REPEATS, RESAMPLES = 20, 30, 5000
COUNTS = {"max-stat": (65, 1089), "clusters": (65, 1089), "tfce": (17, 273), "all four": (17, 273)}


def make_mesh(radius=60.0, tube=20.0):
    """A torus, whose grid of vertices has no edge."""
    from ibma_app.core.anatomy.structures import Mesh

    numbers = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    around, across = 2 * np.pi * np.indices(numbers.shape) / SIDE
    wide = radius + tube * np.cos(across)
    points = np.stack([wide * np.cos(around), wide * np.sin(around), tube * np.sin(across)], axis=-1).reshape(-1, 3)
    right, below = np.roll(numbers, -1, axis=1), np.roll(numbers, -1, axis=0)
    opposite = np.roll(right, -1, axis=0)
    halves = [(numbers, below, right), (opposite, right, below)]
    triangles = np.concatenate([np.stack(half, axis=-1).reshape(-1, 3) for half in halves])
    return Mesh(points, triangles.astype(np.int32), "torus")


def make_grayordinates(mesh):
    """Two meshes without a part, and two boxes of voxels."""
    from ibma_app.core.anatomy.elements import Elements
    from ibma_app.core.anatomy.structures import Surface, Voxels

    cortex = [Surface(f"CORTEX_{side}", SIDE * SIDE, mesh=mesh) for side in ("LEFT", "RIGHT")]
    boxes = [
        Voxels(name, np.argwhere(np.ones(shape)).astype(np.int32), np.diag([2.0, 2, 2, 1]), shape)
        for name, shape in zip(("CEREBELLUM_LEFT", "CEREBELLUM_RIGHT"), BOX, strict=True)
    ]
    whole = Elements.whole((*cortex, *boxes), ".dscalar.nii")
    mask = whole.mask.copy()
    for start in (0, SIDE * SIDE):
        mask[start : start + SIDE * SIDE // CUT] = False
    return whole.with_mask(mask)


def smooth(pairs, values):
    """Take each element's mean with its neighbours many times; values (N, K)."""
    from scipy import sparse

    n = len(values)
    near = sparse.coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(n, n))
    near = (near + near.T + sparse.eye_array(n)).tocsr()
    near = sparse.diags_array(1 / near.sum(axis=1)) @ near
    for _ in range(ROUNDS):
        values = near @ values
    return values / values.std()


def least(function):
    """Return the least CPU time of several calls, ms."""
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return 1e3 * min(taken)


def time_mesh(mesh):
    """Enhance one map, both signs, E = 1 over areas; the package does it with numbers of vertices."""
    from ibma_app.stats.neighbours import listed
    from ibma_app.stats.tfce import TfceWorkspace

    values = smooth(mesh.pairs, np.random.default_rng(0).standard_normal((SIDE * SIDE, 1)))[:, 0]
    workspace = TfceWorkspace(listed(mesh.pairs, mesh.areas), 1.0, 2.0)
    high = [(sign, np.flatnonzero(sign * values > 0)) for sign in (1, -1)]

    def ours():
        return max(workspace.largest(at, sign * values[at]) for sign, at in high)

    def each():
        return [workspace.each(at, sign * values[at]) for sign, at in high]

    ours(), each()
    print(f"one map of {SIDE * SIDE:,} vertices, CPU ms: largest value {least(ours):.2f}, all values {least(each):.2f}")
    if importlib.util.find_spec("tfce") is None:
        print("tfce is skipped: it is not installed (pip install tfce)")
        return
    import tfce

    adjacency = tfce.adjacency_from_faces(mesh.triangles + 1, values.size)
    single = values.astype(np.float32)
    took = least(lambda: tfce.tfce(single, adjacency=adjacency, E=1.0, H=2.0))
    print(f"the package tfce: {took:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    mesh = make_mesh()
    time_mesh(mesh)
    shape = make_grayordinates(mesh)
    noise = np.random.default_rng(1).standard_normal((shape.n_voxels, options.maps))
    maps = smooth(shape.pairs(6), noise).T.astype(np.float32)
    found = time_ours(make_stack(shape, maps), options.threads, counts=COUNTS)
    print(f"{shape.n_voxels:,} grayordinates, {options.maps} maps, {options.threads} threads; wall time (CPU time)")
    for label, (wall, cpu) in found.items():
        each = f"a relabelling {1e3 * wall:8.2f} ({1e3 * cpu:8.2f}) ms"
        print(f"{label:>10}  {each}, {RESAMPLES:,} of them {RESAMPLES * wall:6.1f} ({RESAMPLES * cpu:6.1f}) s")


if __name__ == "__main__":
    main()
