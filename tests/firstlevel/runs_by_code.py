"""Tables of runs as fMRIPrep and BIDS have them, small and seeded."""

import json
from pathlib import Path

import numpy as np

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


def events_text(n: int = 12, gap: float = 14.0, conditions: tuple[str, ...] = ("go", "stop"), seed: int = 0) -> str:
    """Events of alternating conditions, jittered."""
    rng = np.random.default_rng(seed)
    lines = ["onset\tduration\ttrial_type"]
    for index in range(n):
        onset = 4 + gap * index + rng.uniform(0, 4)
        lines.append(f"{onset:.3f}\t{rng.uniform(0.5, 2):.3f}\t{conditions[index % len(conditions)]}")
    return "\n".join(lines) + "\n"


def confounds_columns(n_volumes: int, seed: int = 0, cosines: int = 3) -> dict[str, np.ndarray]:
    """The columns of fMRIPrep's confounds that strategies use; derivatives have no first value."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    for name in (*MOTION, "csf", "white_matter", "global_signal"):
        values = rng.standard_normal(n_volumes).cumsum() * 0.02
        change = np.append(np.nan, np.diff(values))
        columns |= {name: values, f"{name}_derivative1": change, f"{name}_power2": values**2}
        columns[f"{name}_derivative1_power2"] = change**2
    columns["framewise_displacement"] = np.append(np.nan, rng.gamma(2, 0.05, n_volumes - 1))
    columns["std_dvars"] = np.append(np.nan, rng.gamma(20, 0.05, n_volumes - 1))
    steps = (np.arange(n_volumes) + 0.5) * np.pi / n_volumes
    for index in range(cosines):
        columns[f"cosine{index:02d}"] = np.sqrt(2 / n_volumes) * np.cos((index + 1) * steps)
    for index in range(6):
        columns[f"a_comp_cor_{index:02d}"] = rng.standard_normal(n_volumes)
    return columns


def write_confounds(path: Path, columns: dict[str, np.ndarray]) -> Path:
    """Write a confounds table as fMRIPrep does, its JSON beside it."""
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join("n/a" if np.isnan(value) else repr(float(value)) for value in row) for row in rows]
    path.write_text("\n".join(["\t".join(columns), *lines]) + "\n")
    masks = {f"a_comp_cor_{index:02d}": {"Mask": "combined" if index < 4 else "CSF"} for index in range(6)}
    path.with_suffix(".json").write_text(json.dumps(masks))
    return path
