"""The one writer of images: NIfTI-1, the same bytes each time."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ibma_app.core.errors import DataError
from ibma_app.core.grid import Grid

log = logging.getLogger(__name__)

SMALL = 1e-25  # where a map's largest value is below, the small ones of single precision lose digits
SMALLEST_SLOPE = -126  # power of two: single precision's last with all its digits


INTENTS = {"t": 3, "F": 4, "z": 5, "p": 22, "log10p": 24}  # NIfTI's codes; programs take |log10 p|
PARAMETERS = {"t": 1, "F": 2}  # degrees of freedom that the code promises


@dataclass(frozen=True)
class Meaning:
    """What the header says of a map's values."""

    kind: str = ""  # "t", "effect", ...
    dof: tuple[float, ...] = ()  # of t (one) and F (two); empty: they differ by voxel, or there are none
    words: str = ""  # as much as there is room for: 79 bytes


def encode_map(
    vector: ArrayLike,
    grid: Grid,
    name: str,
    *,
    fill: float = 0.0,
    dtype: DTypeLike = np.float32,
    meaning: Meaning = Meaning(),
) -> memoryview:
    """Make the bytes of a map's NIfTI file.

    Parameters
    ----------
    vector : array_like, shape (V,)
        Values in the grid's mask.
    grid : Grid
        Its affine, sform and qform codes and units are kept.
    name : str
        What messages call it.
    fill : float
        The value outside the mask (1 for p maps).
    dtype : {float32, int16, uint8}
    meaning : Meaning
        For the header: NIfTI's intent (of t and F only where their degrees of
        freedom are the same everywhere) and description.

    Raises
    ------
    ValueError
        When a value is not finite, or is not of the type: a programming error.
    DataError
        When values are beyond what the type holds: too large, or all too small.

    Notes
    -----
    Maps of very small values (variances of MEG in SI units) have a scale factor
    in their header, a power of two; it is 1 for all others.
    """
    values = np.asarray(vector)
    slope = _slope(values, name) if np.dtype(dtype).kind == "f" else 1.0
    return _make_nifti(cast_values(values, name, dtype, slope), grid, fill / slope, slope, meaning)


def cast_values(values: NDArray[Any], name: str, dtype: DTypeLike, slope: float = 1.0) -> NDArray[Any]:
    """Return values over a scale factor in the type of a file; ``name`` is what messages call it.

    Raises
    ------
    ValueError, DataError
        As in `encode_map`.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        cast = (values / slope if slope != 1.0 else values).astype(dtype)
    if not np.isfinite(cast).all():
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: values that are not finite")
        raise DataError(
            f"{name} cannot be written: {np.count_nonzero(~np.isfinite(cast))} of its values are beyond what single "
            "precision holds (3e38). Do the inputs mark missing voxels by huge numbers? Set those to NaN or 0."
        )
    if np.issubdtype(cast.dtype, np.integer) and not np.array_equal(cast, values):
        raise ValueError(f"{name}: values that are no {np.dtype(dtype)}")
    return cast


def to_nibabel(volume: NDArray[Any], grid: Grid) -> Any:
    """Make of a volume (X, Y, Z) what nilearn draws: nibabel's image of it, in single precision."""
    return nib.Nifti1Image(volume.astype(np.float32), grid.affine)


def load_nibabel(path: Path) -> Any:
    """Read an image whole, as nibabel's: the file may go afterwards."""
    found: Any = nib.load(path)
    if not hasattr(found, "dataobj"):  # GIFTI: in memory already
        return found
    if isinstance(found, nib.Cifti2Image):
        return nib.Cifti2Image(np.asanyarray(found.dataobj), found.header, found.nifti_header)
    return type(found)(np.asanyarray(found.dataobj), found.affine, found.header)


def save_nibabel(image: Any, path: Path) -> None:
    """Write an image of nibabel or nilearn: in single precision where its values are, else in double."""
    values = np.asanyarray(image.dataobj)
    kept = np.float32 if values.dtype == np.float32 else np.float64
    header = image.header.copy()
    header.set_data_dtype(kept)
    header.set_slope_inter(1, 0)
    nib.Nifti1Image(values.astype(kept), image.affine, header).to_filename(path)


def _slope(values: NDArray[Any], name: str) -> float:
    """Return the power of two that brings a map's values into single precision; 1 for nearly all maps."""
    largest = float(np.abs(values).max(initial=0.0))
    if not 0.0 < largest < SMALL:
        return 1.0
    slope = 2.0 ** max(round(float(np.log2(largest))), SMALLEST_SLOPE)
    if largest / slope < SMALL:
        raise DataError(
            f"{name} cannot be written: its largest value is {largest:.3g}, below what single precision with a scale "
            "factor holds. Give the maps in larger units (an effect times k has a variance times k squared)."
        )
    log.info("%s: values of at most %.3g are written with the scale factor %.3g (scl_slope).", name, largest, slope)
    return slope


def make_header(grid: Grid, dtype: DTypeLike, slope: float = 1.0, shape: tuple[int, ...] | None = None) -> Any:
    """Make a NIfTI-1 header that says where a grid's voxels are.

    Parameters
    ----------
    grid : Grid
    dtype : data type of the voxels
    slope : float
        Scale factor.
    shape : tuple of int, optional
        Of the image; None: the grid's.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(shape or grid.shape)
    header.set_data_dtype(dtype)
    header.set_slope_inter(slope, 0.0)
    header["magic"], header["vox_offset"] = header.single_magic, header.single_vox_offset
    qform = grid.affine if grid.qform is None else grid.qform
    header.set_qform(qform, code=grid.qform_code, strip_shears=True)
    header.set_sform(grid.affine, code=grid.sform_code)
    # Without any code a reader derives the affine from the voxel sizes: kept only where that is right.
    if not np.allclose(header.get_best_affine(), grid.affine, rtol=1e-5, atol=1e-4):
        header.set_sform(grid.affine, code=2)
    header["xyzt_units"] = grid.xyzt_units
    return header


def _make_nifti(vector: NDArray[Any], grid: Grid, fill: float, slope: float, meaning: Meaning) -> memoryview:
    """Make the bytes of a NIfTI-1 image on a grid, whose voxels lie in the file's order from the start."""
    header = make_header(grid, vector.dtype, slope)
    if meaning.kind in INTENTS and len(meaning.dof) == PARAMETERS.get(meaning.kind, 0):
        header.set_intent(INTENTS[meaning.kind], meaning.dof, name=meaning.kind)
    elif len(meaning.kind) < 16:
        header["intent_name"] = meaning.kind
    header["descrip"] = meaning.words.encode("ascii", errors="replace")[:79]
    start = int(header.single_vox_offset)
    content = np.zeros(start + grid.mask.size * vector.dtype.itemsize, dtype=np.uint8)
    content[: len(header.binaryblock)] = np.frombuffer(header.binaryblock, dtype=np.uint8)
    voxels = content[start:].view(vector.dtype)
    voxels.fill(fill)
    voxels[grid.file_order] = vector
    return content.data
