"""The one reader of images as they are found in the wild: NIfTI by its content, Analyze and what else nibabel opens."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, ReadWriteError
from ibma_app.core.grid import Grid
from ibma_app.images.contents import AGAIN, image_files, packed_length, read_contents, unpack

HEADER_BYTES = 544  # enough for NIfTI-2's header, and for the others'
LARGEST = 2**32  # bytes of an image's voxels: a statmap of 0.5 mm needs a tenth; more is an accident or a bomb
nib.imageglobals.logger.setLevel(logging.CRITICAL)  # its words name no file; ours do
LARGEST_VOLUME = 2**30  # bytes of one volume: that of 0.5 mm needs a quarter
LARGEST_EXTENSIONS = 2**26  # bytes before the voxels
SMALLEST = float(np.finfo(np.float64).smallest_subnormal)
MOST_CODES, ALIGNED = 5, 2  # of sform and qform
FAR = 1e9  # mm: no voxel lies there
MM_AND_SECONDS = 10  # NIfTI's code of units: what a header that states none means


@dataclass(frozen=True, eq=False)
class Header:
    """What an image says before its voxels are read."""

    grid: Grid  # every voxel in its mask
    shape: tuple[int, ...]  # with the axes beyond the third
    description: str = ""  # the header's own words, which SPM uses
    odd_sizes: str = ""  # as of `Image`

    @property
    def n_volumes(self) -> int:
        """Volumes along the axes beyond the third."""
        return math.prod(self.shape[3:])


@dataclass(frozen=True, eq=False)
class Image:
    """One volume and where it lies."""

    data: NDArray[Any] = field(repr=False)  # (X, Y, Z), read-only; float32 where the file has that, else float64
    grid: Grid  # every voxel in its mask
    smallest: float = SMALLEST  # the smallest positive number that the file can hold
    odd_sizes: str = ""  # voxel sizes of the header that cannot be, where they decide how far apart the voxels lie


def read_header(path: Path) -> Header:
    """Read an image's header alone.

    Parameters
    ----------
    path : Path
        ``.nii``, ``.nii.gz``, ``.img``, ``.hdr`` or what else nibabel opens;
        what the content is counts more than what the name says.

    Raises
    ------
    InputError
        The file (or the other half of the pair) is missing or cannot be opened.
    ReadWriteError
        It is empty, truncated or not an image.
    DataError
        It does not say where its voxels lie, or promises more than any statistic map holds.
    """
    header_file, _ = image_files(path)
    nifti = nifti_header(header_file, read_contents(header_file, HEADER_BYTES))
    return describe_header(path, _open_other(path) if nifti is None else nifti)


def read_grid(path: Path) -> Grid:
    """Read where the voxels of an image of one volume lie, from its header alone.

    Raises
    ------
    InputError, ReadWriteError, DataError
        As in `read_header`; or it holds several volumes.
    """
    header = read_header(path)
    _choose(path, header, None)
    return header.grid


def read_image(path: Path, index: int | None = None) -> Image:
    """Read one volume of an image, scale factors applied.

    No more of the file is read and unpacked than its header says that the
    volume needs.

    Parameters
    ----------
    path : Path
        As in `read_header`.
    index : int, optional
        Which of the volumes; None: there must be one.

    Returns
    -------
    Image
        ``data`` is float32 where the file holds unscaled float32 (or half
        precision), else float64.

    Raises
    ------
    InputError, ReadWriteError
        As in `read_header`.
    DataError
        As in `read_header`; several volumes and no index, or values that are no real numbers.
    """
    header_file, data_file = image_files(path)
    nifti = nifti_header(header_file, read_contents(header_file, HEADER_BYTES))
    if nifti is None:
        return _read_other(path, _open_other(path), index)
    lowest = int(nifti["sizeof_hdr"]) + 4 if header_file == data_file else 0
    return _read_nifti(path, nifti, index, lowest, lambda limit: read_contents(data_file, limit))


def decode_image(begin: Callable[[int], bytes], where: Path) -> Image:
    """Read a NIfTI image of one volume out of bytes, such as a file's in an archive.

    Parameters
    ----------
    begin : callable
        Returns the first bytes, so many or all; they may be compressed.
    where : Path
        What messages call it.

    Raises
    ------
    ReadWriteError, DataError
        As in `read_image`.
    """

    def contents(limit: int) -> bytes:
        return unpack(where, begin(packed_length(limit)), limit)

    nifti = nifti_header(where, contents(HEADER_BYTES))
    if nifti is None:
        raise _no_image(where)
    return _read_nifti(where, nifti, None, int(nifti["sizeof_hdr"]) + 4, contents)


def read_extension(path: Path, code: int) -> bytes | None:
    """Read the first header extension of a kind from a NIfTI file.

    Parameters
    ----------
    path : Path
    code : int
        What the extension is (AFNI's is 4).

    Returns
    -------
    bytes or None
        Its content; None when there is none, or this is no NIfTI file.

    Raises
    ------
    InputError, ReadWriteError
        As in `read_header`.
    """
    raw = read_contents(path, HEADER_BYTES)
    try:
        nifti = nifti_header(path, raw)
    except ReadWriteError:
        return None
    if nifti is None:
        return None
    order, at = "little" if nifti.endianness == "<" else "big", int(nifti["sizeof_hdr"])
    end = min(data_offset(path, nifti, at + 4), LARGEST_EXTENSIONS)
    raw = read_contents(path, end)[:end]
    if not raw[at : at + 1].strip(b"\0"):
        return None
    at += 4
    while at + 8 <= len(raw):
        size, kind = (int.from_bytes(raw[at + part : at + part + 4], order, signed=True) for part in (0, 4))  # type: ignore[arg-type]
        if size < 8:
            return None
        if kind == code:
            return raw[at + 8 : at + size]
        at += size
    return None


def nifti_header(path: Path, raw: bytes) -> Any | None:
    """Read a NIfTI-1 or NIfTI-2 header of either byte order; None for what may be of another format."""
    sizes = {int.from_bytes(raw[:4], order) for order in ("little", "big")}
    if 540 in sizes and raw[4:7] in (b"n+2", b"ni2") and len(raw) >= 540:
        return nib.Nifti2Header(raw[:540], check=False)
    if 348 in sizes and raw[344:347] in (b"n+1", b"ni1") and len(raw) >= 348:
        return nib.Nifti1Header(raw[:348], check=False)
    if sizes & {348, 540} and len(raw) < 348:
        raise ReadWriteError(f"{path} is truncated: it ends inside its header. {AGAIN}.")
    if path.name.endswith((".nii", ".nii.gz")):
        raise _no_image(path)
    return None


def _mend_sizes(header: Any) -> str:
    """Take impossible voxel sizes of a NIfTI header as nibabel does; return them where they decide on the place.

    The sign of pixdim[0] is 1 unless it is negative (the standard, of 0); a
    size is its absolute value, 1 for what is 0 or no number.
    """
    sizes = header["pixdim"]
    sizes[0] = -1.0 if sizes[0] < 0 else 1.0
    edges = np.abs(sizes[1:4])
    edges[~((edges > 0) & np.isfinite(edges))] = 1.0
    if np.array_equal(edges, sizes[1:4]):
        return ""
    given = " x ".join(f"{size:g}" for size in sizes[1:4])
    sizes[1:4] = edges
    return "" if header["sform_code"] > 0 else given


def _no_image(path: Path, reason: object = "") -> ReadWriteError:
    """Word the failure of what is of no known format."""
    why = f" ({reason})" if reason else ""
    return ReadWriteError(f"{path} is not a NIfTI or Analyze image, or it is damaged{why}. {AGAIN}.")


def _open_other(path: Path) -> Any:
    """Open an Analyze pair as SPM understands it (its ``.mat``, its scale factor), or another format, by nibabel."""
    _, data_file = image_files(path)
    read_contents(data_file, HEADER_BYTES)  # tells what is missing, empty or no file
    try:
        with np.errstate(all="ignore"):  # absurd headers are judged below
            image = nib.load(data_file, mmap=False)
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise _no_image(path, error) from None
    except Exception as error:  # noqa: BLE001  a dozen formats, each of which fails in ways of its own
        raise ReadWriteError(f"{path} is truncated or damaged ({error}). {AGAIN}.") from None
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise _no_image(path, "it holds no volume")
    return image


def describe_header(path: Path, found: Any, largest: int = LARGEST) -> Header:
    """Put what a NIfTI header, or an image that nibabel opened, says into words of ours."""
    is_nifti = isinstance(found, nib.Nifti1Header)
    header = found if is_nifti else found.header
    odd_sizes = _mend_sizes(header) if is_nifti else ""
    try:
        shape = tuple(int(length) for length in (found.get_data_shape() if is_nifti else found.shape))
        each = int(header.get_data_dtype().itemsize)
        promised = math.prod(shape) * each
        affine = np.asarray(found.get_best_affine() if is_nifti else found.affine, dtype=np.float64)
    except (nib.spatialimages.HeaderDataError, ValueError, KeyError) as error:
        raise ReadWriteError(f"{path} has a damaged header ({error}). {AGAIN}.") from None
    if not shape or min(shape) < 1:
        raise ReadWriteError(f"{path} holds no voxels: its header gives the shape {shape}. {AGAIN}.")
    if promised > largest or math.prod(shape[:3]) * each > LARGEST_VOLUME:
        size = f"{promised / 2**30:.3g} GiB"
        raise DataError(f"{path} would fill {size} (its header says shape {shape}); no statistic map is that large.")
    if not _is_place(affine):
        raise DataError(f"{path} does not say where its voxels lie: its affine cannot be inverted. Correct its header.")
    x, y, z = (*shape, 1, 1)[:3]
    grid = _grid(affine, (x, y, z), header) if is_nifti else _other_grid(affine, (x, y, z), found)
    return Header(grid, shape, _words(header), odd_sizes)


def _words(header: Any) -> str:
    """Return the description that NIfTI and Analyze headers hold."""
    try:
        raw = np.asarray(header["descrip"]).tobytes()
    except (KeyError, TypeError, ValueError):
        return ""
    return bytes(raw).split(b"\0")[0].decode("latin-1")


def _other_grid(affine: NDArray[np.float64], shape: tuple[int, int, int], image: Any) -> Grid:
    """Return the grid of an image that nibabel opened; Analyze states its place in a ``.mat`` file or its origin."""
    if not isinstance(image, nib.AnalyzeImage):
        return Grid.whole(affine, shape)
    beside = image.file_map.get("mat")
    stated = beside is not None and beside.filename is not None and Path(beside.filename).exists()
    if not stated and "origin" in image.header:
        origin = np.asarray(image.header["origin"], dtype=np.float64)[:3]  # nibabel takes no other
        stated = bool(origin.any() and (origin > -np.asarray(shape)).all() and (origin < 2 * np.asarray(shape)).all())
    return Grid.whole(affine, shape, sform_code=2 if stated else 0)


def _is_place(affine: NDArray[np.float64]) -> bool:
    """Return whether an affine says where voxels lie, and can be inverted."""
    return bool((np.abs(affine) < FAR).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-12)  # NaN is not less, either


def _grid(affine: NDArray[np.float64], shape: tuple[int, int, int], header: Any) -> Grid:
    """Return the grid of an image, with the codes of a NIfTI header."""
    # Codes beyond the standard's 5 state a place, too, in a space that nobody knows.
    codes = (int(header[name]) for name in ("sform_code", "qform_code"))
    sform_code, qform_code = (max(code, 0) if code <= MOST_CODES else ALIGNED for code in codes)
    qform = _qform(header) if qform_code > 0 else None
    if qform is not None and not _is_place(qform):  # damaged; the affine is the sform's
        qform, qform_code = None, 0
    if qform is not None and np.allclose(qform, affine, rtol=0, atol=1e-5):
        qform = None
    units = int(header["xyzt_units"]) or MM_AND_SECONDS
    return Grid.whole(affine, shape, sform_code=sform_code, qform_code=qform_code, qform=qform, xyzt_units=units)


def _qform(header: Any) -> NDArray[np.float64] | None:
    """Read the qform; None where its quaternion is nonsense."""
    try:
        return np.asarray(header.get_qform(coded=False), dtype=np.float64)
    except (nib.spatialimages.HeaderDataError, ValueError):
        return None


def _choose(path: Path, header: Header, index: int | None) -> int:
    """Tell which volume is meant; refuse several where one is expected."""
    if index is None and header.n_volumes != 1:
        raise DataError(f"{path} holds {header.n_volumes} volumes (shape {header.shape}); a statmap is one. Split it.")
    return index or 0


def data_offset(path: Path, nifti: Any, lowest: int) -> int:
    """Read where the voxels begin in their file."""
    offset = float(nifti["vox_offset"])
    if not math.isfinite(offset) or offset > LARGEST:
        raise ReadWriteError(f"{path} has a damaged header (its voxels begin at byte {offset:g}). {AGAIN}.")
    return max(int(offset), lowest)


def _read_nifti(path: Path, nifti: Any, index: int | None, lowest: int, contents: Callable[[int], bytes]) -> Image:
    """Read one volume of a NIfTI image whose header is read."""
    header = describe_header(path, nifti)
    index = _choose(path, header, index)
    dtype, count = nifti.get_data_dtype(), math.prod(header.grid.shape)
    check_type(path, dtype)
    offset = data_offset(path, nifti, lowest)
    end = (index + 1) * count * dtype.itemsize
    raw = contents(offset + end)
    if len(raw) < offset + end:
        raise ReadWriteError(
            f"{path} is truncated: its header promises {end} bytes of data and only {max(len(raw) - offset, 0)} "
            f"are there. {AGAIN}."
        )
    start = offset + index * count * dtype.itemsize
    values = np.frombuffer(raw, dtype=dtype, count=count, offset=start).reshape(header.grid.shape, order="F")
    slope, intercept = scale_factors(path, nifti)
    return Image(_as_float(path, values, slope, intercept), header.grid, _smallest(dtype, slope), header.odd_sizes)


def _smallest(dtype: np.dtype[Any], slope: float) -> float:
    """Return the smallest positive number that a type holds, after scaling."""
    least = float(np.finfo(dtype).smallest_subnormal) if dtype.kind == "f" else 1.0
    return max(abs(slope) * least, SMALLEST)


def scale_factors(path: Path, header: Any) -> tuple[float, float]:
    """Read the scale factors; (1, 0) where there are none."""
    try:
        slope, intercept = header.get_slope_inter()
    except nib.spatialimages.HeaderDataError as error:
        raise ReadWriteError(f"{path} has damaged scale factors ({error}). {AGAIN}.") from None
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))


def check_type(path: Path, dtype: np.dtype[Any]) -> None:
    """Refuse values that are no real numbers."""
    if dtype.kind not in "fiub":
        raise DataError(f"{path} holds {dtype} values; a statmap holds one real number per voxel.")


def _as_float(path: Path, values: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Make native floats of what the file holds; double precision unless single says it all."""
    check_type(path, values.dtype)
    scaled = (slope, intercept) != (1.0, 0.0)
    small = values.dtype.kind == "f" and values.dtype.itemsize <= 4 and not scaled
    # In the file's order and, where its numbers are ours, without a copy: picking voxels comes next anyway.
    data: NDArray[Any] = values.astype(np.float32 if small else np.float64, order="K", copy=False)
    return data * slope + intercept if scaled else data


def _read_other(path: Path, image: Any, index: int | None) -> Image:
    """Read one volume of an image that nibabel opened."""
    header = describe_header(path, image)
    index = _choose(path, header, index)
    try:
        values = np.asanyarray(image.dataobj)
    except Exception as error:  # noqa: BLE001  as when it was opened
        raise ReadWriteError(f"{path} is truncated or damaged ({error}). {AGAIN}.") from None
    values = values.reshape(*header.grid.shape, header.n_volumes, order="F")[..., index]
    slope = getattr(image.dataobj, "slope", 1.0)  # nibabel's proxies have applied it
    stored = np.dtype(image.get_data_dtype())
    return Image(_as_float(path, values, 1.0, 0.0), header.grid, _smallest(stored, float(np.max(slope))))
