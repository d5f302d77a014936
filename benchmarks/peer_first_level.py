"""What a user of nilearn writes for one run: ``python peer_first_level.py BOLD MASK DESIGN OUTPUT``."""

import sys
from pathlib import Path

import pandas as pd


def main(bold: str, mask: str, design: str, output: str) -> None:
    from nilearn.glm.first_level import FirstLevelModel

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    matrix = pd.read_csv(design, sep="\t")
    model = FirstLevelModel(mask_img=mask, noise_model="ar1", minimize_memory=True, signal_scaling=False)
    model.fit(bold, design_matrices=matrix)
    for name, expression in (("d", "go - stop"), ("mean", "0.5 * go + 0.5 * stop"), ("go", "go")):
        found = model.compute_contrast(expression, output_type="all")
        for kind in ("effect_size", "effect_variance", "stat", "z_score", "p_value"):
            found[kind].to_filename(folder / f"{name}_{kind}.nii.gz")


if __name__ == "__main__":
    main(*sys.argv[1:])
