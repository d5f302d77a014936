"""Read images as they are found in the wild: NIfTI and Analyze, compressed or not."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.grid import Grid
from ibma_app.images import gzipped

HEADER_BYTES = 544  # enough for NIfTI-2's header, and for the others'
AGAIN = "Copy or download it again, or leave it out"
POINTERS = (b"version https://git-lfs", b"/annex/objects", b"../.git/annex")


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where an image's voxels lie, and how its header says so."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]  # (4, 4), voxel indices to mm, RAS+
    sform_code: int = 2
    qform_code: int = 0
    qform: NDArray[np.float64] | None = None  # (4, 4) where it differs from affine
    xyzt_units: int = 10

    def as_grid(self) -> Grid:
        """Return the grid of this image, every voxel in its mask."""
        return Grid(
            affine=self.affine,
            mask=np.ones(self.shape, dtype=bool),
            sform_code=self.sform_code,
            qform_code=self.qform_code,
            qform=self.qform,
            xyzt_units=self.xyzt_units,
        )


@dataclass(frozen=True, eq=False)
class Image:
    """One volume and where it lies."""

    data: NDArray[Any] = field(repr=False)  # (X, Y, Z), read-only; float32 where the file has that, else float64
    geometry: Geometry


def read_geometry(path: Path) -> Geometry:
    """Read an image's header alone.

    Parameters
    ----------
    path : Path
        ``.nii``, ``.nii.gz``, ``.img`` or ``.hdr``; what the content is counts
        more than what the name says.

    Raises
    ------
    InputError
        The file (or the other half of the pair) is missing or cannot be opened.
    ReadWriteError
        It is empty, truncated or not an image.
    DataError
        It holds more than one volume.
    """
    header_file, _ = _files(path)
    raw = _contents(header_file, limit=HEADER_BYTES)
    header = _nifti_header(header_file, raw)
    if header is None:
        return _analyze(path, header_only=True).geometry
    return _geometry(path, header)


def read_image(path: Path) -> Image:
    """Read an image's one volume, scale factors applied.

    Parameters
    ----------
    path : Path
        As in `read_geometry`.

    Returns
    -------
    Image
        ``data`` is float32 where the file holds unscaled float32 (or half
        precision), else float64.

    Raises
    ------
    InputError, ReadWriteError, DataError
        As in `read_geometry`.
    """
    header_file, data_file = _files(path)
    raw = _contents(data_file)
    header = _nifti_header(header_file, raw if header_file == data_file else _contents(header_file, HEADER_BYTES))
    if header is None:
        return _analyze(path, header_only=False)
    geometry = _geometry(path, header)
    lowest = int(header["sizeof_hdr"]) + 4 if header_file == data_file else 0
    offset = max(int(header["vox_offset"]), lowest)
    count = int(np.prod(geometry.shape))
    dtype = header.get_data_dtype()
    if len(raw) < offset + count * dtype.itemsize:
        raise ReadWriteError(
            f"{data_file} is truncated: its header promises {count * dtype.itemsize} bytes of data and only "
            f"{max(len(raw) - offset, 0)} are there. {AGAIN}."
        )
    values = np.frombuffer(raw, dtype=dtype, count=count, offset=offset).reshape(geometry.shape, order="F")
    return Image(_as_float(path, values, *_scale(path, header)), geometry)


def _files(path: Path) -> tuple[Path, Path]:
    """Tell which files hold the header and the data: one file, or an Analyze-style pair."""
    name = path.name.removesuffix(".gz")
    ending = path.name[len(name) :]
    stem, dot, extension = name.rpartition(".")
    if not dot or extension.lower() not in ("img", "hdr"):
        return path, path
    other = {"img": "hdr", "hdr": "img", "IMG": "HDR", "HDR": "IMG"}.get(extension, "hdr")
    choices = [path.with_name(f"{stem}.{other}{end}") for end in dict.fromkeys((ending, "", ".gz"))]
    partner = next((choice for choice in choices if choice.exists()), None)
    if partner is None:
        if not path.exists():
            raise InputError(f"{path} does not exist.")
        raise InputError(f"{path} is half of an image: {choices[0].name} is missing beside it.")
    return (partner, path) if extension.lower() == "img" else (path, partner)


def _contents(path: Path, limit: int | None = None) -> bytes:
    """Read a file's bytes (the first ``limit`` of them), decompressed if they are gzip."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(-1 if limit is None else 65536)
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
    if any(pointer in raw[:200] for pointer in POINTERS):
        raise ReadWriteError(f"{path} is a placeholder without content: fetch it (datalad get, git lfs pull).")
    if not raw.startswith(gzipped.MAGIC):
        return raw
    try:
        return gzipped.decompress(raw, limit)
    except gzipped.DamagedError as error:
        raise ReadWriteError(f"{path} is truncated or damaged ({error}). {AGAIN}.") from None


def _nifti_header(path: Path, raw: bytes) -> Any | None:
    """Read a NIfTI-1 or NIfTI-2 header of either byte order; None for what may be Analyze."""
    sizes = {int.from_bytes(raw[:4], order) for order in ("little", "big")}
    if 540 in sizes and raw[4:7] in (b"n+2", b"ni2") and len(raw) >= 540:
        return nib.Nifti2Header(raw[:540], check=False)
    if 348 in sizes and len(raw) >= 348:
        return nib.Nifti1Header(raw[:348], check=False) if raw[344:347] in (b"n+1", b"ni1") else None
    if sizes & {348, 540}:
        raise ReadWriteError(f"{path} is truncated: it ends inside its header. {AGAIN}.")
    raise ReadWriteError(f"{path} is not a NIfTI or Analyze image, or it is damaged. {AGAIN}.")


def _geometry(path: Path, header: Any) -> Geometry:
    """Put a NIfTI header's geometry into words of ours."""
    try:
        shape = _one_volume(path, header.get_data_shape())
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except (nib.spatialimages.HeaderDataError, ValueError) as error:
        raise ReadWriteError(f"{path} has a damaged header ({error}). {AGAIN}.") from None
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path} does not say where its voxels lie: its affine cannot be inverted. Correct its header.")
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    qform = _qform(header) if qform_code > 0 else None
    if qform is not None and np.allclose(qform, affine, rtol=0, atol=1e-5):
        qform = None
    return Geometry(shape, affine, sform_code, qform_code, qform, int(header["xyzt_units"]))


def _qform(header: Any) -> NDArray[np.float64] | None:
    """Read the qform; None where its quaternion is nonsense."""
    try:
        return np.asarray(header.get_qform(coded=False), dtype=np.float64)
    except (nib.spatialimages.HeaderDataError, ValueError):
        return None


def _one_volume(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Drop trailing axes of length 1; refuse more than one volume."""
    if not shape or min(shape) < 1:
        raise ReadWriteError(f"{path} has no voxels: its header gives the shape {tuple(shape)}. {AGAIN}.")
    if any(length != 1 for length in shape[3:]):
        volumes = int(np.prod(shape[3:]))
        raise DataError(f"{path} holds {volumes} volumes (shape {tuple(shape)}); a statmap is one. Split it.")
    x, y, z = (*(int(length) for length in shape[:3]), 1, 1)[:3]
    return x, y, z


def _scale(path: Path, header: Any) -> tuple[float, float]:
    """Read the scale factors; (1, 0) where there are none."""
    try:
        slope, intercept = header.get_slope_inter()
    except nib.spatialimages.HeaderDataError as error:
        raise ReadWriteError(f"{path} has damaged scale factors ({error}). {AGAIN}.") from None
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))


def _as_float(path: Path, values: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Make native floats of what the file holds; double precision unless single says it all."""
    if values.dtype.kind not in "fiub":
        raise DataError(f"{path} holds {values.dtype} values; a statmap holds one real number per voxel.")
    scaled = (slope, intercept) != (1.0, 0.0)
    small = values.dtype.kind == "f" and values.dtype.itemsize <= 4 and not scaled
    # In the file's order and, where its numbers are ours, without a copy: picking voxels comes next anyway.
    data: NDArray[Any] = values.astype(np.float32 if small else np.float64, order="K", copy=False)
    return data * slope + intercept if scaled else data


def _analyze(path: Path, *, header_only: bool) -> Image:
    """Read an Analyze pair as SPM understands it (its ``.mat``, its scale factor) through nibabel."""
    _, data_file = _files(path)
    try:
        image: Any = nib.load(data_file, mmap=False)
        shape = _one_volume(path, image.shape)
        geometry = Geometry(shape, np.asarray(image.affine, dtype=np.float64))
        if header_only:
            return Image(np.empty(0), geometry)
        values = np.asanyarray(image.dataobj).reshape(shape)
    except nib.filebasedimages.ImageFileError as error:
        raise ReadWriteError(f"{path} is not a NIfTI or Analyze image, or it is damaged ({error}). {AGAIN}.") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ReadWriteError(f"{path} is truncated or damaged ({error}). {AGAIN}.") from None
    return Image(_as_float(path, values, 1.0, 0.0), geometry)
