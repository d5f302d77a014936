"""The folders and tables that the pages of docs/ speak of, small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SPACE = "MNI152NLin6Asym"


class Maker:
    """Makes the folders that the pages speak of, in one folder."""

    def __init__(self, root: Path, maker: Any, describe: Any, write: Any) -> None:
        self.root, self.maker, self.describe, self.write = root, maker, describe, write
        self.rng = np.random.default_rng(12)

    def subjects(self, below: str, *, contrasts: tuple[str, ...], runs: bool, n: int = 8, task: str = "x") -> Path:
        """A dataset of first-level maps with participants.tsv."""
        root = self.describe(self.root / below)
        rows = ["participant_id\tage\tgroup"]
        for sub in range(1, n + 1):
            rows.append(f"sub-{sub:02d}\t{20 + 3 * sub + sub % 3}\t{'patient' if sub % 2 else 'control'}")
            for run in ("1", "2") if runs else ("",):
                for contrast in contrasts:
                    names = {"sub": f"{sub:02d}", "task": task, "space": SPACE, "contrast": contrast}
                    names |= {"run": run} if run else {}
                    self.pair(root, names, sidecar={"DegreesOfFreedom": 60})
        (root / "participants.tsv").write_text("\n".join(rows) + "\n")
        return root

    def visits(self, below: str, n: int = 10) -> None:
        """Participants of two groups with up to three sessions, and visits.tsv with a row for each."""
        root = self.subjects(below, contrasts=(), runs=False, n=n)
        rows = ["participant_id\tsession\tmonths\tgroup"]
        for sub in range(1, n + 1):
            for session in (1, 2, 3)[: 2 if sub % 4 == 0 else 3]:
                names = {"sub": f"{sub:02d}", "ses": str(session), "task": "faces", "contrast": "faces", "space": SPACE}
                self.write(root, "effect", self.rng.normal(0.6, 1, (4, 5, 3)), **names)
                months = 6 * (session - 1) + sub / 10
                rows.append(f"sub-{sub:02d}\t{session}\t{months:.1f}\t{'patient' if sub % 2 else 'control'}")
        (root / "visits.tsv").write_text("\n".join(rows) + "\n")

    def pair(self, root: Path, names: dict[str, str], sidecar: dict[str, Any]) -> None:
        """Effect and variance of one map, within the brain."""
        self.write(root, "effect", self.rng.normal(0.6, 1, (4, 5, 3)), metadata=sidecar, **names)
        self.write(root, "variance", self.rng.uniform(0.2, 0.6, (4, 5, 3)), metadata=sidecar, **names)

    def studies(self, below: str, n: int = 6) -> Path:
        """A collection of studies."""
        root = self.describe(self.root / below)
        rows = ["study_id\tsample_size"]
        for number in range(n):
            rows.append(f"s{number}\t{15 + 2 * number}")
            names = {"study": f"s{number}", "space": SPACE, "contrast": "pain"}
            self.pair(root, names, {"DegreesOfFreedom": 14 + 2 * number, "Units": "percent"})
        (root / "studies.tsv").write_text("\n".join(rows) + "\n")
        return root

    def group_results(self, **folders: tuple[str, ...]) -> None:
        """Group results of SPM, FSL, AFNI and NIDM-Results at the paths where a page has them."""
        groups = self.maker("group_folders")
        for software, paths in folders.items():
            for number, path in enumerate(paths):
                variance = 0.05 + 0.05 * self.rng.random(groups.SHAPE)
                truth = groups.Truth(self.rng.normal(0.5, 0.4, groups.SHAPE), variance, 15 + number)
                aside = self.root / ".made" / f"{software}{number}"
                aside.parent.mkdir(exist_ok=True)
                made = getattr(groups, f"write_{software}")(self.maker, aside, truth)
                final = self.root / path
                final.parent.mkdir(parents=True, exist_ok=True)
                (aside if software == "afni" else made).rename(final)

    def afni_nifti(self, below: str) -> None:
        """A NIfTI file of AFNI: labels and statistics stand in an extension of the header."""
        attributes = (
            ("BRICK_LABS", "String", '"SetA_mean~SetA_Tstat"'),
            ("BRICK_STATAUX", "float", "1 3 1 22"),
            ("TEMPLATE_SPACE", "String", '"MNI"'),
        )
        text = "".join(
            f'<AFNI_atr ni_type="{kind}" ni_dimen="1" atr_name="{name}">{value}</AFNI_atr>'
            for name, kind, value in attributes
        )
        image = nib.Nifti1Image(self.rng.normal(0.5, 1, (4, 5, 3, 1, 2)).astype(np.float32), np.diag([4.0, 4, 4, 1]))
        image.set_sform(image.affine, 4)
        xml = f"<?xml version='1.0' ?>\n<AFNI_attributes>{text}</AFNI_attributes>\n"
        image.header.extensions.append(nib.nifti1.Nifti1Extension(4, xml.encode()))
        image.to_filename(self.root / below)

    def feat(self, below: str) -> None:
        """A first-level FEAT folder."""
        make = self.maker("feat_folder")
        values = {"faces": (self.rng.normal(10, 5, groups_shape()), np.full(groups_shape(), 4.0))}
        make.make_feat(self.root / below, {"faces": [1.0]}, values, heights=(1.0,), dof=100)

    def spm_first_level(self, below: str) -> None:
        """A first-level folder of SPM."""
        folder = self.root / below
        folder.mkdir(parents=True)
        self.maker("spm_folder").make_first_level(folder)

    def table(self, names: tuple[str, ...], sizes: int = 16) -> None:
        """maps.tsv with effect and standard error of each study."""
        rows = ["study_id\tpath\tkind\tcontrast\tsample_size\tdof"]
        affine = np.diag([4.0, 4, 4, 1])
        affine[:3, 3] = -14
        for name in names:
            for kind, values in (("effect", self.rng.normal(0.6, 1, (8, 8, 7))), ("se", np.full((8, 8, 7), 0.7))):
                nib.Nifti1Image(values.astype(np.float32), affine).to_filename(self.root / f"{name}_{kind}.nii.gz")
                rows.append(f"{name}\t{name}_{kind}.nii.gz\t{kind}\tpain > rest\t{sizes}\t{sizes - 1}")
        (self.root / "maps.tsv").write_text("\n".join(rows) + "\n")

    def hemispheres(self, below: str, n: int = 8) -> None:
        """First-level maps on a coarse mesh of both hemispheres."""
        root = self.describe(self.root / below)
        for sub in range(1, n + 1):
            for run in (1, 2):
                folder = root / f"sub-{sub:02d}" / "func"
                folder.mkdir(parents=True, exist_ok=True)
                for side in "LR":
                    stem = f"sub-{sub:02d}_task-x_run-{run}_hemi-{side}_space-fsaverage3_contrast-faces_stat"
                    for kind, values in (("effect", self.rng.normal(0.6, 1, 642)), ("variance", np.full(642, 0.4))):
                        array = nib.gifti.GiftiDataArray(values.astype(np.float32))
                        nib.GiftiImage(darrays=[array]).to_filename(folder / f"{stem}-{kind}_statmap.gii")
                        (folder / f"{stem}-{kind}_statmap.json").write_text('{"DegreesOfFreedom": 60}')

    def enigma(self, *names: str) -> None:
        """Tables as the ENIGMA Toolbox has them, with made numbers."""
        head = "CorticalThickness,Structure,d_icv,se_icv,low_ci_icv,up_ci_icv,n_controls,n_patients,pobs,fdr_p"
        for name in names:
            rows = [
                f"X_vs_CN,{side}_{region},{self.rng.normal(-0.2, 0.2):.3f},0.05,,,900,800,,"
                for side in "LR"
                for region in ("insula", "cuneus", "precuneus", "bankssts")
            ]
            (self.root / f"{name}.csv").write_text("\n".join([head, *rows]) + "\n")

    def regions(self, below: str) -> None:
        """A table of regions with the columns that the page shows."""
        rows = ["study_id\tcontrast\tregion\td\tse\tn1\tn2"]
        for study in ("kiel", "lima", "pune", "oslo", "bern"):
            for region in ("L_insula", "R_insula", "L_cuneus"):
                rows.append(f"{study}\tpatients - controls\t{region}\t{self.rng.normal(-0.3, 0.1):.2f}\t\t80\t75")
        (self.root / below).write_text("\n".join(rows) + "\n")


def groups_shape() -> tuple[int, int, int]:
    """Of a small FEAT folder."""
    return (4, 5, 3)


def _readme(make: Maker) -> None:
    make.subjects("BIDS_DIR", contrasts=("a",), runs=True)
    make.studies("STUDIES_DIR")
    make.feat("sub-01_run-1.feat")
    make.group_results(spm=("pain/second_level",))


def _usage(make: Maker) -> None:
    conditions = {"iniff": ("famous", 1), "iniuf": ("unfamiliar", 1), "imff": ("famous", 2), "imuf": ("unfamiliar", 2)}
    make.subjects("BIDS_DIR", contrasts=tuple(conditions), runs=True)
    rows = ["participant_id\tcontrast\tstimulus\trepetition\trt"]
    for sub in range(1, 9):
        for number, (contrast, (stimulus, repetition)) in enumerate(conditions.items()):
            rows.append(f"sub-{sub:02d}\t{contrast}\t{stimulus}\t{repetition}\t{0.5 + 0.01 * sub + 0.02 * number}")
    (make.root / "conditions.tsv").write_text("\n".join(rows) + "\n")
    make.studies("studies")
    published = make.describe(make.root / "published")
    for study, contrast in (("a", "painGtRest"), ("b", "heatGtWarm"), ("c", "painGtRest"), ("d", "laserGtTouch")):
        names = {"study": study, "space": SPACE, "contrast": contrast}
        make.pair(published, names, {"DegreesOfFreedom": 18, "Units": "percent"})


def _lab(make: Maker) -> None:
    make.subjects("derivatives/nilearn", contrasts=("facesgthouses",), runs=True, task="faces")


def _meta_analysis(make: Maker) -> None:
    make.group_results(
        spm=("spm/diaz2017", "spm/lee2021", "spm/smith2019"),
        fsl=("fsl/kim2018.gfeat", "fsl/rossi2020.gfeat"),
        afni=("afni/jones2016",),
        nidm=("nidm/patel2022.nidm.zip",),
    )


def _importing(make: Maker) -> None:
    make.group_results(
        spm=("spm/a2017", "spm/b2021"), fsl=("fsl/c2018.gfeat",), afni=("afni/d2016",), nidm=("nidm/e2022.nidm.zip",)
    )


def _pain21(make: Maker) -> None:
    make.table(tuple(f"pain{number:02d}" for number in range(1, 22)))


def _nidm(make: Maker) -> None:
    make.group_results(nidm=("spm_example.nidm.zip", "two_contrasts.nidm.zip"))


def _publishing(make: Maker) -> None:
    make.subjects("BIDS_DIR", contrasts=("a",), runs=False)


def _cluster(make: Maker) -> None:
    make.subjects("BIDS_DIR", contrasts=("a",), runs=True, n=2)


def _table(make: Maker) -> None:
    make.table(("pain04", "pain05", "pain06"))
    make.regions("regions.tsv")


def _surfaces(make: Maker) -> None:
    make.hemispheres("BIDS_DIR")
    make.enigma(
        "scz_case-controls_CortThick", "bd_case-controls_CortThick_adult", "mddadult_case-controls_CortThick",
        "ocdadults_case-controls_CortThick",
    )  # fmt: skip


DATA: dict[str, Callable[[Maker], None]] = {
    "README.md": _readme,
    "usage.md": _usage,
    "quickstart-lab.md": _lab,
    "quickstart-longitudinal.md": lambda make: make.visits("maps"),
    "quickstart-meta-analysis.md": _meta_analysis,
    "importing.md": _importing,
    "importing-afni.md": lambda make: make.afni_nifti("saccade.I_C.MNI.nii.gz"),
    "importing-fsl.md": lambda make: make.feat("sub-01.feat"),
    "importing-neurovault.md": lambda make: None,
    "importing-nidm.md": _nidm,
    "importing-spm.md": lambda make: make.spm_first_level("sub-01_spm"),
    "importing-table.md": _table,
    "pain21.md": _pain21,
    "cluster.md": _cluster,
    "publishing.md": _publishing,
    "gallery.md": lambda make: None,
    "index.md": lambda make: None,
    "surfaces.md": _surfaces,
}
"""What each page's commands are run on."""
