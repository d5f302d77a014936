"""Makes surface_clusters.json: TFCE, vertex areas and clusters on meshes, as other software has them.

    python tests/reference/surface_clusters.py FOLDER_WITH_TFCE > tests/reference/surface_clusters.json

Needs `wb_command` (Connectome Workbench 1.5.0 made the numbers at hand) on the PATH, and the package `tfce` (0.1.0) in
the folder (`pip install --no-deps --target FOLDER tfce`). The meshes are a bumpy sphere of 642 vertices, made below,
and the left pial surface of fsaverage5 in nilearn, of whose 10,242 vertices each 53rd is kept. The maps are waves
through the mesh. tests/stats/test_surface_reference.py makes the same meshes and maps, and compares.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

STEP = 53
THRESHOLD, LEAST_AREA = 0.8, 300.0


def make_sphere(rounds=3):
    """An icosahedron whose triangles are cut into four, three times; with bumps, radius about 60 mm."""
    golden = (1 + 5**0.5) / 2
    points = np.array([[-1, golden, 0], [1, golden, 0], [-1, -golden, 0], [1, -golden, 0]])
    points = np.concatenate([points, points[:, [2, 0, 1]], points[:, [1, 2, 0]]])
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    near = np.isclose(apart, 2.0)
    triangles = [
        (i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]
    ]
    for _ in range(rounds):
        middle, finer = {}, []
        rows = list(points)
        for a, b, c in triangles:
            ends = []
            for pair in ((a, b), (b, c), (c, a)):
                key = tuple(sorted(pair))
                if key not in middle:
                    middle[key] = len(rows)
                    rows.append((points[pair[0]] + points[pair[1]]) / 2)
                ends.append(middle[key])
            ab, bc, ca = ends
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        points, triangles = np.array(rows), finer
    points = points / np.linalg.norm(points, axis=1)[:, None]
    points = points * (60 + 6 * np.sin(5 * points[:, :1]) * np.cos(7 * points[:, 1:2]))
    return points.astype(np.float32), np.array(triangles, dtype=np.int32)


def read_fsaverage5():
    """The left pial surface that nilearn has."""
    import nilearn

    image = nib.load(Path(nilearn.__file__).parent / "datasets" / "data" / "fsaverage5" / "pial_left.gii.gz")
    points, triangles = (array.data for array in image.darrays[:2])
    return points.astype(np.float32), triangles.astype(np.int32)


def make_map(points):
    """Sum waves of many lengths through a mesh."""
    rng = np.random.default_rng(20)
    waves, phases = rng.standard_normal((40, 3)) / 12, rng.uniform(0, 6, 40)
    values = np.sin(points.astype(np.float64) @ waves.T + phases).sum(axis=1) / 20**0.5
    return values.astype(np.float32)


MESHES = {"sphere": (make_sphere, 1), "fsaverage5": (read_fsaverage5, STEP)}


def by_workbench(points, triangles, values, folder):
    """Let Workbench compute areas, TFCE with two pairs of exponents, and clusters."""
    surface = nib.gifti.GiftiImage(
        darrays=[
            nib.gifti.GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET", datatype="NIFTI_TYPE_FLOAT32"),
            nib.gifti.GiftiDataArray(triangles, intent="NIFTI_INTENT_TRIANGLE", datatype="NIFTI_TYPE_INT32"),
        ]
    )
    nib.save(surface, folder / "mesh.surf.gii")
    array = nib.gifti.GiftiDataArray(values, intent="NIFTI_INTENT_NONE", datatype="NIFTI_TYPE_FLOAT32")
    nib.save(nib.gifti.GiftiImage(darrays=[array]), folder / "map.func.gii")

    def run(*words):
        subprocess.run(["wb_command", *map(str, words)], cwd=folder, check=True, stdout=sys.stderr)

    for file in ("mesh.surf.gii", "map.func.gii"):
        run("-set-structure", file, "CORTEX_LEFT")
    run("-surface-vertex-areas", "mesh.surf.gii", "areas.func.gii")
    run("-metric-tfce", "mesh.surf.gii", "map.func.gii", "tfce.func.gii")
    run("-metric-tfce", "mesh.surf.gii", "map.func.gii", "others.func.gii", "-parameters", 0.6, 1.5)
    run("-metric-find-clusters", "mesh.surf.gii", "map.func.gii", THRESHOLD, LEAST_AREA, "clusters.func.gii")
    names = ("areas", "tfce", "others", "clusters")
    return {name: nib.load(folder / f"{name}.func.gii").darrays[0].data.astype(np.float64) for name in names}


def by_package(triangles, values):
    """Let the package compute TFCE of numbers of vertices."""
    import tfce

    adjacency = tfce.adjacency_from_faces(triangles + 1, len(values))
    return tfce.tfce(values, adjacency=adjacency, E=0.5, H=2.0).astype(np.float64)


def main():
    sys.path.insert(0, sys.argv[1])
    found = {}
    for name, (make, step) in MESHES.items():
        points, triangles = make()
        values = make_map(points)
        with tempfile.TemporaryDirectory() as folder:
            numbers = by_workbench(points, triangles, values, Path(folder))
        numbers["counts"] = by_package(triangles, values)
        peaks = {key: float(abs(numbers[key]).max()) for key in numbers}
        kept = {key: [float(f"{value:.9g}") for value in one[::step]] for key, one in numbers.items()}
        kept["clusters"] = [int(value) for value in numbers["clusters"][::step]]
        found[name] = {"n_clusters": int(numbers["clusters"].max()), "peaks": peaks, **kept}
    json.dump(found, sys.stdout, indent=None)


if __name__ == "__main__":
    main()
