"""SPM folders made by code: an estimated model of known truth, written as SPM writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import scipy.io

AFFINE = np.array([[-3.0, 0, 0, 12], [0, 3, 0, -15], [0, 0, 3, -9], [0, 0, 0, 1]])  # negative x voxel size, as SPM's
SHAPE = (9, 10, 7)
SCANS = 40
HEIGHT = 0.8


@dataclass(frozen=True, eq=False)
class SpmTruth:
    """What went into a folder."""

    t: dict[str, np.ndarray]
    effect: dict[str, np.ndarray]
    mean: np.ndarray
    mask: np.ndarray
    dof: float


def struct(**fields: Any) -> np.ndarray:
    """Make a 1 x 1 struct as scipy.io.savemat wants it."""
    return structs([fields])


def structs(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Make a 1 x N array of structs."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        for name, value in row.items():
            array[0, i][name] = value
    return array


def cells(values: Sequence[Any]) -> np.ndarray:
    """Make a 1 x N cell array."""
    array = np.empty((1, len(values)), dtype=object)
    for i, value in enumerate(values):
        array[0, i] = value
    return array


def save_image(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, descrip: str = "") -> None:
    """Write an image in SPM's way: float32, NIfTI or Analyze by its ending."""
    if path.suffix == ".img":
        image: Any = nib.Spm2AnalyzeImage(values.astype(np.float32), affine)
        image.header["db_name"] = b""
    else:
        image = nib.Nifti1Image(values.astype(np.float32), affine)
        image.header["descrip"] = descrip.encode()[:79]
        image.header.set_sform(affine, 2)
        image.header.set_qform(affine, 2)
    image.to_filename(path)


def boxcar(phase: int) -> np.ndarray:
    """Make blocks of 5 scans of the height HEIGHT."""
    return HEIGHT * ((np.arange(SCANS) // 5) % 4 == phase).astype(float)


CONTRASTS = {"A > B": [1.0, -1.0, 0.0], "A + B, twice": [2.0, 2.0, 0.0], "A\nalone": [1.0, 0.0, 0.0]}


def make_first_level(folder: Path, ending: str = ".nii", seed: int = 0) -> SpmTruth:
    """Estimate a first level of two conditions and write its folder, SPM.mat and all."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:-1, 1:-1, 1:-1] = True
    design = np.column_stack([boxcar(0), boxcar(2), np.ones(SCANS)])
    mean = 700 + 200 * rng.random(SHAPE)
    betas = np.stack([5 * rng.standard_normal(SHAPE), 5 * rng.standard_normal(SHAPE), mean])
    data = np.einsum("sp,pxyz->sxyz", design, betas) + 10 * rng.standard_normal((SCANS, *SHAPE))
    fit, *_ = np.linalg.lstsq(design, data.reshape(SCANS, -1), rcond=None)
    dof = float(SCANS - 3)
    residual = ((data.reshape(SCANS, -1) - design @ fit) ** 2).sum(axis=0) / dof
    fit, residual = fit.reshape(3, *SHAPE), residual.reshape(SHAPE)
    covariance = np.linalg.inv(design.T @ design)
    blank = np.where(mask, 1.0, np.nan)
    for i, beta in enumerate(fit, start=1):
        save_image(folder / f"beta_{i:04d}{ending}", beta * blank)
    save_image(folder / f"ResMS{ending}", residual * blank)
    save_image(folder / f"mask{ending}", mask.astype(float))
    t, effect, entries = {}, {}, []
    for i, (name, weights) in enumerate(CONTRASTS.items(), start=1):
        c = np.array(weights)
        effect[name] = np.einsum("p,pxyz->xyz", c, fit)
        t[name] = effect[name] / np.sqrt(residual * (c @ covariance @ c))
        save_image(folder / f"con_{i:04d}{ending}", effect[name] * blank, descrip=f"Contrast {i}: {name}")
        words = f"SPM{{T_[{dof}]}} - contrast {i}: {name}"
        save_image(folder / f"spmT_{i:04d}{ending}", t[name] * blank, descrip=words)
        entries.append(_entry(name, "T", c[:, None], f"con_{i:04d}{ending}", f"spmT_{i:04d}{ending}"))
    entries.append(_entry("any", "F", np.eye(3)[:, :2], f"ess_0004{ending}", f"spmF_0004{ending}"))
    write_mat(folder / "SPM.mat", design, covariance, dof, entries, ending)
    return SpmTruth(t, effect, fit[2], mask, dof)


def _entry(name: str, stat: str, weights: np.ndarray, con: str, spm: str) -> dict[str, Any]:
    return {
        "name": name,
        "STAT": stat,
        "c": weights,
        "eidf": 1.0,
        "Vcon": struct(fname=con, dim=np.array([[*SHAPE]])),
        "Vspm": struct(fname=spm, dim=np.array([[*SHAPE]])),
    }


def write_mat(
    path: Path, design: np.ndarray, covariance: np.ndarray, dof: float, entries: list[dict[str, Any]], ending: str
) -> None:
    """Write SPM.mat of version 5; ``entries`` may be empty, as before contrasts are estimated."""
    scipy.io.savemat(path, {"SPM": make_struct(design, covariance, dof, entries, ending)})


def make_struct(
    design: np.ndarray, covariance: np.ndarray, dof: float, entries: list[dict[str, Any]], ending: str
) -> np.ndarray:
    """Make the struct."""
    betas = [{"fname": f"beta_{i + 1:04d}{ending}"} for i in range(design.shape[1])]
    return struct(
        SPMid="SPM12: spm_spm (v7120)",
        swd="C:\\data\\sub-01",
        nscan=float(design.shape[0]),
        xBF=struct(name="hrf", order=1.0),
        Sess=struct(row=np.arange(1.0, design.shape[0] + 1)[None]),
        xX=struct(
            X=design,
            name=cells(["Sn(1) A*bf(1)", "Sn(1) B*bf(1)", "Sn(1) constant"]),
            iB=3.0,
            Bcov=covariance,
            erdf=dof,
        ),
        xCon=structs(entries) if entries else np.empty((0, 0)),
        Vbeta=structs(betas),
        VResMS=struct(fname=f"ResMS{ending}"),
        VM=struct(fname=f"mask{ending}"),
        xVol=struct(M=AFFINE, DIM=np.array(SHAPE, dtype=float)[:, None]),
    )


def write_mat73(path: Path, content: np.ndarray) -> None:
    """Write the struct ``SPM`` as MATLAB 7.3 does: HDF5, arrays transposed, cells and struct arrays by reference."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        references = file.create_group("#refs#")
        _write_hdf(file, "SPM", content, references)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))


def _write_hdf(parent: Any, name: str, value: Any, references: Any) -> None:

    array = np.asarray(value)
    if array.dtype.names and array.size == 1:
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field in array.dtype.names:
            _write_hdf(group, field, array.ravel()[0][field], references)
    elif array.dtype.names:
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field in array.dtype.names:
            group.create_dataset(field, data=_refer([one[field] for one in array.ravel()], references))
    elif array.dtype.kind == "O":
        dataset = parent.create_dataset(name, data=_refer(list(array.ravel(order="F")), references))
        dataset.attrs["MATLAB_class"] = np.bytes_("cell")
    elif array.dtype.kind == "U":
        codes = np.array([[ord(letter)] for letter in str(array.ravel()[0])], dtype=np.uint16)
        dataset = parent.create_dataset(name, data=codes)
        dataset.attrs["MATLAB_class"] = np.bytes_("char")
    elif array.size == 0:
        dataset = parent.create_dataset(name, data=np.array(array.shape, dtype=np.uint64))
        dataset.attrs["MATLAB_class"], dataset.attrs["MATLAB_empty"] = np.bytes_("double"), np.uint8(1)
    else:
        dataset = parent.create_dataset(name, data=np.atleast_2d(array).T)
        dataset.attrs["MATLAB_class"] = np.bytes_("double")


def _refer(values: list[Any], references: Any) -> np.ndarray:
    import h5py

    found = np.empty((len(values), 1), dtype=h5py.ref_dtype)
    for i, value in enumerate(values):
        name = f"r{len(references)}"
        _write_hdf(references, name, value, references)
        found[i, 0] = references[name].ref
    return found
