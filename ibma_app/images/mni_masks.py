"""nilearn's MNI152 brain and its masks, without nilearn: importing that takes longer than combining 21 studies.

The template is read where it lies in nilearn's package. A mask that needs nilearn is computed once a machine and kept
where compiled kernels are: beside them in an image, else in the package's folder or the user's cache.
"""

import os
import tempfile
import zipfile
from contextlib import suppress
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ibma_app.stats.kernel_cache import cache_folders

_TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
_INSIDE = 0.2  # of the template, as nilearn has it


class Brain(NamedTuple):
    """A brain mask of the MNI152 template."""

    mask: NDArray[np.bool_]  # (X, Y, Z)
    affine: NDArray[np.float64]  # (4, 4)


class Template(NamedTuple):
    """The MNI152 template without its skull, of 1 mm."""

    volume: NDArray[np.float32]  # (X, Y, Z) from 0 to 1
    affine: NDArray[np.float64]  # (4, 4)


def mni_template() -> Template:
    """Give `nilearn.datasets.load_mni152_template`'s image; it is part of nilearn's package, and nothing is fetched."""
    path = Path(str(files("nilearn"))) / _TEMPLATE
    if not path.is_file():  # another nilearn
        from nilearn.datasets import load_mni152_template

        image = load_mni152_template(resolution=1)
        return Template(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64))
    found: Any = nib.load(path)
    volume = np.asanyarray(found.dataobj).astype(np.float32)
    volume /= volume.max()
    return Template(volume, np.asarray(found.affine, dtype=np.float64))


def mni_brain(resolution: int) -> Brain:
    """Give `nilearn.datasets.load_mni152_brain_mask`'s mask.

    Parameters
    ----------
    resolution : int
        Of its voxels, mm.
    """
    if resolution == 1:
        template = mni_template()
        return Brain(template.volume > _INSIDE, template.affine)
    name = f"mni152_brain_{resolution}mm_nilearn-{version('nilearn')}.npz"
    for folder in cache_folders():
        kept = _read(folder / name)
        if kept is not None:
            return kept
    from nilearn.datasets import load_mni152_brain_mask

    image = load_mni152_brain_mask(resolution=resolution)
    brain = Brain(np.asanyarray(image.dataobj) != 0, np.asarray(image.affine, dtype=np.float64))
    for folder in cache_folders():
        if _keep(brain, folder / name):
            break
    return brain


def _read(path: Path) -> Brain | None:
    """Read a mask that was kept; None when it is not there, or damaged."""
    try:
        with np.load(path) as parts:
            shape = tuple(parts["shape"].tolist())
            bits = np.unpackbits(parts["bits"], count=int(np.prod(shape)))
            return Brain(bits.astype(bool).reshape(shape), parts["affine"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _keep(brain: Brain, path: Path) -> bool:
    """Keep a mask, whole or not at all; tell whether that was possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(suffix=".npz", dir=path.parent)
        os.close(handle)
    except OSError:
        return False
    try:
        np.savez_compressed(aside, bits=np.packbits(brain.mask), shape=brain.mask.shape, affine=brain.affine)
        Path(aside).chmod(0o644)
        Path(aside).replace(path)
    except OSError:
        with suppress(OSError):
            Path(aside).unlink()
        return False
    return True
