"""Images as other software left them: NIfTI, Analyze and what else nibabel opens."""

import gzip
import io
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.grid import Grid

AGAIN = "Copy or download it again, or leave it out"
LARGEST = 2**32  # bytes of a decompressed image: a statmap of 0.5 mm needs a tenth; more is an accident or a bomb

_GZIP = b"\x1f\x8b"
_POINTERS = (b"version https://git-lfs", b"/annex/objects", b"../.git/annex")
_SINGLE = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
_MNI_CODE = 4  # of sform and qform: NIFTI_XFORM_MNI_152
# Where the box of an image in MNI space may lie, mm: the 1 mm template's box and a generous margin.
_BOX = ((-130.0, 130.0), (-160.0, 130.0), (-130.0, 150.0))


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume, and where it lies."""

    data: NDArray[Any] = field(repr=False)  # (X, Y, Z) float32 where the file holds that unscaled, else float64
    grid: Grid  # every voxel in its mask
    path: Path


def open_image(path: Path) -> Any:
    """Open an image by its content: a plain ``.nii`` named ``.nii.gz`` will do, of either byte order.

    Returns
    -------
    nibabel image
        Its data may not be read yet (see `volume_of`).

    Raises
    ------
    InputError
        It is missing or cannot be opened.
    ReadWriteError
        It is empty, truncated or no image.
    """
    raw = _contents(path)
    sizes = {int.from_bytes(raw[:4], order) for order in ("little", "big")}
    single = next((kind for size, kind in _SINGLE.items() if size in sizes), None)
    try:
        if single is not None and (raw[344:348] == b"n+1\0" or raw[4:7] == b"n+2"):
            image: Any = single.from_stream(io.BytesIO(raw))
        else:
            image = nib.load(path, mmap=False)
            raw = b""
    except FileNotFoundError as error:
        raise InputError(f"{path} is half of an image: {error.filename or error} is missing.") from None
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise ReadWriteError(f"{path} is no image that can be read ({error}). {AGAIN}.") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ReadWriteError(f"{path} is truncated or damaged ({error}). {AGAIN}.") from None
    promised = _judge_size(image, path)
    if raw and promised > len(raw):
        raise ReadWriteError(
            f"{path} is truncated: its header promises {promised} bytes, {len(raw)} are there. {AGAIN}."
        )
    return image


def _judge_size(image: Any, path: Path) -> int:
    """Return how many bytes of data a header promises; refuse what no statistic map has, before memory is claimed."""
    shape = tuple(int(length) for length in image.shape)
    if not shape or min(shape) < 1:
        raise DataError(f"{path} holds no voxels: its header says shape {shape}. {AGAIN}.")
    promised = math.prod(shape) * int(image.get_data_dtype().itemsize)
    if promised > LARGEST:
        size = f"{promised / 2**30:.3g} GiB"
        raise DataError(f"{path} would fill {size} (its header says shape {shape}); no statistic map is that large.")
    return promised


def read_volume(path: Path) -> Volume:
    """Read an image of one volume, scale factors applied (see `open_image` and `volume_of`)."""
    return volume_of(open_image(path), path)


def volume_of(image: Any, path: Path, index: int | None = None) -> Volume:
    """Take one volume out of an image.

    Parameters
    ----------
    image : nibabel image
    path : Path
        For messages.
    index : int, optional
        Which of the volumes along the axes beyond the third; None: there must be one.

    Raises
    ------
    DataError
        Several volumes and no index, values that are no real numbers, or an
        affine that cannot be inverted.
    ReadWriteError
        The data are truncated or damaged.
    """
    _judge_size(image, path)
    shape = tuple(int(length) for length in image.shape)
    volumes = math.prod(shape[3:])
    if index is None and volumes != 1:
        raise DataError(f"{path} holds {volumes} volumes (shape {shape}); a statistic map is one. Split it.")
    try:
        values = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ReadWriteError(f"{path} is truncated or damaged ({error}). {AGAIN}.") from None
    values = values.reshape(*(*shape, 1, 1)[:3], volumes, order="F")[..., index or 0]
    if values.dtype.kind not in "fiub":
        raise DataError(f"{path} holds {values.dtype} values; a statistic map holds one real number per voxel.")
    small = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    data: NDArray[Any] = values.astype(np.float32 if small else np.float64, order="C")
    return Volume(data, grid_of(image, path), path)


def grid_of(image: Any, path: Path) -> Grid:
    """Return the grid of an image, every voxel in its mask; `DataError` when its affine cannot be inverted."""
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path} does not say where its voxels lie: its affine cannot be inverted. Correct its header.")
    mask = np.ones((*image.shape, 1, 1)[:3], dtype=bool)
    if not isinstance(image.header, nib.Nifti1Header):
        return Grid(affine, mask)
    header = image.header
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    other = _qform(header) if qform > 0 else None
    if other is not None and np.allclose(other, affine, rtol=0, atol=1e-5):
        other = None
    return Grid(affine, mask, sform, qform, other, int(header["xyzt_units"]) or 10)


def says_mni(grid: Grid) -> bool:
    """Tell whether the header itself says MNI152."""
    return grid.sform_code == _MNI_CODE or (grid.sform_code == 0 and grid.qform_code == _MNI_CODE)


def outside_mni(grid: Grid) -> str:
    """Say in what way an image's box cannot be that of a map in MNI space; "" when it can."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape], [1], indexing="ij")).reshape(4, -1)
    low, high = (grid.affine @ corners)[:3].min(axis=1), (grid.affine @ corners)[:3].max(axis=1)
    for axis, (least, most), one, two in zip("xyz", _BOX, low, high, strict=True):
        if one < least or two > most:
            return f"its box reaches from {one:.0f} to {two:.0f} mm along {axis}"
    if not (low < 0).all() or not (high > 0).all():
        return "its box does not hold the origin"
    return ""


def _qform(header: Any) -> NDArray[np.float64] | None:
    """Read the qform; None where its quaternion is nonsense."""
    try:
        return np.asarray(header.get_qform(coded=False), dtype=np.float64)
    except (nib.spatialimages.HeaderDataError, ValueError):
        return None


def _contents(path: Path) -> bytes:
    """Read a file's bytes, decompressed if they are gzip."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        fetch = " (it is a link to content that is not here: fetch it, e.g. with datalad get)"
        hint = fetch if path.is_symlink() else ""
        raise InputError(f"{path} does not exist{hint}.") from None
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}.") from None
    except OSError as error:
        raise ReadWriteError(f"{path} cannot be read: {error.strerror or error}. {AGAIN}.") from None
    if not raw:
        raise ReadWriteError(f"{path} is empty (0 bytes). {AGAIN}.")
    if any(pointer in raw[:200] for pointer in _POINTERS):
        raise ReadWriteError(f"{path} is a placeholder without content: fetch it (datalad get, git lfs pull).")
    if not raw.startswith(_GZIP):
        return raw
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            content = stream.read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ReadWriteError(f"{path} is truncated or damaged ({error}). {AGAIN}.") from None
    if len(content) > LARGEST:
        raise DataError(f"{path} unpacks to more than {LARGEST >> 30} GiB; no statistic map is that large.")
    return content
