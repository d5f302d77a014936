"""GIFTI: the values of a hemisphere's vertices; both hemispheres are one map."""

import binascii
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiMetaData
from nibabel.nifti1 import intent_codes
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Surface
from ibma_app.core.errors import DataError, DatasetError, ReadWriteError
from ibma_app.core.statmap import GIFTI
from ibma_app.images.contents import AGAIN, read_contents
from ibma_app.images.write import Meaning

LARGEST = 2**28  # bytes of a file: a map of 164k vertices needs 1 MB
MOST_VERTICES = 10**7  # of a structure: the finest meshes of people have a tenth of it
_ARRAY = re.compile(rb"<DataArray\b([^>]{0,4000})>")
SIDES = {"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}
"""Label of ``hemi-`` -> the structure."""
STATED = {"CortexLeft": "CORTEX_LEFT", "CortexRight": "CORTEX_RIGHT"}
INTENTS = {"t": "NIFTI_INTENT_TTEST", "z": "NIFTI_INTENT_ZSCORE", "p": "NIFTI_INTENT_PVAL"}
GEOMETRY = ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE")


def read(paths: Sequence[Path]) -> tuple[NDArray[Any], Elements]:
    """Read a map's files, one for each hemisphere, left first.

    Raises
    ------
    InputError, ReadWriteError
        A file is missing or damaged.
    DataError
        It holds several maps or none, or says another hemisphere than its name.
    """
    parts = [_read_one(path) for path in paths]
    ending = next(ending for ending in GIFTI if paths[0].name.endswith(ending))
    structures = tuple(Surface(name, values.size) for name, values in parts)
    labels = tuple(label for name, _ in parts for label, side in SIDES.items() if side == name)
    shape = Elements.whole(structures, ending, labels)
    return np.concatenate([values for _, values in parts]), shape


def open_gifti(path: Path) -> Any:
    """Open a GIFTI file, gzipped or not.

    Raises
    ------
    InputError, ReadWriteError
        It is missing or damaged.
    """
    raw = read_contents(path, LARGEST)
    _judge(path, raw := bytes(raw))
    try:
        return GiftiImage.from_bytes(raw)
    except Exception as error:  # noqa: BLE001  the parser fails in many ways
        raise ReadWriteError(f"{path} is no GIFTI file, or it is damaged ({error}). {AGAIN}.") from None


def _judge(path: Path, raw: bytes) -> None:
    """Refuse what would take far more memory than it says, before it is unpacked.

    Raises
    ------
    DataError
        Sizes that no mesh has, data that are more than the sizes, or a document type with entities.
    """
    if b"<!ENTITY" in raw:
        raise DataError(f"{path} has a document type with entities, which no map needs: refused.")
    for array in _ARRAY.finditer(raw):
        count = math.prod(int(size) for size in re.findall(rb'\bDim\d="(\d{1,18})"', array[1]))
        if count > 3 * MOST_VERTICES:  # of meshes three numbers each
            raise DataError(f"{path} is to hold {count} values; no mesh has that many vertices.")
        start, end = raw.find(b"<Data>", array.end()), raw.find(b"</Data>", array.end())
        if b"GZip" not in array[1] or not 0 < start < end:
            continue
        most, unpacker = 8 * count, zlib.decompressobj()
        try:
            unpacked = unpacker.decompress(binascii.a2b_base64(raw[start + 6 : end]), most + 1)
        except (binascii.Error, zlib.error):
            continue  # the parser says what is wrong
        if len(unpacked) > most:
            raise DataError(f"{path} unpacks to more than the {count} values that it says it holds: refused.")


def side_in_content(image: Any) -> str:
    """Return the structure that a file's AnatomicalStructurePrimary names; "" where it names no hemisphere."""
    metas = [image.meta, *(array.meta for array in image.darrays)]
    return next((STATED[value] for meta in metas if (value := meta.get("AnatomicalStructurePrimary")) in STATED), "")


def stated_side(path: Path, image: Any) -> str:
    """Return the structure that a file is of, by its name or else its content; "" where neither says.

    Raises
    ------
    DataError
        They contradict each other.
    """
    stated = side_in_content(image)
    named = re.search(r"(?:^|[_.])(?:hemi-)?([LlRr])(?:h?[_.])", path.name)
    by_name = SIDES[named[1].upper()] if named else ""
    if stated and by_name and stated != by_name:
        raise DataError(
            f"{path} is of {by_name} by its name and of {stated} by its content (AnatomicalStructurePrimary). Correct "
            "the one that is wrong."
        )
    return by_name or stated


def _read_one(path: Path) -> tuple[str, NDArray[Any]]:
    """Read one hemisphere: its structure and values."""
    image = open_gifti(path)
    arrays = [one for one in image.darrays if intent_codes.niistring[one.intent] not in GEOMETRY]
    if not arrays:
        raise DataError(f"{path} holds no values of vertices: it is a mesh, or empty. Give the map itself.")
    if len(arrays) > 1:
        names = [one.meta.get("Name") or f"number {index}" for index, one in enumerate(arrays, start=1)]
        raise DataError(f"{path} holds {len(arrays)} maps ({', '.join(names)}); a statmap is one. Split it.")
    values = np.asarray(arrays[0].data)
    if values.dtype.kind not in "fiu" or values.squeeze().ndim != 1:
        raise DataError(f"{path} holds values of the form {values.shape}; a statmap has one number for each vertex.")
    side = stated_side(path, image)
    if not side:
        raise DatasetError(
            f"{path}: neither its name (hemi-L, hemi-R) nor its content says which hemisphere it is of. Rename it."
        )
    kept = np.float32 if values.dtype == np.float32 else np.float64
    return side, values.reshape(-1).astype(kept, copy=False)


def encode(vector: NDArray[Any], shape: Elements, fill: float, meaning: Meaning) -> tuple[bytes, ...]:
    """Make each hemisphere's file; whole numbers have 32 bits, as the format knows no 16."""
    whole = shape.to_volume(vector, fill)
    kept = np.float32 if vector.dtype.kind == "f" else np.int32
    files = []
    for structure, start in zip(shape.structures, shape.starts, strict=False):
        values = whole[start : start + structure.size].astype(kept)
        intent = (
            "NIFTI_INTENT_SHAPE" if shape.extension == ".shape.gii" else INTENTS.get(meaning.kind, "NIFTI_INTENT_NONE")
        )
        array = GiftiDataArray(
            values, intent, f"NIFTI_TYPE_{values.dtype.name.upper()}", meta={"Name": meaning.kind or "map"}
        )
        side = next(stated for stated, name in STATED.items() if name == structure.name)
        about = {"AnatomicalStructurePrimary": side, "Description": meaning.words}
        files.append(GiftiImage(darrays=[array], meta=GiftiMetaData(about)).to_bytes())
    return tuple(files)
