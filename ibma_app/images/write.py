"""The one writer of images: NIfTI-1, the same bytes each time."""

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ibma_app.core.errors import DataError
from ibma_app.core.grid import Grid


def encode_map(vector: ArrayLike, grid: Grid, *, fill: float = 0.0, dtype: DTypeLike = np.float32) -> memoryview:
    """Make the bytes of a map's NIfTI file.

    Parameters
    ----------
    vector : array_like, shape (V,)
        Values in the grid's mask.
    grid : Grid
        Its affine, sform and qform codes and units are kept.
    fill : float
        The value outside the mask (1 for p maps).
    dtype : {float32, int16, uint8}

    Raises
    ------
    ValueError
        When a value is not finite, or is not of the type: a programming error.
    DataError
        When a value is beyond what the type holds.
    """
    values = np.asarray(vector)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        if not np.isfinite(values).all():
            raise ValueError("values that are not finite")
        raise DataError(
            f"{np.count_nonzero(~np.isfinite(cast))} of its values are beyond what single precision holds (3e38). "
            "Do the inputs mark missing voxels by huge numbers? Set those to NaN or 0."
        )
    if np.issubdtype(cast.dtype, np.integer) and not np.array_equal(cast, values):
        raise ValueError(f"values that are no {np.dtype(dtype)}")
    return _make_nifti(cast, grid, fill)


def to_nibabel(volume: NDArray[Any], grid: Grid) -> Any:
    """Make of a volume (X, Y, Z) what nilearn draws: nibabel's image of it, in single precision."""
    return nib.Nifti1Image(volume.astype(np.float32), grid.affine)


def _make_nifti(vector: NDArray[Any], grid: Grid, fill: float) -> memoryview:
    """Make the bytes of a NIfTI-1 image on a grid, whose voxels lie in the file's order from the start."""
    header = nib.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_data_dtype(vector.dtype)
    header.set_slope_inter(1.0, 0.0)
    header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset
    qform = grid.affine if grid.qform is None else grid.qform
    header.set_qform(qform, code=grid.qform_code, strip_shears=True)
    header.set_sform(grid.affine, code=grid.sform_code)
    # Without any code a reader derives the affine from the voxel sizes: kept only where that is right.
    if not np.allclose(header.get_best_affine(), grid.affine, rtol=1e-5, atol=1e-4):
        header.set_sform(grid.affine, code=2)
    header["xyzt_units"] = grid.xyzt_units
    start = int(header.single_vox_offset)
    content = np.zeros(start + grid.mask.size * vector.dtype.itemsize, dtype=np.uint8)
    content[: len(header.binaryblock)] = np.frombuffer(header.binaryblock, dtype=np.uint8)
    voxels = content[start:].view(vector.dtype)
    voxels.fill(fill)
    voxels[grid.file_order] = vector
    return content.data
