"""What a user of nilearn writes: from files to result maps.

``python peer_nilearn.py group DATASET OUTPUT TESTS``: `SecondLevelModel` on the subjects' effect maps, one or more
contrasts. ``python peer_nilearn.py runs DATASET OUTPUT MASK``: `compute_fixed_effects` on one subject's runs.
"""

import sys
from pathlib import Path

import pandas as pd


def group(root: Path, output: Path, tests: int) -> None:
    from nilearn.glm.second_level import SecondLevelModel

    maps = [str(path) for path in sorted(root.glob("sub-*/*_stat-effect_statmap.nii.gz"))]
    design = pd.DataFrame({"intercept": [1.0] * len(maps)})
    if tests > 1:
        table = pd.read_csv(root / "participants.tsv", sep="\t")
        for column in [column for column in table if column.startswith("x")][: tests - 1]:
            design[column] = table[column].to_numpy()
    model = SecondLevelModel().fit(maps, design_matrix=design)
    for column in list(design)[:tests]:
        for kind, image in model.compute_contrast(column, output_type="all").items():
            image.to_filename(output / f"{column}_{kind}.nii.gz")


def runs(root: Path, output: Path, mask: str) -> None:
    from nilearn.glm.contrasts import compute_fixed_effects

    effects = [str(path) for path in sorted(root.glob("sub-01/func/*_stat-effect_statmap.nii.gz"))]
    variances = [str(path) for path in sorted(root.glob("sub-01/func/*_stat-variance_statmap.nii.gz"))]
    images = compute_fixed_effects(effects, variances, mask, precision_weighted=True, dofs=[180] * len(effects))
    for name, image in zip(("effect", "variance", "t", "z"), images, strict=False):
        image.to_filename(output / f"{name}.nii.gz")


def main(what: str, root: str, output: str, last: str) -> None:
    Path(output).mkdir(parents=True, exist_ok=True)
    if what == "group":
        group(Path(root), Path(output), int(last))
    else:
        runs(Path(root), Path(output), last)


if __name__ == "__main__":
    main(*sys.argv[1:])
