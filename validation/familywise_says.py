"""Runs an analysis through the command line, and looks up in its report what it says of its own level."""

import html
import json
import re
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from familywise_cells import Cell
from null_maps import TARGET, design_of, draw_maps, smooth

from ibma_app.cli import main as ibma_app

KINDS = ("effect", "variance")
FORMULAS = {
    "mean": ("", ""),
    "moderator": ("1 + x", "x"),
    "groups": ("1 + C(x)", "C(x)[T.b]"),
    "three groups": ("1 + C(x)", "C(x)[T.b], C(x)[T.c]"),
}
DESCRIPTION = {"Name": "null", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}


def write_dataset(cell: Cell, root: Path) -> None:
    """Write the maps of one data set, their degrees of freedom, and the columns of the design."""
    maps, found = cell.maps, draw_maps(cell.maps, smooth(), np.random.default_rng(0), KINDS)
    entity, table = ("sub", "participants") if maps.kind == "subjects" else ("study", "studies")
    key = "participant_id" if entity == "sub" else "study_id"
    column = design_of(maps).matrix[:, -1]
    rows = [f"{key}\tsample_size\tx"]
    root.mkdir()
    (root / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
    for row in range(maps.n):
        label, x = f"{entity}-{row:02d}", column[row]
        if maps.first or maps.design == "three groups":
            x = "ab"[int(column[row])] if maps.first else "abc"[row % 3]
        rows.append(f"{label}\t{found['sample_size'][row]:.0f}\t{x}")
        (root / label).mkdir()
        for kind in KINDS:
            values = np.full(TARGET.grid.mask.shape, np.nan, dtype=np.float32)
            values[TARGET.grid.mask] = found[kind][row]
            name = root / label / f"{label}_space-MNI152NLin6Asym_contrast-c_stat-{kind}_statmap"
            nib.save(nib.Nifti1Image(values, TARGET.grid.affine), f"{name}.nii.gz")
            sidecar = {"DegreesOfFreedom": float(found["dof"][row, 0]), "Units": "percent"}
            Path(f"{name}.json").write_text(json.dumps(sidecar))
    (root / f"{table}.tsv").write_text("\n".join(rows) + "\n")


def sentences(cell: Cell) -> list[str]:
    """Return the sentences of the report that match what the cell says it says; none: it does not."""
    with tempfile.TemporaryDirectory() as scratch:
        data, out = Path(scratch) / "data", Path(scratch) / "out"
        write_dataset(cell, data)
        words = [data, out, "group", "--estimator", cell.estimator, "--mask", "data", "--permutations", "100", "-q"]
        formula, test = FORMULAS[cell.maps.design]
        words += ["--formula", formula, "--test", f"test={test}"] if formula else []
        if cell.settings:
            lines = [f'{key} = "{value}"' for key, value in cell.settings.items()]
            (Path(scratch) / "set.toml").write_text("\n".join([f"[estimator.{cell.estimator}]", *lines]) + "\n")
            words += ["--config-file", Path(scratch) / "set.toml"]
        names = [name for name in cell.beyond if name in cell.methods]
        code = ibma_app([*map(str, words), "--inference", *names])
        if code != 0:
            raise RuntimeError(f"exit code {code}: {cell.title}")
        (page,) = out.glob("group_*.html")
        text = page.read_text(encoding="utf-8")
    text = re.sub(r"<(script|style).*?</\1>", " ", text, flags=re.S)
    pieces = [" ".join(html.unescape(re.sub(r"<[^>]+>", " ", piece)).split()) for piece in
              re.split(r"</(?:p|li|td|dd|div|tr|h\d)>", text)]  # fmt: skip
    return list(dict.fromkeys(piece for piece in pieces if re.search(cell.says, piece)))[:1]
