"""What messages of ibma-import advise is done, and works; words are parsed out of the messages."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

MNI = "--space MNI152NLin6Asym"
HEAD = "study_id\tpath\tkind\tcontrast"


class Source:
    """Makes the inputs of a case in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rng = np.random.default_rng(2)

    def maps(self, *names: str, code: int = 4) -> None:
        (self.root / names[0]).parent.mkdir(exist_ok=True)
        for name in names:
            image = nib.Nifti1Image(self.rng.normal(size=(4, 4, 3)).astype(np.float32), np.diag([4.0, 4, 4, 1]))
            image.header.set_sform(image.affine, code)
            image.to_filename(self.root / f"{name}.nii.gz")

    def table(self, *rows: str, head: str = HEAD) -> None:
        self.maps("m0", "m1", "m2")
        (self.root / "t.tsv").write_text("\n".join((head, *rows)) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """A command that is refused, and the words (or the input) that its message advises."""

    make: Callable[[Source], None]
    words: str
    code: int
    says: str  # a pattern in the message
    then: str | None = None  # the words that follow from it; None: they stay
    mend: Callable[[Source], None] | None = None


def _two(source: Source) -> None:
    source.table("s1\tm0.nii.gz\tt\tA > B", "s1\tm1.nii.gz\tt\tB > A")


def _one(source: Source) -> None:
    source.table("s1\tm0.nii.gz\tt\tfaces")


def _nameless(source: Source) -> None:
    source.table("s1\tm0.nii.gz\tt\t!!!")


def _twins(source: Source) -> None:
    source.table("s1\tm0.nii.gz\tt\tfaces", "s1\tm1.nii.gz\tt\tFaces!")


def _copes(source: Source) -> None:
    source.maps("cope1", "varcope1")


FACES = "s1\tm0.nii.gz\tt\tfaces"
CASES: dict[str, Case] = {
    "no OUTPUT_DIR": Case(_one, "table t.tsv", 64, r"Give a SOURCE and an (OUTPUT_DIR)", f"table t.tsv out {MNI}"),
    "an importer that is none": Case(_one, f"tables t.tsv out {MNI}", 64, r"choose from: .*\b(table)",
                                     f"{{0}} t.tsv out {MNI}"),
    "another importer's source": Case(_one, f"spm t.tsv out {MNI}", 66, r"looks like table: ibma-import (table \S+) ",
                                      f"{{0}} out {MNI}"),
    "whose maps": Case(_copes, f"fsl cope1.nii.gz out {MNI}", 64, r"give (--participant-label) LABEL for a subject's",
                       f"fsl cope1.nii.gz out {MNI} {{0}} 01"),
    "whose maps: a study's": Case(_copes, f"fsl cope1.nii.gz out {MNI}", 64, r"or (--study-label) LABEL for a study's",
                                  f"fsl cope1.nii.gz out {MNI} {{0}} pain"),
    "a subject's and a study's": Case(
        _copes, f"fsl cope1.nii.gz out {MNI} --study-label a --participant-label 01", 64, "exclude each other",
        f"fsl cope1.nii.gz out {MNI} --study-label a",
    ),
    "a study's run": Case(_copes, f"fsl cope1.nii.gz out {MNI} --study-label a --run 1", 64, "--run .* belong",
                          f"fsl cope1.nii.gz out {MNI} --participant-label a --run 1"),
    "a run with a name": Case(_copes, f"fsl cope1.nii.gz out {MNI} --participant-label 01 --run one", 64,
                              "--run is a number", f"fsl cope1.nii.gz out {MNI} --participant-label 01 --run 1"),
    "native maps of a study": Case(
        lambda s: s.maps("cope1", "varcope1", code=1), "fsl cope1.nii.gz out --study-label a", 65,
        r"say which template: (--space) LABEL", "fsl cope1.nii.gz out --study-label a {0} MNI152NLin6Asym",
    ),
    "no such contrast": Case(_two, f"table t.tsv out {MNI} --contrast 'A > C'", 18, r"There are: 1 (\w > \w)",
                             f"table t.tsv out {MNI} --contrast '{{0}}'"),
    "a label with signs": Case(_one, f"table t.tsv out {MNI} --contrast faces=my-faces", 64, r"Perhaps (\w+)\?",
                               f"table t.tsv out {MNI} --contrast faces={{0}}"),
    "two contrasts of one label": Case(_twins, f"table t.tsv out {MNI}", 16, r"--contrast '?(Faces!)'?=LABEL",
                                       f"table t.tsv out {MNI} --contrast faces '{{0}}=other'"),
    "a name without letters": Case(_nameless, f"table t.tsv out {MNI}", 16,
                                   r"Give it a label: --contrast '?(!!!)'?=LABEL",
                                   f"table t.tsv out {MNI} --contrast '{{0}}=faces'"),
    "a number of people beyond all": Case(_one, f"table t.tsv out {MNI} --sample-size 0", 64, r"from (1) to",
                                          f"table t.tsv out {MNI} --sample-size {{0}}"),
    "half a person": Case(_one, f"table t.tsv out {MNI} --sample-size 20.5", 64, r"whole number from (1) to",
                          f"table t.tsv out {MNI} --sample-size 20"),
    "an OUTPUT_DIR that is the source": Case(
        lambda s: s.maps("fsl/cope1", "fsl/varcope1"), f"fsl fsl fsl --study-label a {MNI}", 64,
        r"is the source.*Give another folder, e\.g\. \S+/imported\.", f"fsl fsl out --study-label a {MNI}",
    ),
    "a table without kind": Case(
        lambda s: s.table("s1\tm0.nii.gz\tfaces", head="study_id\tpath\tcontrast"), f"table t.tsv out {MNI}", 65,
        "lacks the column kind .*Needed: .*kind", mend=_one,
    ),
    "semicolons": Case(lambda s: s.table(FACES.replace("\t", ";"), head=HEAD.replace("\t", ";")),
                       f"table t.tsv out {MNI}", 65, r"Cells must be separated by tabs\.", mend=_one),
    "a kind that is none": Case(lambda s: s.table(FACES.replace("\tt\t", "\tbetta\t")), f"table t.tsv out {MNI}", 65,
                                r"effect", mend=_one),
    "two columns of one name": Case(lambda s: s.table(FACES + "\tx", head=HEAD + "\tkind"),
                                    f"table t.tsv out {MNI}", 65, "two columns of one name", mend=_one),
    "too many cells": Case(lambda s: s.table(FACES + "\tx"), f"table t.tsv out {MNI}", 65, "5 cells under 4 columns",
                           mend=_one),
    "an address": Case(lambda s: s.table(FACES.replace("m0.nii.gz", "https://x.org/m0.nii.gz")),
                       f"table t.tsv out {MNI}", 65, "download the map and name the file", mend=_one),
    "a tail that is none": Case(
        lambda s: s.table(FACES + "\tup", head=HEAD + "\ttail"), f"table t.tsv out {MNI}", 65, r"none of ([\w-]+)",
        mend=lambda s: s.table(FACES + "\ttwo-sided", head=HEAD + "\ttail"),
    ),
    "one kind twice": Case(lambda s: s.table(FACES, FACES.replace("m0", "m1")), f"table t.tsv out {MNI}", 65,
                           "lines 2 and 3 both give the t", mend=_one),
    "several sizes": Case(
        lambda s: s.table(FACES + "\t20", FACES.replace("\tt\t", "\tz\t").replace("m0", "m1") + "\t21",
                          head=HEAD + "\tsample_size"), f"table t.tsv out {MNI}", 65, "several values of sample_size",
        mend=lambda s: s.table(FACES + "\t20", head=HEAD + "\tsample_size"),
    ),
    "half of an image": Case(
        lambda s: (s.table("s1\tm.hdr\tt\tfaces"), (s.root / "m.hdr").write_bytes(b"\0" * 348))[0],
        f"table t.tsv out {MNI}", 66, r"half of an image: (m\.img) is missing",
        mend=lambda s: nib.Nifti1Pair(np.ones((3, 3, 3), np.float32) * s.rng.normal(size=(3, 3, 3)).astype(np.float32),
                                      np.diag([4.0, 4, 4, 1])).to_filename(s.root / "m.img"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_message_advises_works(case: Case, tmp_path, ibma_import):
    source = Source(tmp_path)
    case.make(source)
    first = ibma_import(*shlex.split(case.words), cwd=tmp_path)
    assert first.code == case.code, first.stderr
    found = re.search(case.says, first.stderr)
    assert found, f"the message does not say {case.says!r}:\n{first.stderr}"
    assert not list(tmp_path.glob("out/**/*_statmap.nii.gz"))
    if case.mend is not None:
        case.mend(source)
    then = case.words if case.then is None else case.then.format(*found.groups())
    after = ibma_import(*shlex.split(then), cwd=tmp_path)
    assert after.code == 0, f"{then}\n{after.stderr}"
    assert list(tmp_path.glob("out/**/*_statmap.nii.gz"))
