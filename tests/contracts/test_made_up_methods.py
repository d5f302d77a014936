"""Methods that no room has heard of, run as any other: all that is said of them is true, or is not said."""

import html
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import ibma_app.estimators
import ibma_app.inference
from ibma_app.core.estimate import Estimate, Significance, TestEstimate
from ibma_app.core.inference_facts import Fact
from ibma_app.core.methods import Citation, ClusterColumn, Estimator, Inference, Scorer, Sentence, Setting
from ibma_app.inference.decide import check_level, decide
from ibma_app.inference.resampled import decide_by_null
from ibma_app.workflows.options import parse

SHAPE, N = (6, 6, 5), 10


def real_methods():
    """Return the records of both menus."""
    estimators, inference = ibma_app.estimators, ibma_app.inference
    return (
        [estimators.find_estimator(name) for name in estimators.ESTIMATORS if not name.startswith("made-up")],
        [inference.find_inference(name) for name in inference.INFERENCES if not name.startswith("made-up")],
    )


def cite(key):
    return (Citation(key, "Newcomer N", 2031, f"On {key}", "Journal of Tests 1, 1-2", "10.1000/182"),)


def fit_median(block, design, **settings):
    """Take the median of the effects, and test their signs; one mean only, no standard error."""
    n = block.covered.sum(axis=0)
    there = n > 0
    effects = np.where(block.covered | ~there, block.effect, np.nan)
    middle = np.where(there, np.nanmedian(effects, axis=0), 0.0)
    signs = np.where(block.covered, np.sign(block.effect), 0.0).sum(axis=0)
    z = signs / np.sqrt(np.maximum(n, 1))
    tests = {}
    for test in design.tests:
        weight = float(np.ravel(test.weights)[0])
        tests[test.name] = TestEstimate(np.sign(weight) * z, there, effect=weight * middle)
    return Estimate(tests, n.astype(np.int16))


def fit_roots(block, design, **settings):
    """Weigh effects by the root of their precision: neither 1/variance nor 1/(variance + tau2)."""
    weights = np.where(block.covered, 1.0 / np.sqrt(np.where(block.covered, block.variance, 1.0)), 0.0)
    total = weights.sum(axis=0)
    there = total > 0
    share = weights / np.where(there, total, 1.0)
    effect = (share * block.effect).sum(axis=0)
    variance = (share**2 * block.variance).sum(axis=0)
    z = effect / np.sqrt(np.where(there, variance, 1.0))
    tests = {test.name: TestEstimate(z, there, effect, variance) for test in design.tests}
    return Estimate(tests, block.covered.sum(axis=0).astype(np.int16))


def infer_sidak(field, null, settings):
    """Correct by 1 - (1 - p)^n."""
    n = int(np.count_nonzero(field.estimable))
    p = 10.0 ** -field.log10_p[field.estimable]
    corrected = -np.expm1(n * np.log1p(-np.minimum(p, 1 - 1e-12)))
    found = decide(field, -np.log10(np.maximum(corrected, 1e-300)), check_level(settings.alpha), "error rate of all")
    return Significance(found.log10_p, found.significant, found.z_threshold, (*found.facts, Fact("RootOfAll", n)))


def infer_bare(field, null, settings):
    """Call significant what is far from 0, and tell nothing."""
    return Significance(field.log10_p, np.abs(field.z) > 2.0, None)


def score_cubes(grid, tail, settings):
    """Score a voxel by the cube of its height."""
    return Scorer(0.5, lambda voxels, heights: float((heights**3).max(initial=0.0)), lambda voxels, heights: heights**3)


def infer_cubes(field, null, settings):
    """Compare cubes with the largest of each relabelling."""
    return decide_by_null("made-up-cubes", field, null, settings)


MEDIAN = Estimator(
    name="made-up-median",
    title="median of the effects, tested by their signs",
    needs=("effect",),
    fit=fit_median,
    citations=cite("medians"),
    takes_designs=False,
    settings={"depth": Setting(("shallow", "deep"), "how deep it looks")},
)
ROOTS = Estimator(
    name="made-up-roots",
    title="means weighted by roots of precision",
    needs=("effect", "variance"),
    fit=fit_roots,
    citations=cite("roots"),
    words=(Sentence("Roots were taken of {units}."), Sentence("This is not said.", level="participant")),
    caveat="made-up-roots is new.",
    takes_designs=False,
)
SIDAK = Inference("made-up-sidak", "correction for independent voxels", infer_sidak, cite("rectangles"))
BARE = Inference(
    "made-up-bare",
    "a look at the map",
    infer_bare,
    cite("looks"),
    columns=(ClusterColumn("twice", "Twice", "Two times its size", lambda field, settings: lambda at: 2.0 * at.size),),
)
CUBES = Inference(
    "made-up-cubes",
    "largest cube by resampling",
    infer_cubes,
    cite("cubes"),
    score=score_cubes,
    words="Cubes of {NumberOfTests} voxels were kept, with confidence {Confidence} %.",
)
SMOOTH = Inference("made-up-smooth", "smooth look", infer_bare, cite("smooth"), needs_smoothness=True)


@pytest.fixture
def menu(monkeypatch):
    """Put the made-up methods on the menus, as their files and their names in the two tables would."""
    for room, constant, records in (
        (ibma_app.estimators, "ESTIMATOR", (MEDIAN, ROOTS)),
        (ibma_app.inference, "INFERENCE", (SIDAK, BARE, CUBES, SMOOTH)),
    ):
        names = tuple(record.name for record in records)
        for record in records:
            module = ModuleType(record.name)
            setattr(module, constant, record)
            monkeypatch.setitem(sys.modules, f"{room.__name__}.{record.name.replace('-', '_')}", module)
        monkeypatch.setattr(room, f"{constant}S", (*getattr(room, f"{constant}S"), *names))
        options = tuple(
            replace(option, choices=(*option.choices, *names)) if option.dest == constant.lower() else option
            for option in parse.OPTIONS
        )
        monkeypatch.setattr(parse, "OPTIONS", options)
    monkeypatch.setattr(parse, "ESTIMATORS", ibma_app.estimators.ESTIMATORS)


@pytest.fixture
def subjects(tmp_path, describe_dataset, write_statmap):
    """Effects and variances of ten subjects, a tenth of the voxels active."""
    root = describe_dataset(tmp_path / "maps")
    ages = "".join(f"sub-{number + 1:02d}\t{20 + number % 7}\n" for number in range(N))
    (root / "participants.tsv").write_text(f"participant_id\tage\n{ages}", encoding="utf-8")
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(np.prod(SHAPE)) < 18, 1.5, 0.0).reshape(SHAPE)
    for number in range(N):
        variance = 10.0 ** rng.uniform(-1.5, -0.5, SHAPE)
        names = {"sub": f"{number + 1:02d}", "task": "x", "space": "T1w", "contrast": "c"}
        write_statmap(root, "effect", truth + rng.normal(0, np.sqrt(variance)), **names)
        write_statmap(root, "variance", variance, **names)
    return root


def read_page(path: Path) -> str:
    """Return what a reader sees of a page, titles of drawings included."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


@pytest.fixture
def run(menu, subjects, tmp_path, cli):
    def start(*args, code=0):
        out = tmp_path / "out"
        ran = cli(subjects, out, "group", "--nprocs", "1", "--permutations", "40", *args)
        assert ran.code == code, ran.stderr
        if code:
            return SimpleNamespace(stderr=ran.stderr)
        group = out / "group"
        return SimpleNamespace(
            out=out,
            stderr=ran.stderr,
            page=read_page(next(out.glob("group_*.html"))),
            readme=(out / "README.md").read_text(encoding="utf-8").replace("\\", ""),
            citation=(out / "CITATION.md").read_text(encoding="utf-8"),
            sidecar=lambda end: json.loads(next(group.glob(f"*{end}.json")).read_text(encoding="utf-8")),
            files={path.name.partition("_desc-")[2] for path in group.glob("*.nii.gz")},
            group=group,
        )

    return start


def sentences_of_real_methods():
    """List what the real methods say of themselves, cut where numbers and names come in."""
    estimators, inferences = real_methods()
    texts = [words.text for one in estimators for words in one.words]
    texts += [one.words for one in inferences]
    texts += [column.label for one in inferences for column in one.columns]
    texts += [one.title for one in (*estimators, *inferences)]
    texts += [citation.title for one in (*estimators, *inferences) for citation in one.citations]
    return {part for text in texts for part in re.split(r"\{\w+\}|(?<=\.) ", text) if len(part) > 12}


def paragraphs(text: str, opening: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(opening)]


def test_nothing_of_other_methods_is_said(run):
    ran = run(
        *("--estimator", "made-up-median", "made-up-roots", "--inference", "made-up-sidak", "made-up-bare"),
        "made-up-cubes",
    )
    sidecars = " ".join(path.read_text(encoding="utf-8") for path in ran.group.glob("*.json"))
    known = sentences_of_real_methods()
    claims = (
        r"tau|Knapp|1/\(|inverse|normal distribution|least squares|a weight of its own|area of the map's weight"
        r"|weight rests|weight's inputs|[Rr]esidual variance|symmetric about zero, not"
    )
    for told in (ran.page, ran.readme, sidecars):
        assert sorted(part for part in known if part in told) == []
        assert re.findall(claims, told) == []
    assert [part for part in known if part in ran.citation] == []
    real = run("--estimator", "reml", "--inference", "tfce")  # what is looked for can be found
    assert {part.partition(",")[0] for part in known if part in real.readme} >= {
        "Each map was weighted by 1/(variance + tau2)",
        "Threshold-free cluster enhancement was integrated exactly over the heights of z",
    }
    assert set(re.findall(claims, real.page)) >= {"tau", "Knapp", "1/(", "area of the map's weight", "weight rests"}


def test_methods_text_is_title_words_and_citations(run):
    ran = run("--estimator", "made-up-median", "made-up-roots", "--inference", "made-up-sidak", "made-up-cubes")
    assert paragraphs(ran.readme, "Estimator: ") == [
        "Estimator: median of the effects, tested by their signs. Settings: depth = shallow.",
        "Estimator: means weighted by roots of precision. Roots were taken of subjects.",
    ]
    (decided,) = paragraphs(ran.readme, "Significance was decided")
    opening, _, rest = decided.partition("can be estimated. ")
    assert opening == (
        "Significance was decided at alpha = 0.05 by correction for independent voxels and largest cube by resampling "
        "(two-sided), over the voxels of the mask where the test "
    )
    assert rest == (
        "Relabellings were made by flipping the signs of the maps (under the null, the maps are "
        "independent and symmetric about zero); 40 were used, the unchanged data and others drawn at random with seed "
        "0. The estimator was fitted anew in each relabelling and the largest score of the mask kept; a corrected p is "
        "the share of relabellings whose largest score reaches the observed one, and the smallest that can be reached "
        "is 0.025. Cubes of 180 voxels were kept, with confidence 95 %."
    )
    for paragraph in (*paragraphs(ran.readme, "Estimator: "), decided):
        assert paragraph in ran.page
    cited = re.findall(r"On (\w+)\.", ran.citation)
    assert cited == ["medians", "roots", "rectangles", "cubes"]
    assert len(re.findall("^- ", ran.citation, re.M)) == 6  # and the two of BIDS
    assert "made-up-roots is new." in ran.stderr
    assert "made-up-roots is new." in ran.page


def test_sidecars_have_what_the_records_and_facts_say(run):
    ran = run("--estimator", "made-up-median", "--inference", "made-up-sidak", "made-up-bare", "made-up-cubes")
    assert ran.sidecar("desc-madeUpMedian_stat-z_statmap")["Estimator"] == {
        "Name": "made-up-median",
        "Title": MEDIAN.title,
        "Settings": {"depth": "shallow"},
        "Citation": [MEDIAN.citations[0].text],
        "Reason": "asked for",
    }
    bare = ran.sidecar("corr-madeUpBare_mask")["Inference"]
    assert bare == {
        "Name": "made-up-bare",
        "Title": BARE.title,
        "ZThreshold": None,
        "Citation": [BARE.citations[0].text],
    }
    sidak = ran.sidecar("corr-madeUpSidak_mask")["Inference"]
    assert list(sidak) == [
        *("Name", "Title", "Alpha", "Controls", "NumberOfTests", "PThreshold", "RootOfAll", "ZThreshold", "Citation"),
    ]
    assert (sidak["Controls"], sidak["RootOfAll"]) == ("error rate of all", 180)
    cubes = ran.sidecar("corr-madeUpCubes_mask")
    assert (cubes["Resamples"], cubes["Seed"]) == (40, 0)
    assert cubes["Inference"]["Scheme"] == "sign flips"
    assert "ScoreUnits" not in cubes["Inference"]


def test_maps_are_those_that_the_estimator_gives(run):
    ran = run("--estimator", "made-up-median", "made-up-roots", "--inference", "made-up-sidak")
    kinds = {
        name: {re.search("stat-([A-Za-z0-9]+)_", file)[1] for file in ran.files if re.match(f"{name}_stat", file)}
        for name in ("madeUpMedian", "madeUpRoots")
    }
    assert kinds["madeUpMedian"] == {"effect", "z", "p", "log10p", "n"}  # no standard error: no variance
    assert kinds["madeUpRoots"] == {"effect", "variance", "z", "p", "log10p", "n"}


def test_tables_and_pictures_take_labels_from_the_record(run):
    ran = run("--estimator", "made-up-roots", "--inference", "made-up-bare", "made-up-cubes")
    table = next(ran.group.glob("*corr-madeUpBare_clusters.tsv")).read_text(encoding="utf-8").splitlines()
    assert table[0].endswith("\tn_voxels\tregion\tcomposition\ttwice")
    size, twice = (float(table[1].split("\t")[table[0].split("\t").index(name)]) for name in ("n_voxels", "twice"))
    assert twice == 2 * size > 0
    assert ran.sidecar("corr-madeUpBare_clusters")["twice"] == {"Description": "Two times its size"}
    assert " Twice " in ran.page
    assert "Largest score of made-up-cubes" in ran.page
    assert "Diamond: the combined effect with its 95 % interval." in ran.page


def test_a_combined_effect_without_an_error_has_no_interval(run):
    page = run("--estimator", "made-up-median", "--inference", "made-up-bare").page
    assert "Left: the effect of each map. Diamond: the combined effect. Right: the test refitted" in page
    assert "No funnel plot: made-up-median reads no variances." in page
    assert "c z test, two-sided, by made-up-median" in page  # the intercept is called by its contrast
    assert re.findall(r"[Ii]ntervals? (?:are|of the effect|allows)|95 % interval", page) == []


def test_what_records_do_not_allow_is_refused_with_names_that_do(run):
    refused = run("--estimator", "made-up-median", "--inference", "made-up-smooth", code=64).stderr
    assert "--inference made-up-smooth needs the smoothness of the residuals" in refused
    able = re.search(r"residuals \(([^)]*)\)\.", refused)[1].split(", ")
    assert set(able) == {one.name for one in real_methods()[0] if one.has_residuals}
    refused = run("--estimator", "made-up-roots", "--smoothing", "4", code=64).stderr
    assert re.search("--smoothing is for --estimator ols.* or made-up-median only, not made-up-roots", refused)
    refused = run("--estimator", "made-up-roots", "--formula", "1 + age", code=64).stderr
    assert "--estimator made-up-roots answers one question" in refused
    assert "With designs use reml, ols or stouffer-rfx." in refused


def test_smoothing_is_open_to_an_estimator_of_effects_alone(run):
    ran = run("--estimator", "made-up-median", "--inference", "made-up-sidak", "--smoothing", "6")
    assert (
        "Effect maps were smoothed with a Gaussian kernel of 6 mm FWHM, each within the voxels that it covers."
        in ran.page
    )


def test_settings_of_the_configuration(run, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('[estimator.made-up-median]\ndepth = "deep"\n', encoding="utf-8")
    ran = run("--estimator", "made-up-median", "--inference", "made-up-sidak", "--config-file", config)
    assert "Settings: depth = deep." in ran.readme
    config.write_text('[estimator.made-up-median]\ndepth = "none"\n', encoding="utf-8")
    refused = run("--estimator", "made-up-median", "--config-file", config, code=64).stderr
    assert "Choose from: shallow, deep." in refused
    assert "made-up-median" in run("--estimator", "made-up", code=64).stderr


def test_the_page_is_made_again_from_what_was_kept(run, cli, subjects):
    ran = run("--estimator", "made-up-roots", "--inference", "made-up-cubes")
    page = next(ran.out.glob("group_*.html"))
    before = page.read_bytes()
    page.unlink()
    again = cli(subjects, ran.out, "group", "--reports-only")
    assert again.code == 0, again.stderr
    assert page.read_bytes() == before
