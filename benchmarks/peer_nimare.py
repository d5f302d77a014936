"""What a user of NiMARE writes: from the files of a collection to result maps. Run by NiMARE's python.

``python peer_nimare.py DATASET OUTPUT MASK {stouffer,dl,reml}``
"""

import sys
from pathlib import Path

from nimare.dataset import Dataset
from nimare.meta.ibma import DerSimonianLaird, Stouffers, VarianceBasedLikelihood

KINDS = {"effect": "beta", "variance": "varcope", "z": "z"}
ESTIMATORS = {"stouffer": Stouffers, "dl": DerSimonianLaird, "reml": lambda: VarianceBasedLikelihood(method="reml")}


def main(root: Path, output: str, mask: str, name: str) -> None:
    source = {}
    for folder in sorted(root.glob("study-*")):
        images = {ours: next(folder.glob(f"*_stat-{kind}_statmap.nii.gz")) for kind, ours in KINDS.items()}
        contrast = {
            "images": {kind: str(path) for kind, path in images.items()},
            "metadata": {"sample_sizes": [20]},
            "coords": {"space": "MNI", "x": [0.0], "y": [0.0], "z": [0.0]},
        }
        source[folder.name] = {"contrasts": {"1": contrast}}
    result = ESTIMATORS[name]().fit(Dataset(source, mask=mask))
    result.save_maps(output_dir=output, prefix=name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
