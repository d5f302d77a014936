"""Small valid maps on surfaces, of grayordinates and of parcels, one file of each to be changed by tests."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.cifti2 import cifti2_axes as axes

SUBJECTS = ("01", "02", "03", "04", "05", "06")
CHANGED = "03"
VERTICES, LISTED = 42, np.arange(0, 42, 2)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
ODD = (b"0", b"1", b"-4", b"3", b"41", b"42", b"1e300", b"10000000000", b"2000000000", b"nan", b"4294967296", b"", b"x",
       b"ExternalFileBinary", b"GZipBase64Binary", b"Base64Binary", b"ASCII", b"/dev/zero", b"NIFTI_TYPE_FLOAT64",
       b"NIFTI_INTENT_LABEL", b"CIFTI_STRUCTURE_CORTEX_RIGHT", b"CIFTI_MODEL_TYPE_VOXELS", b"CortexRight")  # fmt: skip


def gifti(values: np.ndarray) -> bytes:
    """Return one hemisphere."""
    array = nib.gifti.GiftiDataArray(values.astype(np.float32), "NIFTI_INTENT_NONE", "NIFTI_TYPE_FLOAT32")
    meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": "CortexLeft"})
    return bytes(nib.gifti.GiftiImage(darrays=[array], meta=meta).to_bytes())


def dense(values: np.ndarray) -> bytes:
    """Return vertices of a hemisphere and voxels of a nucleus."""
    cortex = axes.BrainModelAxis.from_surface(LISTED, VERTICES, "CIFTI_STRUCTURE_CORTEX_LEFT")
    voxels = np.argwhere(np.ones((2, 2, 2)))
    names = ["CIFTI_STRUCTURE_THALAMUS_LEFT"] * len(voxels)
    nucleus = axes.BrainModelAxis(names, voxel=voxels, affine=AFFINE, volume_shape=(4, 4, 4))
    return cifti(values[: LISTED.size + len(voxels)], cortex + nucleus)


def parcellated(values: np.ndarray) -> bytes:
    """Return two parcels on a hemisphere."""
    vertices = [{"CIFTI_STRUCTURE_CORTEX_LEFT": np.arange(0, 9)}, {"CIFTI_STRUCTURE_CORTEX_LEFT": np.arange(9, 20)}]
    nothing = [np.zeros((0, 3), int)] * 2
    count = {"CIFTI_STRUCTURE_CORTEX_LEFT": VERTICES}
    return cifti(values[:2], axes.ParcelsAxis(["one", "two"], nothing, vertices, None, None, count))


def cifti(values: np.ndarray, columns: Any) -> bytes:
    """Return a file of one map."""
    image = nib.Cifti2Image(values[None].astype(np.float32), (axes.ScalarAxis(["map"]), columns))
    image.update_headers()
    return bytes(image.to_bytes())


def described(raw: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the description of a CIFTI file, and write it with its new length."""
    image = nib.Cifti2Image.from_bytes(raw)
    header = image.nifti_header.copy()
    header.extensions.clear()
    header.extensions.append(nib.nifti1.Nifti1Extension(32, change(image.header.to_xml())))
    values = np.asarray(image.dataobj).reshape(1, 1, 1, 1, 1, -1)
    changed = nib.Nifti2Image(values, None, header)
    changed.header.set_intent(image.nifti_header.get_intent("code")[0])
    return bytes(changed.to_bytes())


def change_values(raw: bytes, random: np.random.Generator) -> bytes:
    """Put other numbers, words or encodings in place of some of an XML document's."""
    for _ in range(random.integers(1, 4)):
        pieces = list(re.finditer(rb'(?<=[">, ])-?\d+(?:\.\d+)?(?=["<, ])|(?<=")[A-Za-z_0-9]+(?=")', raw))
        piece = pieces[random.integers(len(pieces))]
        raw = raw[: piece.start()] + ODD[random.integers(len(ODD))] + raw[piece.end() :]
    return raw


def kinds(inputs: Any) -> Mapping[str, Callable[[], Any]]:
    """Return what makes a case of each format (`small_inputs.Inputs`)."""

    def app(encode: Callable[[np.ndarray], bytes], ending: str, names: str) -> Any:
        root, rng = inputs.describe_dataset(inputs.root / "data"), np.random.default_rng(0)
        files = {}
        for label in SUBJECTS:
            files[label] = root / f"sub-{label}/func/sub-{label}_task-x_{names}_contrast-c_stat-effect_statmap{ending}"
            files[label].parent.mkdir(parents=True)
            files[label].write_bytes(encode(rng.normal(1, 1, VERTICES)))
        how = ("--estimator", "ols", "--inference", "uncorrected", "--no-report", "--nprocs", "1")
        text, anything = inputs.change("text"), inputs.change("bytes")

        def change(raw: bytes, random: np.random.Generator) -> bytes:
            """Change values of the XML, its text, or any bytes."""
            how = random.random()
            if how < 0.15:
                return bytes(anything(raw, random))
            of_xml = text if how < 0.3 else change_values
            return of_xml(raw, random) if ending.endswith(".gii") else described(raw, lambda xml: of_xml(xml, random))

        case = inputs.maker("small_inputs").Case
        return case(
            lambda out: inputs.cli(root, out, "group", *how, cwd=inputs.root), files[CHANGED], change,
            ("beyond what single precision holds", f"sub-{CHANGED}"),
        )  # fmt: skip

    return {
        "gifti": lambda: app(gifti, ".func.gii", "hemi-L_space-fsaverage"),
        "cifti": lambda: app(dense, ".dscalar.nii", "space-fsLR"),
        "parcels": lambda: app(parcellated, ".pscalar.nii", "space-fsLR"),
    }
