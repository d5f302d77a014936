"""CIFTI-2: values of grayordinates (``.dscalar.nii``) and of parcels (``.pscalar.nii``)."""

import math
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import nibabel as nib
import numpy as np
from nibabel.cifti2 import cifti2_axes as axes
from nibabel.cifti2.parse_cifti2 import Cifti2Extension
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import AnyStructure, Parcels, Surface, Voxels
from ibma_app.core.errors import DataError, ReadWriteError
from ibma_app.core.statmap import CIFTI
from ibma_app.images.contents import AGAIN, read_contents
from ibma_app.images.elements.gifti import MOST_VERTICES
from ibma_app.images.elements.parcels import atlas_of
from ibma_app.images.read import (
    HEADER_BYTES,
    LARGEST_VOLUME,
    check_type,
    data_offset,
    nifti_header,
    read_extension,
    scale_factors,
)
from ibma_app.images.write import Meaning

CODE = 32  # of the header extension
PREFIX = "CIFTI_STRUCTURE_"
INTENTS = {
    ".dscalar.nii": "NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS",
    ".pscalar.nii": "NIFTI_INTENT_CONNECTIVITY_PARCELLATED_SCALAR",
}


class _Layout(NamedTuple):
    """What a file's columns are."""

    structures: tuple[AnyStructure, ...]
    columns: NDArray[np.int64]  # (M,) which element of the structures each column of the file is


def read(paths: Sequence[Path]) -> tuple[NDArray[Any], Elements]:
    """Read the map of a file; vertices that it does not list are NaN.

    Raises
    ------
    InputError, ReadWriteError
        It is missing, truncated or damaged.
    DataError
        It holds several maps, or none on brain models or parcels.
    """
    path = paths[0]
    layout = _layout(path, _structure_of_file(path))
    values = _read_row(path, layout.columns.size)
    ending = next(ending for ending in CIFTI if path.name.endswith(ending))
    shape = Elements.whole(layout.structures, ending)
    whole = np.full(shape.shape, np.nan, dtype=values.dtype)
    whole[layout.columns] = values
    return whole, shape


def _structure_of_file(path: Path) -> bytes:
    """Read the XML that says what rows and columns are."""
    found = read_extension(path, CODE)
    if found is None:
        raise ReadWriteError(f"{path} is no CIFTI-2 file: it has no description of its elements. {AGAIN}.")
    return found.rstrip(b"\0")


def _layout(path: Path, xml: bytes) -> _Layout:
    """Find the structures of a file with one map."""
    try:
        names, layout = _parse(_without_name(xml), atlas_of(path))
    except Exception as error:  # noqa: BLE001  the parser fails in many ways
        raise ReadWriteError(f"{path} has a damaged description of its elements ({error}). {AGAIN}.") from None
    if names is None or layout is None:
        raise DataError(
            f"{path} holds no map of scalars on brain models or parcels (a series, labels or connections?). Give the "
            "statistic map itself."
        )
    if len(names) != 1:
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise DataError(
            f"{path} holds {len(names)} maps ({shown}); a statmap is one. Split it, e.g. with wb_command -cifti-merge "
            f"OUT.dscalar.nii -cifti {path.name} -column 1."
        )
    return layout


def _without_name(xml: bytes) -> bytes:
    """Return the description of a file with one map of scalars as all maps on its elements have it: they are read once.

    Left out are the map's name and what is said of the file, such as where it came from.
    """
    if xml.count(b"<NamedMap") != 1 or b"CIFTI_INDEX_TYPE_SCALARS" not in xml:
        return xml
    return _ABOUT.sub(b"", _NAMED.sub(b"<NamedMap><MapName>map</MapName></NamedMap>", xml))


_NAMED, _ABOUT = re.compile(rb"<NamedMap.*?</NamedMap>", re.DOTALL), re.compile(rb"<MetaData.*?</MetaData>", re.DOTALL)


@lru_cache(maxsize=4)
def _parse(xml: bytes, atlas: str) -> tuple[tuple[str, ...] | None, _Layout | None]:
    """Return the names of the maps, and what columns are; None of either: neither maps, nor brain models or parcels."""
    header = Cifti2Extension(CODE, xml).get_content()
    rows, columns = (header.matrix.get_axis(dimension) for dimension in (0, 1))
    names = tuple(str(name) for name in rows.name) if isinstance(rows, axes.ScalarAxis) else None
    if isinstance(columns, axes.BrainModelAxis):
        return names, _of_models(columns)
    if isinstance(columns, axes.ParcelsAxis):
        return names, _of_parcels(columns, atlas)
    return names, None


def _of_models(axis: Any) -> _Layout:
    """Make structures of brain models: surfaces with all their vertices, in the file's order of models."""
    structures: list[AnyStructure] = []
    columns: list[NDArray[Any]] = []
    start = 0
    for full_name, _, model in axis.iter_structures():
        name = full_name.removeprefix(PREFIX)
        if model.surface_mask.any():
            size = int(axis.nvertices[full_name])
            if size > MOST_VERTICES:
                raise ValueError(f"{size} vertices; no mesh has that many")
            stated = np.asarray(model.vertex)
            if not ((stated >= 0) & (stated < size)).all() or np.unique(stated).size < stated.size:
                raise ValueError(f"a vertex of {name} is listed twice, or is none of its {size}")
            vertices = stated.astype(np.int32)
            structures.append(Surface(name, size, np.sort(vertices)))
            columns.append(start + vertices)
        else:
            x, y, z = map(int, axis.volume_shape)
            places = np.asarray(model.voxel)
            if not ((places >= 0) & (places < (x, y, z))).all():
                raise ValueError(f"a voxel of {name} lies outside of the volume of {x} x {y} x {z}")
            indices = places.astype(np.int32)
            structures.append(Voxels(name, indices, np.asarray(axis.affine, dtype=np.float64), (x, y, z)))
            size = len(indices)
            columns.append(start + np.arange(size))
        start += size
    return _Layout(tuple(structures), np.concatenate(columns).astype(np.int64))


def _of_parcels(axis: Any, name: str) -> _Layout:
    """Make a structure of parcels, with what each consists of."""
    labels = tuple(str(one) for one in axis.name)
    extents: dict[str, Any] = {
        "voxels": [np.asarray(one).tolist() for one in axis.voxels],
        "vertices": [{name: np.asarray(one).tolist() for name, one in parts.items()} for parts in axis.vertices],
        "affine": None if axis.affine is None else np.asarray(axis.affine).tolist(),
        "volume_shape": axis.volume_shape and list(axis.volume_shape),
        "nvertices": dict(axis.nvertices),
    }
    numbers = np.arange(1, len(labels) + 1)
    return _Layout((Parcels(name, labels, numbers, extents),), np.arange(len(labels)))


def _to_axis(parcels: Parcels) -> Any:
    """Make the axis of parcels as it was read."""
    extents = parcels.extents
    voxels, vertices = np.empty(parcels.size, dtype=object), np.empty(parcels.size, dtype=object)
    for number, (indices, parts) in enumerate(zip(extents["voxels"], extents["vertices"], strict=True)):
        voxels[number] = np.array(indices, dtype=np.int64).reshape(-1, 3)
        vertices[number] = {name: np.array(one, dtype=np.int64) for name, one in parts.items()}
    affine = None if extents["affine"] is None else np.array(extents["affine"])
    box = extents["volume_shape"] and tuple(extents["volume_shape"])
    return axes.ParcelsAxis(np.array(parcels.labels), voxels, vertices, affine, box, extents["nvertices"])


def _read_row(path: Path, width: int) -> NDArray[Any]:
    """Read the values of the one map of a file."""
    header: Any = nifti_header(path, read_contents(path, HEADER_BYTES))
    shape, dtype = tuple(int(length) for length in header.get_data_shape()), header.get_data_dtype()
    check_type(path, dtype)
    if math.prod(shape) != width or width * dtype.itemsize > LARGEST_VOLUME:
        raise ReadWriteError(
            f"{path} is damaged: its header gives the shape {shape}, its description {width} elements. {AGAIN}."
        )
    offset = data_offset(path, header, HEADER_BYTES)
    raw = read_contents(path, offset + width * dtype.itemsize)
    if len(raw) < offset + width * dtype.itemsize:
        raise ReadWriteError(f"{path} is truncated: it ends before its last value. {AGAIN}.")
    values = np.frombuffer(raw, dtype=dtype, count=width, offset=offset)
    slope, intercept = scale_factors(path, header)
    if (slope, intercept) != (1.0, 0.0):
        return values.astype(np.float64) * slope + intercept
    return values.astype(np.float32 if dtype.kind == "f" and dtype.itemsize == 4 else np.float64)


def encode(vector: NDArray[Any], shape: Elements, fill: float, meaning: Meaning) -> tuple[bytes, ...]:
    """Make the file: the vertices that the inputs list, and all that were analysed, in single precision."""
    template = _template(shape)
    values = shape.to_volume(vector, fill)[template.columns].astype("<f4")
    words = {NAME: meaning.kind or "map", WORDS: meaning.words}
    xml = template.xml
    for mark, text in words.items():
        xml = xml.replace(mark.encode(), escape(text).encode())
    size = -(-(8 + len(xml)) // ALIGNED) * ALIGNED
    header = template.header.copy()
    header["vox_offset"] = EXTENSIONS_AT + 4 + size
    extension = struct.pack("<ii", size, CODE) + xml.ljust(size - 8, b"\0")
    return (header.binaryblock + b"\1\0\0\0" + extension + values.tobytes(),)


NAME, WORDS = "@NAME@", "@WORDS@"  # stand for those of a map
ALIGNED, EXTENSIONS_AT = 16, 540  # bytes


class _Template(NamedTuple):
    """What the files of all maps on some elements share."""

    header: Any
    xml: bytes  # with `NAME` and `WORDS`
    columns: NDArray[np.int64]  # (M,) which elements the files have


@lru_cache(maxsize=2)  # describing 91k grayordinates takes longer than writing them
def _template(shape: Elements) -> _Template:
    """Make what the files of maps on some elements share, by nibabel."""
    chosen, models = [], []
    for structure, start in zip(shape.structures, shape.starts, strict=False):
        elements = np.arange(structure.size)
        if isinstance(structure, Surface):
            inside = shape.mask[start : start + structure.size].copy()
            inside[... if structure.listed is None else structure.listed] = True
            elements = np.flatnonzero(inside)
            models.append(axes.BrainModelAxis.from_surface(elements, structure.size, f"{PREFIX}{structure.name}"))
        elif isinstance(structure, Voxels):
            names = [f"{PREFIX}{structure.name}"] * structure.size
            where = {"voxel": structure.indices, "affine": structure.affine, "volume_shape": structure.box}
            models.append(axes.BrainModelAxis(names, **where))
        elif isinstance(structure, Parcels):
            models.append(_to_axis(structure))
        chosen.append(start + elements)
    columns, at = models[0], np.concatenate(chosen)
    for model in models[1:]:
        columns = columns + model
    rows = axes.ScalarAxis([NAME], [{"Description": WORDS}])
    image = nib.Cifti2Image(np.zeros((1, at.size), dtype=np.float32), (rows, columns))
    image.update_headers()
    image.nifti_header.set_intent(INTENTS[shape.extension])
    raw = image.to_bytes()
    (size,) = struct.unpack_from("<i", raw, EXTENSIONS_AT + 4)
    begin = EXTENSIONS_AT + 12
    return _Template(nib.Nifti2Header(raw[:EXTENSIONS_AT]), raw[begin : begin + size - 8].rstrip(b"\0"), at)
