"""What messages on formulas, tests, tables and settings advise is done, and plans: tiny maps, nothing is fitted."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

MNI = "MNI152NLin6Asym"
SUBJECTS = [f"sub-{number:02d}" for number in range(1, 9)]
STUDIES = [f"study-s{number}" for number in range(1, 9)]
Texts = Mapping[str, str]


def table(key, units, **columns):
    rows = ["\t".join((key, *columns))]
    rows += ["\t".join((unit, *(str(cells[row]) for cells in columns.values()))) for row, unit in enumerate(units)]
    return "\n".join(rows) + "\n"


def participants(**columns):
    return {"data/participants.tsv": table("participant_id", SUBJECTS, **columns)}


def studies(**columns):
    return {"data/studies.tsv": table("study_id", STUDIES, **columns)}


AGE = [20, 31, 25, 44, 29, 38, 52, 47]
PAIRS = "map_a\tmap_b\tcorrelation\n"
CLUSTERS = studies(cluster=[1, 1, 2, 2, 3, 4, 5, 6], group=list("aaaabbbb"))
ODD = participants(**{"age at scan": AGE, "BDI-II": [*AGE[3:], *AGE[:3]]})
GROUPS = participants(age=AGE, group=list("aaaabbbb"), site=list("aaaabbbc"))


@dataclass(frozen=True)
class Case:
    """A command that is refused, or warns, and what the message advises."""

    data: str  # one of DATA
    words: str
    code: int  # 0: a warning
    says: str  # a pattern in the message
    then: str | None = None  # the words that follow from it ({0}, {1}: its groups); None: they stay
    files: Texts = field(default_factory=dict)
    mended: Texts = field(default_factory=dict)  # files as they are after the advice


DATA = {
    "subjects": (("sub", "01 02 03 04 05 06 07 08"), ("effect", "variance"), {}),
    "sessions": (("sub", "01 02 03 04 05 06 07 08"), ("effect", "variance"), {"ses": "1 2"}),
    "studies": (("study", "s1 s2 s3 s4 s5 s6 s7 s8"), ("effect", "variance"), {}),
    "t of studies": (("study", "s1 s2 s3 s4 s5 s6 s7 s8"), ("t",), {}),
}
OLS, REML, TWO = "--estimator ols", "--estimator reml --units assume-same", "--formula '1 + session' --estimator ols"

CASES: dict[str, Case] = {
    "a test that is no expression": Case("subjects", f"{OLS} --formula '1 + age' --test 'a=age+'", 64,
                                         r"Write it like '(age)'", OLS + " --formula '1 + age' --test a={0}", GROUPS),
    "two tests of one label": Case("subjects", f"{OLS} --formula '1 + age' --test a-b=age --test ab=-age", 64,
                                   r"Rename one\.", OLS + " --formula '1 + age' --test a-b=age --test down=-age",
                                   GROUPS),
    "a contrast file that is a list": Case(
        "subjects", f"{OLS} --formula '1 + age' --contrast-file c.json", 65, r'such as (\{"old": "age"\})',
        files=GROUPS | {"c.json": "[]"}, mended={"c.json": '{"old": "age"}'},
    ),
    "a formula with two sides": Case("subjects", f"{OLS} --formula 'y ~ 1 + age'", 64,
                                     r"such as '(1 \+ age \+ C\(group\))'", OLS + " --formula '{0}'", GROUPS),
    "columns that follow from each other": Case(
        "subjects", f"{OLS} --formula '1 + age + I(2*age)'", 65, r"Leave one of each out",
        f"{OLS} --formula '1 + age'", GROUPS,
    ),
    "a covariate of one value": Case("subjects", f"{OLS} --formula '1 + age + one'", 65, "Leave it out",
                                     f"{OLS} --formula '1 + age'", participants(age=AGE, one=[1] * 8)),
    "a name with spaces": Case(
        "subjects", f"{OLS} --formula '1 + age at scan'", 64, r'are written as (Q\("age at scan"\))',
        f"{OLS} --formula '1 + {{0}}' --test a='{{0}}'", ODD,
    ),
    "a name with signs": Case("subjects", f"{OLS} --formula '1 + BDI-II'", 65, r"Did you mean (BDI-II)\?.*as Q\(",
                              f"{OLS} --formula '1 + Q(\"{{0}}\")' --test a='Q(\"{{0}}\")'", ODD),
    "commas instead of tabs": Case(
        "subjects", f"{OLS} --formula '1 + age'", 65, "Columns must be separated by tabs",
        files={"data/participants.tsv": GROUPS["data/participants.tsv"].replace("\t", ",")}, mended=GROUPS,
    ),
    "two columns of one name": Case(
        "subjects", f"{OLS} --formula '1 + age'", 65, "Rename or remove them",
        files={"data/participants.tsv": GROUPS["data/participants.tsv"].replace("site", "age", 1)}, mended=GROUPS,
    ),
    "decimal commas": Case(
        "subjects", f"{OLS} --formula '1 + age'", 65, r"with a point \(1\.5\), missing ones as n/a",
        files=participants(age=[f"{age},5" for age in AGE]), mended=participants(age=[f"{age}.5" for age in AGE]),
    ),
    "decimal commas that are categories": Case(
        "sessions", TWO.replace("session'", "session + dose'"), 65,
        r"write (C\(dose\)) in the formula", TWO.replace("session'", "session + {0}'"),
        participants(dose=["0,5", "1,5"] * 4),
    ),
    "zeros that a spreadsheet took": Case(
        "subjects", f"{OLS} --formula '1 + age'", 65, r": write (\d+)\.",
        files={"data/participants.tsv": table("participant_id", "12345678", age=AGE)}, mended=GROUPS,
    ),
    "a column n": Case(
        "t of studies", "--estimator stouffer-weighted", 65, r"Call it (sample_size), and it will be used",
        files=studies(n=AGE), mended=studies(sample_size=AGE),
    ),
    "a sample size with words": Case(
        "t of studies", "--estimator stouffer", 65, r"Write a whole number alone, or n/a",
        files=studies(sample_size=[*AGE[:7], "9 (4 f)"]), mended=studies(sample_size=[*AGE[:7], "n/a"]),
    ),
    "a sample size with a point for thousands": Case(
        "t of studies", "--estimator stouffer", 65, r"'1\.024' of s8 is no number of people.* Write a whole number",
        files=studies(sample_size=[*AGE[:7], "1.024"]), mended=studies(sample_size=[*AGE[:7], 1024]),
    ),
    "a key column in capitals": Case(
        "t of studies", "--estimator stouffer-weighted", 65, r"Rename Study ID to (study_id)",
        files={"data/studies.tsv": table("Study ID", STUDIES, sample_size=AGE)}, mended=studies(sample_size=AGE),
    ),
    "no sample size": Case("t of studies", "--estimator stouffer-weighted", 65, "or sample_size in studies.tsv",
                           mended=studies(sample_size=AGE)),
    "dependence: other columns": Case(
        "studies", f"{REML} --dependence d.tsv", 65, r"the columns (map_a), (map_b) and (correlation)",
        files={"d.tsv": "a\tb\tr\ns1\ts2\t0.5\n"}, mended={"d.tsv": PAIRS + "s1\ts2\t0.5\n"},
    ),
    "dependence: a map with itself": Case(
        "studies", f"{REML} --dependence d.tsv", 65, "Name two maps",
        files={"d.tsv": PAIRS + "s1\ts1\t0.5\n"}, mended={"d.tsv": PAIRS + "s1\ts2\t0.5\n"},
    ),
    "dependence: a pair twice": Case(
        "studies", f"{REML} --dependence d.tsv", 65, "Keep one",
        files={"d.tsv": PAIRS + "s1\ts2\t0.5\ns2\ts1\t0.4\n"}, mended={"d.tsv": PAIRS + "s1\ts2\t0.5\n"},
    ),
    "dependence: no such map": Case(
        "studies", f"{REML} --dependence d.tsv", 65, r"The maps: (study-s1\w*)",
        files={"d.tsv": PAIRS + "s11\ts2\t0.5\n"}, mended={"d.tsv": PAIRS + "study-s1_contrast-a\ts2\t0.5\n"},
    ),
    "dependence: a contradiction": Case(
        "studies", f"{REML} --dependence d.tsv", 65, "add pairs that are missing, or correct those",
        files={"d.tsv": PAIRS + "s1\ts2\t0.9\ns1\ts3\t0.9\n"},
        mended={"d.tsv": PAIRS + "s1\ts2\t0.9\ns1\ts3\t0.9\ns2\ts3\t0.8\n"},
    ),
    "dependence: nothing depends": Case(
        "studies", f"{REML} --dependence cluster", 65, r"a column (cluster) of studies\.tsv", mended=CLUSTERS,
    ),
    "dependence: nothing depends, left out": Case(
        "studies", f"{REML} --dependence cluster", 65, "or leave --dependence out", REML
    ),
    "dependence: an estimator without": Case(
        "studies", "--estimator stouffer-rfx --dependence cluster", 64, r"--dependence is for --estimator ([\w-]+)",
        "--units assume-same --estimator {0} --dependence cluster", CLUSTERS,
    ),
    "calibration without p of voxels": Case(
        "studies", f"{REML} --inference max-stat --config-file c.toml", 64, r"or add ([\w-]+)",
        REML + " --inference max-stat {0} --config-file c.toml", {"c.toml": "[inference]\ncalibrate = true\n"},
    ),
    "calibration of other estimators": Case(
        "studies", "--estimator stouffer --inference fdr --config-file c.toml", 64, r"or use --estimator ([\w-]+)",
        "--units assume-same --estimator {0} --inference fdr --config-file c.toml",
        {"c.toml": "[inference]\ncalibrate = true\n"},
    ),
    "calibration of dependent maps": Case(
        "studies", f"{REML} --dependence cluster --inference fdr --config-file c.toml", 64, "or --dependence out",
        f"{REML} --inference fdr --config-file c.toml", CLUSTERS | {"c.toml": "[inference]\ncalibrate = true\n"},
    ),
    "tau2 of a group of one": Case(
        "subjects", "--estimator reml --formula '1 + C(site)' --config-file c.toml", 65,
        "or name a column with fewer groups", "--estimator reml --formula '1 + C(group)' --config-file c.toml",
        GROUPS | {"c.toml": '[estimator.reml]\ntau2_by = "site"\n'},
        {"c.toml": '[estimator.reml]\ntau2_by = "group"\n'},
    ),
    "auto beside another": Case("subjects", "--estimator auto ols", 64, "--estimator (auto) stands alone",
                                "--estimator {0}"),
    "no report and reports only": Case("subjects", "--no-report --reports-only", 64, "choose one", "--no-report"),
    "pooled over what is not there": Case("sessions", "--pool run", 64, r"They carry: .*\b(ses\w*)\b",
                                          "--formula '1 + session' --pool {0} --estimator ols"),
    "a misspelled atlas": Case("subjects", "--atlas Schaefer", 64, r"Choose from: (\w+)", "--atlas {0}"),
    "a computed contrast of a taken name": Case("subjects", "--compute a=a*2", 64, "Choose another label",
                                                "--compute twice=a*2 --estimator ols"),
    "two expressions in one": Case("subjects", "--compute x=a*2,a*3", 64, "give each its own LABEL=",
                                   "--compute x=a*2 y=a*3 --estimator ols"),
    "exchangeability of both signs": Case(
        "subjects", OLS, 65, "Give all labels one sign",
        files=participants(exchangeability=[-1, -1, 1, 1, 2, 2, 3, 3]),
        mended=participants(exchangeability=[1, 1, 1, 1, 2, 2, 2, 2]),
    ),
    "random intercept of single maps": Case("subjects", "--estimator random-intercept", 65, "Leave --estimator out",
                                            ""),
    "random intercept beside columns of subjects": Case(
        "sessions", "--estimator random-intercept --formula '1 + session + C(participant_id)' "
        "--test later=session[T.2]", 65, r"Leave C\(participant_id\) out of it",
        "--estimator random-intercept --formula '1 + session' --test later=session[T.2]",
    ),
    "pooled errors without columns of subjects": Case(
        "sessions", f"{TWO} --test later=session[T.2] --config-file c.toml", 65, r"Add '\+ (C\(participant_id\))'",
        "--estimator ols --formula '1 + session + {0}' --test later=session[T.2] --config-file c.toml",
        {"c.toml": '[estimator.ols]\nerrors = "pooled"\n'},
    ),
    "an unknown key of an atlas": Case(
        "subjects", "--config-file c.toml", 64, "It takes: labels = an image",
        files={"c.toml": '[atlas.mine]\nlabel = "data/atlas.nii"\n'},
        mended={"c.toml": '[atlas.mine]\nlabels = "data/atlas.nii"\n'},
    ),
    "an unknown option in the configuration": Case(
        "subjects", "--config-file c.toml", 64, r"Did you mean (alpha)\?",
        files={"c.toml": "alphabet = 0.1\n"}, mended={"c.toml": "alpha = 0.1\n"},
    ),
    "a filter with an unknown key": Case(
        "subjects", "--bids-filter-file f.json", 64, r"the keys are (\w+)",
        files={"f.json": '{"effects": {"contrast": "a"}}'}, mended={"f.json": '{"effect": {"contrast": "a"}}'},
    ),
    "labels with commas": Case("subjects", f"{OLS} --participant-label 01,02,sub-03", 64, r"or commas: (.*)\.",
                               OLS + " --participant-label {0}"),
    "labels in quotes": Case("subjects", f"{OLS} --participant-label '01 02 03'", 64, r"or commas: (.*)\.",
                             OLS + " --participant-label {0}"),
    "memory in words": Case("subjects", "--mem much", 64, r"Write it as (\w+)", "--mem {0}"),
    "coverage in percent": Case("subjects", "--min-coverage 80", 64, r"is above 0 and at most (1)",
                                 "--min-coverage {0}"),
    "a space with signs": Case("subjects", "--space-is MNI-152", 64, r"as in (\w+)", "--space-is MNI152"),
    "subjects where rows have no name": Case(
        "subjects", f"{OLS} --formula '1 + age'", 65, r"Name the row or remove it",
        files={"data/participants.tsv": GROUPS["data/participants.tsv"] + "n/a\t1\ta\ta\n"}, mended=GROUPS,
    ),
    "a subject twice": Case(
        "subjects", f"{OLS} --formula '1 + age'", 65, r"Keep one row for each",
        files={"data/participants.tsv": GROUPS["data/participants.tsv"] + "sub-01\t1\ta\ta\n"}, mended=GROUPS,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, describe_dataset, write_statmap):
    """Return a function that makes the maps of a dataset once, and links them into a folder."""
    ready: dict[str, Path] = {}

    def make(name: str, root: Path) -> None:
        if name not in ready:
            rng = np.random.default_rng(4)
            ready[name] = describe_dataset(tmp_path_factory.mktemp("maps"))
            labels_of_two = np.ones((3, 3, 2), dtype=np.uint8)
            nib.Nifti1Image(labels_of_two, np.diag([4.0, 4, 4, 1])).to_filename(ready[name] / "atlas.nii")
            (key, labels), kinds, more = DATA[name]
            for label in labels.split():
                for session in more.get("ses", "").split() or [None]:
                    names = {key: label, "space": MNI, "contrast": "a"} | ({"ses": session} if session else {})
                    for kind in kinds:
                        values = rng.uniform(0.3, 0.6, (3, 3, 2)) if kind == "variance" else rng.normal(size=(3, 3, 2))
                        write_statmap(ready[name], kind, values, **names)
        root.mkdir()
        for path in ready[name].iterdir():
            (root / path.name).symlink_to(path)

    return make


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_message_advises_can_be_planned(case: Case, tmp_path, cli, made):
    made(case.data, tmp_path / "data")

    def run(words, files):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return cli("data", "out", "group", *shlex.split(words), "--dry-run", cwd=tmp_path)

    first = run(case.words, case.files)
    assert first.code == case.code, first.stderr
    found = re.search(case.says, first.stderr)
    assert found, f"the message does not say {case.says!r}:\n{first.stderr}"
    then = case.words if case.then is None else case.then.format(*found.groups())
    after = run(then, case.mended)
    assert after.code == 0, f"{then}\n{after.stderr}"
    assert not re.search(case.says, after.stderr)
    assert "cannot be combined" not in after.stdout
