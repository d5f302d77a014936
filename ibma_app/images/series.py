"""Time series: 4-D NIfTI read and written by volumes, a row of single precision for each voxel of the mask."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.grid import Grid
from ibma_app.images import gzipped
from ibma_app.images.contents import AGAIN, read_contents
from ibma_app.images.read import (
    HEADER_BYTES,
    check_type,
    data_offset,
    describe_header,
    nifti_header,
    scale_factors,
)
from ibma_app.images.regrid import tell_apart
from ibma_app.images.write import make_header

LARGEST = 2**38  # bytes of a series' voxels
AT_ONCE = 16  # volumes that are turned into rows together
UNSET = 1.0  # a step in time that nobody wrote, where no unit is stated
MM_AND_SECONDS = 10  # NIfTI's code of units
SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}  # NIfTI's codes of units of time

Singles = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SeriesHeader:
    """What a 4-D image says before its voxels are read."""

    path: Path
    grid: Grid  # every voxel in its mask
    n_volumes: int
    repetition_time: float | None  # s; None: the header states no time
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    offset: int  # bytes before the voxels

    @property
    def volume_bytes(self) -> int:
        """Bytes of a volume in the file."""
        return math.prod(self.grid.shape) * self.dtype.itemsize


def read_series_header(path: Path) -> SeriesHeader:
    """Read the header of a time series.

    Raises
    ------
    InputError, ReadWriteError
        The file is missing, cannot be opened, or is no NIfTI image.
    DataError
        It holds no real numbers, or does not say where its voxels lie.
    """
    nifti = nifti_header(path, read_contents(path, HEADER_BYTES))
    if nifti is None:
        raise ReadWriteError(f"{path} is no NIfTI image; preprocessed BOLD is expected as .nii or .nii.gz.")
    header = describe_header(path, nifti, LARGEST)
    check_type(path, nifti.get_data_dtype())
    slope, intercept = scale_factors(path, nifti)
    step = float(nifti["pixdim"][4]) if len(header.shape) > 3 else math.nan
    units = int(nifti["xyzt_units"]) & 56
    if not units and step == UNSET:
        step = math.nan
    return SeriesHeader(
        path,
        header.grid,
        header.n_volumes,
        step * SECONDS.get(units, 1.0) if math.isfinite(step) and step > 0 else None,
        nifti.get_data_dtype(),
        slope,
        intercept,
        data_offset(path, nifti, int(nifti["sizeof_hdr"]) + 4),
    )


def read_series(
    header: SeriesHeader,
    mask: NDArray[np.bool_],
    rows: Singles,
    *,
    first: int = 0,
    change: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> None:
    """Read the voxels of a mask, scale factors applied; one volume's bytes are in memory at a time.

    Parameters
    ----------
    header : SeriesHeader
    mask : ndarray of bool, shape (X, Y, Z)
        V voxels.
    rows : ndarray of float32, shape (V, T)
        Where they go, in C order of the mask.
    first : int
        Volumes at the start that are passed over.
    change : callable, optional
        Called with each volume, (X, Y, Z), before its voxels are picked (smoothing).

    Raises
    ------
    InputError, ReadWriteError
        The file cannot be read, or ends early.
    """
    where = Grid.whole(header.grid.affine, header.grid.shape).with_mask(mask).file_order
    block = np.empty((AT_ONCE, len(where)), dtype=np.float32)
    begun, filled = 0, 0
    for values in _volumes(header, first, rows.shape[1]):
        if change is None:
            picked = np.take(values, where)
            scaled = (
                picked * header.slope + header.intercept if (header.slope, header.intercept) != (1.0, 0.0) else picked
            )
        else:
            volume = values.reshape(header.grid.shape, order="F") * header.slope + header.intercept
            scaled = change(volume)[mask]
        block[filled] = scaled
        filled += 1
        if filled == AT_ONCE:
            rows[:, begun : begun + filled] = block.T
            begun, filled = begun + filled, 0
    rows[:, begun : begun + filled] = block[:filled].T


def _volumes(header: SeriesHeader, first: int, count: int) -> Iterator[NDArray[Any]]:
    """Yield volumes as flat arrays in the file's order."""
    size = header.volume_bytes
    try:
        with header.path.open("rb") as stream:
            pieces = gzipped.read_pieces(stream, [header.offset, *[size] * (first + count)])
            next(pieces)
            for number, raw in enumerate(pieces):
                if len(raw) < size:
                    raise ReadWriteError(
                        f"{header.path} is truncated: its header promises {header.n_volumes} volumes, and it ends in "
                        f"volume {number + 1}. {AGAIN}."
                    )
                if number >= first:
                    yield np.frombuffer(raw, dtype=header.dtype)
    except gzipped.DamagedError as error:
        raise ReadWriteError(f"{header.path} is truncated or damaged ({error}). {AGAIN}.") from None
    except OSError as error:
        kind = InputError if isinstance(error, FileNotFoundError | PermissionError) else ReadWriteError
        raise kind(f"{header.path} cannot be read: {error.strerror or error}. {AGAIN}.") from None


def read_series_mask(path: Path, grid: Grid) -> NDArray[np.bool_]:
    """Read the brain mask of a series: 3-D, or 4-D, of which a voxel must be inside in every volume.

    Raises
    ------
    InputError, ReadWriteError
        It cannot be read.
    DataError
        It is empty, or on another grid.
    """
    header = read_series_header(path)
    if not grid.matches(header.grid):
        raise DataError(
            f"{path}: the mask and the BOLD are not on one grid: {tell_apart(grid, header.grid)}. Give the mask of the "
            "same space and resolution."
        )
    inside = np.ones(grid.shape, dtype=bool)
    for values in _volumes(header, 0, header.n_volumes):
        volume = values.reshape(header.grid.shape, order="F") * header.slope + header.intercept
        inside &= np.isfinite(volume) & (volume > 0.5 if volume.max(initial=0) <= 1 else volume > 0)
    if not inside.any():
        every = " in all volumes" * (header.n_volumes > 1)
        raise DataError(f"{path}: the mask is empty: no voxel is inside{every}. Give another by --mask.")
    return inside


def write_series(
    path: Path, blocks: Iterable[NDArray[Any]], grid: Grid, n_volumes: int, repetition_time: float, dtype: Any
) -> None:
    """Write a time series (gzip), the same bytes each time; a block of volumes is in memory at a time.

    Parameters
    ----------
    path : Path
        A new file.
    blocks : iterable of ndarray, shape (V, N)
        Volumes one after the other, so many at once as are convenient; 0 outside of the mask.
    grid : Grid
        Whose mask has the V voxels.
    n_volumes : int
        T, of all blocks together.
    repetition_time : float
        s.
    dtype : {float32, int16}
        Values of int16 are rounded.
    """
    header = make_header(grid, dtype, shape=(*grid.shape, n_volumes))
    header["pixdim"][4] = repetition_time
    header["xyzt_units"] = MM_AND_SECONDS

    def pieces() -> Iterator[bytes]:
        yield header.binaryblock.ljust(int(header.single_vox_offset), b"\0")
        for block in blocks:
            values = np.rint(block) if np.dtype(dtype).kind == "i" else block
            volumes = np.zeros((block.shape[1], math.prod(grid.shape)), dtype=dtype)
            volumes[:, grid.file_order] = values.T
            yield volumes.tobytes()

    with path.open("xb") as stream:
        stream.writelines(gzipped.compress_pieces(pieces()))


def smoother(grid: Grid, fwhm: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return the function that smooths a volume with a Gaussian of this full width at half maximum, mm; NaN is 0."""
    from scipy.ndimage import gaussian_filter1d

    sigmas = fwhm / (np.sqrt(8 * np.log(2)) * grid.voxel_sizes)

    def smooth(volume: NDArray[Any]) -> NDArray[Any]:
        values = np.nan_to_num(volume.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        for axis, sigma in enumerate(sigmas):
            values = gaussian_filter1d(values, float(sigma), axis=axis)
        return values

    return smooth
