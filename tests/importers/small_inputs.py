"""Small valid inputs of every kind that the commands read, each with the file of it that tests change."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import scipy.io

SHAPE = (3, 4, 3)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
HISTORY = (
    "[a@b: now] {AFNI_1} 3dcalc -a x -b y -expr 'a/b*100' -prefix pb04.scale\n[a@b: now] 3dDeconvolve "
    "-stim_times 1 t 'BLOCK(2,1)' -stim_label 1 vis -gltsym 'SYM: +vis' -glt_label 1 v -x1D X.xmat.1D"
)
MATRIX = """# <matrix
#  ColumnLabels = "Run#1Pol#0 ; vis#0"
#  GltLabels = "v"
#  GltMatrix_000000 = "1,2,0,1"
# >
"""
CONFIG = """[options]
alpha = 0.05
estimator = ["ols"]
inference = ["fdr"]
seed = 3
[estimator.reml]
test = "knha"
[inputs]
contrast = "contrast"
"""
LABEL = ("--participant-label", "01")
SIDECAR = "sub-03/func/sub-03_task-x_space-MNI152NLin6Asym_contrast-c_stat-effect_statmap.json"
Change = Callable[[bytes, np.random.Generator], bytes]


@dataclass
class Case:
    """An input: the command that reads it, and its file that is changed."""

    run: Callable[[Path], Any]  # OUTPUT_DIR -> how the command ended
    target: Path
    change: Change
    named: tuple[str, ...] = ()  # words one of which a refusal has


def save_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.abs(np.random.default_rng(seed).normal(2, 1, SHAPE))
    nib.Nifti1Image(values.astype(np.float32), AFFINE).to_filename(path)


@dataclass
class Inputs:
    """Makes the inputs of each kind in a folder."""

    root: Path
    maker: Callable[[str], Any]  # other modules of this folder
    load: Callable[[str], Any]  # another test's file
    ibma_import: Callable[..., Any]
    cli: Callable[..., Any]
    describe_dataset: Callable[..., Path]
    write_statmap: Callable[..., Path]

    @property
    def kinds(self) -> Mapping[str, Callable[[], Case]]:
        """What makes each kind."""
        return {
            "spm": lambda: self.spm(hdf=False),
            "spm-hdf5": lambda: self.spm(hdf=True),
            "fsl-design.con": lambda: self.fsl("design.con"),
            "fsl-design.mat": lambda: self.fsl("design.mat"),
            "fsl-design.fsf": lambda: self.fsl("design.fsf"),
            "fsl-dof": lambda: self.fsl("stats/dof"),
            "fsl-matrix": lambda: self.fsl("reg/example_func2standard.mat"),
            "afni-head": lambda: self.afni("s+tlrc.HEAD"),
            "afni-design": lambda: self.afni("X.xmat.1D"),
            "afni-nifti": self.afni_nifti,
            "nidm-turtle": lambda: self.nidm(packed=False),
            "nidm-zip": lambda: self.nidm(packed=True),
            "neurovault": self.neurovault,
            "table": self.table,
            "table-regions": self.table_of_regions,
            "sidecar": lambda: self.app(SIDECAR, change="json"),
            "description": lambda: self.app("dataset_description.json", change="json"),
            "participants.tsv": lambda: self.app("participants.tsv", "--formula", "1 + age + C(group)"),
            "studies.tsv": lambda: self.app("studies.tsv", "--formula", "1 + age"),
            "config": lambda: self.with_file("run.toml", CONFIG, "--config-file", change="text"),
            "filter": lambda: self.with_file(
                "f.json",
                {"effect": {"space": "MNI152NLin6Asym", "desc": None, "task": ["x", "y"]}, "variance": {"desc": "v"}},
                "--bids-filter-file",
            ),
            "contrasts": lambda: self.with_file(
                "k.json",
                {
                    "old": "age",
                    "b": {"age": 1, "intercept": "1/6"},
                    "f": ["age", "intercept"],
                    "p": {"rows": ["age"], "tail": "positive"},
                },
                *("--formula", "1 + age", "--contrast-file"),
            ),
            "atlas": lambda: self.atlas("names.tsv", "text"),
            "atlas-image": lambda: self.atlas("regions.nii.gz", "image"),
            "map-image": lambda: self.app(SIDECAR.replace(".json", ".nii.gz"), change="image"),
            "mask-image": self.mask,
            "labels": lambda: self.with_file("who.txt", "01\n02\nsub-03\n04\n", "--participant-label", change="text"),
            "dependence": self.dependence,
            "spm-image": lambda: self.spm(hdf=False, target="con_0001.nii"),
            "fsl-image": lambda: self.fsl("stats/cope1.nii.gz", "image"),
            **self.maker("run_inputs").kinds(self),
            **self.maker("element_inputs").kinds(self),
        }

    def change(self, how: str) -> Change:
        """Return a function of mutations.py."""
        found: Change = getattr(self.maker("mutations"), f"change_{how}")
        return found

    def imported(self, kind: str, target: Path, change: Change, source: Path, more: Sequence[str] = LABEL) -> Case:
        return Case(
            lambda out: self.ibma_import(kind, source, out, *more, cwd=self.root), target, change, (source.name,)
        )

    def spm(self, *, hdf: bool, target: str = "SPM.mat") -> Case:
        folder, made = self.root / "spm", self.maker("spm_folder")
        made.make_first_level(folder)
        if hdf:
            made.write_mat73(folder / "SPM.mat", scipy.io.loadmat(folder / "SPM.mat")["SPM"])
        change = "image" if target != "SPM.mat" else "bytes" if hdf else "mat"
        return self.imported("spm", folder / target, self.change(change), folder)

    def fsl(self, name: str, change: str = "text") -> Case:
        folder, rng = self.root / "one.feat", np.random.default_rng(0)
        pair = (rng.normal(size=(9, 10, 7)), rng.uniform(1, 2, (9, 10, 7)))
        made = self.maker("feat_folder")
        made.make_feat(folder, {"a > b": [1, -1]}, {"1": pair}, mean=np.full((9, 10, 7), 900.0))
        (folder / "reg").mkdir()
        (folder / "reg" / "example_func2standard.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
        return self.imported("fsl", folder / name, self.change(change), folder)

    def afni(self, name: str) -> Case:
        made = self.maker("afni_folder")
        effect = made.volumes(1)[0]
        t = 2 * effect
        bricks = [("vis#0_Coef", None, effect, "f4", 0), ("vis#0_Tstat", (3, 92), t, "f4", 0)]
        head = made.write_head(self.root, "s+tlrc", bricks, history=HISTORY)
        (self.root / "X.xmat.1D").write_text(MATRIX + "".join(f"1 {i % 2}\n" for i in range(20)))
        return self.imported("afni", self.root / name, self.change("text"), head)

    def afni_nifti(self) -> Case:
        xml = '<?xml version="1.0" ?>\n<AFNI_attributes self_idcode="x">\n'
        for name, kind, value in (
            ("BRICK_LABS", "String", '"vis#0_Coef~vis#0_Tstat"'), ("BRICK_STATAUX", "float", "1 3 1 92"),
            ("HISTORY_NOTE", "String", '"[a@b: now] 3dDeconvolve -x"'), ("TEMPLATE_SPACE", "String", '"MNI"'),
        ):  # fmt: skip
            xml += f'<AFNI_atr ni_type="{kind}" ni_dimen="1" atr_name="{name}">\n {value}\n</AFNI_atr>\n'
        volumes = np.random.default_rng(0).normal(size=(*SHAPE, 1)).astype(np.float32) * np.float32([1, 2])
        image = nib.Nifti1Image(volumes, AFFINE)
        image.header.extensions.append(nib.nifti1.Nifti1Extension(4, (xml + "</AFNI_attributes>").encode()))
        image.to_filename(self.root / "stats.nii")
        text, anything = self.change("text"), self.change("bytes")

        def change(raw: bytes, rng: np.random.Generator) -> bytes:
            at, end = raw.find(b"<?xml"), raw.find(b"</AFNI_attributes>") + 18
            if rng.random() < 0.2:
                return anything(raw, rng)
            return raw[:at] + text(raw[at:end], rng)[: end - at].ljust(end - at) + raw[end:]

        return self.imported("afni", self.root / "stats.nii", change, self.root / "stats.nii")

    def nidm(self, *, packed: bool) -> Case:
        made = self.load("importers/nidm/test_nidm.py")
        contents = made.files(text=made.turtle(peaks=(((1.0, 2.0, 3.0), (1, 2, 3)),)))
        if packed:
            path = Path(made.write_zip(self.root / "p.nidm.zip", contents))
            return self.imported("nidm", path, self.change("bytes"), path)
        folder = self.root / "pack"
        folder.mkdir()
        made.write_folder(folder, contents)
        return self.imported("nidm", folder / "nidm.ttl", self.change("text"), folder)

    def neurovault(self) -> Case:
        folder, facts = self.root / "collection_1425", []
        for at, (name, kind) in enumerate((("beta", "univariate-beta map"), ("varcope", "variance"), ("t", "T map"))):
            save_image(folder / f"image_{at}.nii.gz", at)
            facts.append({
                "id": at, "name": f"pain_01_{name}", "map_type": kind, "file": f"http://neurovault.org/{at}.nii.gz",
                "collection_id": 1425, "image_type": "statistic_map", "number_of_subjects": 20, "not_mni": False,
                "analysis_level": "group", "modality": "fMRI-BOLD", "statistic_parameters": 19.0,
                "modify_date": "2016-01-27T21:47:42Z", "target_template_image": "GenericMNI",
                "contrast_definition": "pain > rest", "url": f"http://neurovault.org/images/{at}/",
            })  # fmt: skip
        (folder / "images.json").write_text(json.dumps({"results": facts, "next": None}))
        return Case(
            # what is not beside its JSON would be fetched: no server answers there
            lambda out: self.ibma_import(
                "neurovault", folder, out, "--study-label", "a", cwd=self.root,
                env={"IBMA_NEUROVAULT_URL": "http://127.0.0.1:9"},
            ),
            folder / "images.json", self.change("json"), (folder.name, "NeuroVault"),
        )  # fmt: skip

    def table(self) -> Case:
        rows = [
            "study_id path kind contrast sample_size dof units space tail age",
            "a m0.nii.gz t c 20 19 percent MNI152NLin6Asym n/a 31.5",
            "b m1.nii.gz effect c 12 n/a n/a n/a n/a 28",
            "b m2.nii.gz se c 12 n/a n/a n/a n/a 28",
        ]
        for at in range(3):
            save_image(self.root / f"m{at}.nii.gz", at)
        path = self.root / "maps.tsv"
        path.write_text("\n".join(rows).replace(" ", "\t") + "\n")
        return self.imported("table", path, self.change("text"), path, ())

    def table_of_regions(self) -> Case:
        rows = [
            "study_id contrast region d se ci_lower ci_upper n1 n2 p dof units age",
            *(
                f"{study} c {region} 0.{number}1 0.1 n/a n/a 50 40 0.2 88 sd 31"
                for study in ("a", "b")
                for number, region in enumerate(("L_insula", "R_insula", "L_cuneus"))
            ),
        ]
        path = self.root / "regions.tsv"
        path.write_text("\n".join(rows).replace(" ", "\t") + "\n")
        return self.imported("table", path, self.change("text"), path, ())

    def dataset(self, *, studies: bool) -> Path:
        made_by = [{"Name": "x", "Version": "1"}]
        root = self.describe_dataset(self.root / "data", GeneratedBy=made_by, License="CC0", Authors=["A"])
        rng, key = np.random.default_rng(0), "study_id" if studies else "participant_id"
        rows = [f"{key}\tage\tgroup\tsample_size\tn1\tn2"]
        for number in range(1, 7):
            unit = {"study": f"s{number}"} if studies else {"sub": f"{number:02d}"}
            label = {**unit, "task": "x", "space": "MNI152NLin6Asym", "contrast": "c"}
            more = {} if studies else {"metadata": {"DegreesOfFreedom": 20, "SampleSize": 21, "Units": "percent"}}
            self.write_statmap(root, "effect", rng.normal(1, 1, SHAPE), **more, **label)
            rows.append(f"{next(iter(unit.values()))}\t{20 + number**2}\t{'ab'[number % 2]}\t{20 + number}\t10\t10")
        (root / f"{'studies' if studies else 'participants'}.tsv").write_text("\n".join(rows) + "\n")
        return root

    def app(self, target: str, *words: str, change: str = "text") -> Case:
        root = self.dataset(studies=target == "studies.tsv")
        how = ("--estimator", "ols", "--units", "assume-same", "--inference", "uncorrected", "--no-report", *words)
        path = root / target
        named = (*words, "beyond what single precision holds")  # of effects as large, the square
        return Case(lambda out: self.cli(root, out, "group", *how, cwd=self.root), path, self.change(change), named)

    def with_file(self, name: str, content: Any, *words: str, change: str = "json") -> Case:
        path = self.root / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        made = self.app("dataset_description.json", *words, str(path), change=change)
        made.target = path
        return made

    def mask(self) -> Case:
        save_image(self.root / "inside.nii.gz")
        inside = nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE)
        inside.to_filename(self.root / "inside.nii.gz")
        made = self.app("dataset_description.json", "--mask", str(self.root / "inside.nii.gz"), change="image")
        made.target = self.root / "inside.nii.gz"
        return made

    def dependence(self) -> Case:
        root, path = self.dataset(studies=True), self.root / "pairs.tsv"
        for number in range(1, 7):
            label = {"study": f"s{number}", "task": "x", "space": "MNI152NLin6Asym", "contrast": "c"}
            self.write_statmap(root, "variance", np.random.default_rng(number).uniform(0.5, 1, SHAPE), **label)
        path.write_text("map_a\tmap_b\tcorrelation\ns1\ts2\t0.5\ns3\tstudy-s4\t0.25\n")
        how = ("--estimator", "reml", "--units", "assume-same", "--inference", "uncorrected", "--no-report")
        words = (*how, "--dependence", str(path))
        return Case(lambda out: self.cli(root, out, "group", *words, cwd=self.root), path, self.change("text"))

    def atlas(self, target: str, change: str) -> Case:
        volume = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 5
        nib.Nifti1Image(volume.astype(np.int16), AFFINE).to_filename(self.root / "regions.nii.gz")
        (self.root / "c.toml").write_text('[atlas.mine]\nlabels = "regions.nii.gz"\nnames = "names.tsv"\n')
        (self.root / "names.tsv").write_text("index\tname\n" + "".join(f"{n}\tRegion {n}\n" for n in range(1, 5)))
        made = self.app("dataset_description.json", "--config-file", str(self.root / "c.toml"), change=change)
        made.target = self.root / target
        return made
