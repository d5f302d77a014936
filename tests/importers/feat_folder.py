"""FEAT folders made by code, from the numbers of a first level of two conditions."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

AFFINE = np.array([[-3.0, 0, 0, 12], [0, 3, 0, -15], [0, 0, 3, -9], [0, 0, 0, 1]])
SHAPE = (9, 10, 7)
HEIGHT = 1.25
POINTS = 60


def save_image(path: Path, values: np.ndarray, code: int = 1, affine: np.ndarray = AFFINE) -> None:
    """Write an image as FSL does: float32, 0 outside the mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.asarray(values, dtype=np.float32), affine)
    image.header.set_sform(affine, code)
    image.header.set_qform(affine, code)
    image.to_filename(path)


def vest(names: dict[int, str], heights: list[float], rows: np.ndarray, count: str) -> str:
    """Write design.con (with names) or design.mat (without)."""
    lines = [f"/ContrastName{number}\t{name} " for number, name in names.items()]
    lines += [f"/NumWaves\t{rows.shape[1]}", f"/{count}\t{rows.shape[0]}"]
    lines += ["/PPheights\t\t" + "\t".join(f"{height:e}" for height in heights), "", "/Matrix"]
    lines += [" ".join(f"{value:e}" for value in row) + " " for row in rows]
    return "\n".join(lines) + "\n"


def make_feat(
    root: Path,
    contrasts: dict[str, list[float]],
    maps: dict[str, tuple[np.ndarray, np.ndarray]],
    *,
    heights: tuple[float, ...] = (HEIGHT, HEIGHT),
    numbers: list[int] | None = None,
    dof: float | None = 56,
    mean: np.ndarray | None = None,
    registered: bool = False,
    code: int = 1,
    level: int = 1,
    affine: np.ndarray = AFFINE,
    **settings: Any,
) -> Path:
    """Write a FEAT folder.

    ``maps`` holds cope and varcope of each contrast in FSL's own scaling;
    ``registered`` puts them into reg_standard as well.
    """
    numbers = numbers or list(range(1, len(contrasts) + 1))
    count = len(heights)
    for base in [root, *([root / "reg_standard"] if registered else [])]:
        for number, (cope, varcope) in zip(numbers, maps.values(), strict=True):
            there = varcope > 0
            t = np.where(there, cope / np.sqrt(np.where(there, varcope, 1)), 0)
            image_code = 4 if base != root else code
            for stem, values in {"cope": cope, "varcope": varcope, "tstat": t}.items():
                save_image(base / "stats" / f"{stem}{number}.nii.gz", values, image_code, affine)
            save_image(base / "mask.nii.gz", there, image_code, affine)
        if mean is not None:
            save_image(base / "mean_func.nii.gz", mean, image_code, affine)
    if dof is not None:
        (root / "stats" / "dof").write_text(f"{dof}  \n")
    rows = np.array(list(contrasts.values()), dtype=float)
    names = dict(zip(numbers, contrasts, strict=True))
    (root / "design.con").write_text(vest(names, [1.0] * len(rows), rows, "NumContrasts"))
    matrix = np.zeros((POINTS, count)) if level == 1 else np.ones((POINTS, count))
    if level == 1:
        for column in range(count):
            matrix[:, column] = heights[column] * ((np.arange(POINTS) // 5) % (2 * count) == 2 * column)
            matrix[:, column] -= matrix[:, column].mean()
    (root / "design.mat").write_text(vest({}, list(heights), matrix, "NumPoints"))
    options = {"version": "6.00", "level": level, "evs_orig": count, "evs_real": count}
    options |= {f"evtitle{i + 1}": f'"{letter}"' for i, letter in enumerate("AB"[:count])} | settings
    (root / "design.fsf").write_text("".join(f"set fmri({key}) {value}\n" for key, value in options.items()))
    return root
