"""Maps on surfaces, grayordinates and regions as other software writes them, by nibabel alone."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.cifti2 import cifti2_axes as axes

SIDES = {"L": "CortexLeft", "R": "CortexRight"}
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
BOX = (10, 10, 10)
NUCLEUS = np.argwhere(np.ones((3, 3, 3))) + 2  # 27 voxels


def icosphere(divisions=2, radius=50.0):
    """Return the corners (10 * 4**divisions + 2, 3) and triangles of a ball; 162 of two divisions."""
    golden = (1 + np.sqrt(5)) / 2
    points = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0), (0, -1, golden), (0, 1, golden),
              (0, -1, -golden), (0, 1, -golden), (golden, 0, -1), (golden, 0, 1), (-golden, 0, -1),
              (-golden, 0, 1)]  # fmt: skip
    faces = [(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6),
             (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10),
             (8, 6, 7), (9, 8, 1)]  # fmt: skip
    points = [np.array(point, dtype=float) for point in points]
    for _ in range(divisions):
        middles, finer = {}, []

        def middle(one, other, middles=middles):
            key = (min(one, other), max(one, other))
            if key not in middles:
                points.append((points[one] + points[other]) / 2)
                middles[key] = len(points) - 1
            return middles[key]

        for a, b, c in faces:
            ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = finer
    points = np.array([radius * point / np.linalg.norm(point) for point in points])
    return points, np.array(faces, dtype=np.int32)


def write_mesh(path, points, triangles, side="L"):
    """Write a mesh as GIFTI."""
    arrays = [
        nib.gifti.GiftiDataArray(points.astype(np.float32), "NIFTI_INTENT_POINTSET", "NIFTI_TYPE_FLOAT32"),
        nib.gifti.GiftiDataArray(triangles.astype(np.int32), "NIFTI_INTENT_TRIANGLE", "NIFTI_TYPE_INT32"),
    ]
    meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": SIDES[side]})
    nib.save(nib.gifti.GiftiImage(darrays=arrays, meta=meta), path)
    return path


def write_gifti(path, *values, side=None, names=()):
    """Write a map, or several, of one hemisphere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = [
        nib.gifti.GiftiDataArray(np.asarray(one, dtype=np.float32), meta={"Name": name} if name else None)
        for one, name in zip(values, [*names, *[""] * len(values)], strict=False)
    ]
    meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": SIDES[side]} if side else {})
    nib.save(nib.gifti.GiftiImage(darrays=arrays, meta=meta), path)
    return path


def grayordinates(size, left=None, right=None, voxels=NUCLEUS):
    """Return the axis of two hemispheres (some of their vertices, in this order) and a nucleus."""
    models = [
        axes.BrainModelAxis.from_surface(np.arange(size) if some is None else some, size, name)
        for some, name in ((left, "CORTEX_LEFT"), (right, "CORTEX_RIGHT"))
    ]
    nucleus = axes.BrainModelAxis(
        ["CIFTI_STRUCTURE_THALAMUS_LEFT"] * len(voxels), voxel=voxels, affine=AFFINE, volume_shape=BOX
    )
    return models[0] + models[1] + nucleus


def parcels(names, size):
    """Return the axis of regions that divide the left hemisphere."""
    parts = np.array_split(np.arange(size), len(names))
    vertices, voxels = np.empty(len(names), dtype=object), np.empty(len(names), dtype=object)
    for number, part in enumerate(parts):
        vertices[number], voxels[number] = {"CIFTI_STRUCTURE_CORTEX_LEFT": part}, np.empty((0, 3), dtype=int)
    return axes.ParcelsAxis(np.array(names), voxels, vertices, AFFINE, BOX, {"CIFTI_STRUCTURE_CORTEX_LEFT": size})


def write_cifti(path, columns, *values, names=("map",), dtype=np.float32):
    """Write a map, or several, on the elements of an axis."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.array(values, dtype=dtype)
    image = nib.Cifti2Image(data, (axes.ScalarAxis(list(names)), columns))
    image.update_headers()
    image.nifti_header.set_data_dtype(dtype)
    nib.save(image, path)
    return path


def write_table(path, names, values):
    """Write a table of regions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{number}\t{name}\t{value}" for number, (name, value) in enumerate(zip(names, values, strict=True), 1)]
    path.write_text("\n".join(["index\tname\tvalue", *rows]) + "\n")
    return path


def describe(root):
    """Make a derivative dataset."""
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": "made", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "made"}]}
    (root / "dataset_description.json").write_text(json.dumps(content))
    return root


def stem(sub, *, middle, kind, contrast="ab"):
    """Name a map of a subject without its ending."""
    return Path(f"sub-{sub}") / f"sub-{sub}_task-x_{middle}_contrast-{contrast}_stat-{kind}_statmap"
