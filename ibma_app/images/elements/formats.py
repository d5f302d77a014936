"""The formats of maps by the ends of their names: which file of this chapter reads and writes what.

A new format is a file beside this one with a `Format`, and a line in `FORMATS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ibma_app.core.anatomy.elements import Elements, Shape
from ibma_app.core.grid import Grid
from ibma_app.core.statmap import CIFTI, GIFTI, TABLES
from ibma_app.images import gzipped
from ibma_app.images.elements import cifti, gifti, parcels
from ibma_app.images.read import SMALLEST, read_grid, read_image
from ibma_app.images.write import Meaning, cast_values, encode_map


@dataclass(frozen=True, eq=False)
class MapValues:
    """One map: its values, and where they lie."""

    data: NDArray[Any] = field(repr=False)  # of the form shape.shape; float32 where the file has that, else float64
    shape: Shape  # every element in its mask
    smallest: float = SMALLEST  # the smallest positive number that the file can hold
    odd_sizes: str = ""  # as of `ibma_app.images.read.Image`


@dataclass(frozen=True)
class Format:
    """A kind of file that holds maps on elements."""

    endings: tuple[str, ...]  # of names
    read: Callable[[Sequence[Path]], tuple[NDArray[Any], Elements]]
    """Takes the files of one map: one, or one for each hemisphere."""
    encode: Callable[[NDArray[Any], Elements, float, Meaning], tuple[bytes, ...]]
    """Takes a vector (V,), where it lies, the value outside the mask and what is said of it; returns each file."""


FORMATS = (
    Format(CIFTI, cifti.read, cifti.encode),
    Format(GIFTI, gifti.read, gifti.encode),
    Format(TABLES, parcels.read, parcels.encode),
)


def _format(path: Path) -> Format | None:
    """Return the format of a file on elements; None: a volume."""
    return next((one for one in FORMATS if path.name.endswith(one.endings)), None)


def read_shape(paths: Sequence[Path]) -> Shape:
    """Read where a map's values lie; every element is in the mask.

    Parameters
    ----------
    paths : sequence of Path
        The file of a map, or those of its hemispheres.

    Raises
    ------
    InputError, ReadWriteError
        A file is missing, truncated or damaged.
    DataError
        It holds several maps, or is none.
    """
    found = _format(paths[0])
    return read_grid(paths[0]) if found is None else found.read(paths)[1]


def read_map(paths: Sequence[Path]) -> MapValues:
    """Read a map's values; parameters and errors as of `read_shape`."""
    found = _format(paths[0])
    if found is None:
        image = read_image(paths[0])
        return MapValues(image.data, image.grid, image.smallest, image.odd_sizes)
    return MapValues(*found.read(paths))


def files_of(path: Path, shape: Shape) -> tuple[Path, ...]:
    """Name the files of a map by its first: one, or one for each hemisphere."""
    first = next(iter(shape.hemispheres), "")
    names = [path.name.replace(f"hemi-{first}", f"hemi-{label}", 1) for label in shape.hemispheres]
    return tuple(path.with_name(name) for name in names) or (path,)


def encode_files(
    vector: ArrayLike,
    shape: Shape,
    below: Path,
    *,
    fill: float = 0.0,
    dtype: DTypeLike = np.float32,
    meaning: Meaning,
) -> Mapping[Path, bytes | memoryview]:
    """Make the bytes of a map's file, or of one for each hemisphere, in the format of the shape.

    Parameters
    ----------
    vector : array_like, shape (V,)
    shape : Shape
    below : Path
        Its (first) file.
    fill, dtype, meaning
        As for `ibma_app.images.write.encode_map`.

    Raises
    ------
    ValueError, DataError
        As there.
    """
    if isinstance(shape, Grid):
        image = encode_map(vector, shape, str(below), fill=fill, dtype=dtype, meaning=meaning)
        return {below: gzipped.compress(image) if below.name.endswith(".gz") else image}
    found = _format(below)
    if found is None:
        raise ValueError(f"{below}: no file of {shape.noun} ends like this")
    values = cast_values(np.asarray(vector), str(below), dtype)
    return dict(zip(files_of(below, shape), found.encode(values, shape, fill, meaning), strict=True))
