"""Finished analyses made by hand, with real files, for the report to tell."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ibma_app.core.design import Design, Test
from ibma_app.core.errors import Note
from ibma_app.core.grid import Grid
from ibma_app.core.inference_facts import LevelFacts
from ibma_app.core.methods import Citation
from ibma_app.core.results import EstimatorResult, Finding, MapSurvey, Results, WrittenFile
from ibma_app.core.statmap import Analysis, Dataset, Observation, StatMap
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference

CITATION = Citation("made2000", "Made U, Upp N", 2000, "A method", "Journal of Tests 1, 1-2", "10.1000/182")

ESTIMATORS = {
    name: replace(find_estimator(name), citations=(CITATION,)) for name in ("reml", "stouffer-rfx", "fixed-effects")
}
INFERENCES = {name: replace(find_inference(name), citations=(CITATION,)) for name in ("fdr", "bonferroni")}


def small_grid(shape=(9, 11, 10), size=4.0, hole=True) -> Grid:
    """A grid around the origin of MNI space, whose mask leaves a corner out."""
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = -size * (np.array(shape) - 1) / 2
    mask = np.ones(shape, dtype=bool)
    if hole:
        mask[0, 0, :] = False
    return Grid(affine=affine, mask=mask)


def save_map(path: Path, grid: Grid, volume, **sidecar) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = np.int16 if volume.dtype.kind in "bi" else np.float32
    nibabel.save(nibabel.Nifti1Image(volume.astype(dtype), grid.affine), path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


def make_observations(root: Path, entity: str, labels, contrast: str, space: str) -> tuple[Observation, ...]:
    dataset = Dataset("raw", root, {"Name": "raw"})
    rows = []
    for label in labels:
        stem = f"{entity}-{label}_space-{space}_contrast-{contrast}"
        entities = {entity: label, "space": space, "contrast": contrast}
        statmaps = {
            kind: StatMap(root / f"{stem}_stat-{kind}_statmap.nii.gz", kind, dataset, entities)
            for kind in ("effect", "variance")
        }
        rows.append(Observation(label, entities, statmaps, dof=20.0, dof_source="sidecar", sample_size=12.0))
    return tuple(rows)


def make_group(
    out: Path,
    *,
    grid: Grid | None = None,
    contrast: str = "faces",
    space: str = "MNI152NLin2009cAsym",
    n_maps: int = 6,
    unit: str = "study",
    moderator: bool = False,
    estimators: tuple[str, ...] = ("reml",),
    significant: bool = True,
    units: str = "percent",
    seed: int = 0,
) -> Results:
    """A group analysis whose files lie under ``out/group``."""
    rng = np.random.default_rng(seed)
    grid = grid or small_grid()
    labels = tuple(f"{i:02d}" for i in range(1, n_maps + 1))
    observations = make_observations(out / "raw", "study" if unit == "study" else "sub", labels, contrast, space)
    entities = {"space": space, "contrast": contrast}
    matrix = np.column_stack([np.ones(n_maps), np.linspace(-1, 1, n_maps)]) if moderator else np.ones((n_maps, 1))
    columns = ("Intercept", "age") if moderator else ("Intercept",)
    tests = tuple(Test(name.lower(), row[None]) for name, row in zip(columns, np.eye(len(columns)), strict=True))
    if moderator:
        tests = (*tests, Test("any", np.eye(2), is_f=True))
    design = Design(matrix, columns, tests, formula="1 + age" if moderator else "1")
    parts = tuple(
        _make_estimator(out, name, grid, design, contrast, rng, units, significant=significant) for name in estimators
    )
    survey = tuple(
        MapSurvey(
            label=row.label,
            uris=tuple(uri for statmap in row.statmaps.values() for uri in statmap.uris),
            covered=grid.n_voxels - index,
            losses={"variance 0": index} if index else {},
            derived=("variance from effect and t",) if index == 1 else (),
            dof="20",
            sample_size=12.0,
            units=units,
            median_abs_effect=0.25 + index,
            median_variance=0.5 + index,
        )
        for index, row in enumerate(observations)
    )
    settings = {
        "alpha": 0.05,
        "tail": "two-sided",
        "cluster_p": 0.001,
        "min_coverage": 0.75,
        "units": "check",
    }
    analysis = Analysis("group", unit, entities, observations)
    return Results(analysis, grid, design, survey, parts, out, settings, notes=(Note("Few maps: 6."),))


def _make_estimator(out, name, grid, design, contrast, rng, units, *, significant) -> EstimatorResult:
    files, findings = [], []
    stem = f"contrast-{contrast.translate({ord(c): None for c in '<>/()'})}"
    only = len(design.tests) == 1
    effects = ESTIMATORS[name].needs[0] == "effect"

    def put(key, volume, **sidecar):
        test, inference, kind = key
        parts = [
            stem,
            f"test-{test}" if test else "",
            f"desc-{name}",
            f"corr-{inference}" if inference else "",
        ]
        path = out / "group" / ("_".join([p for p in parts if p] + [f"stat-{kind}"]) + "_statmap.nii.gz")
        files.append(WrittenFile(*key, save_map(path, grid, np.where(grid.mask, volume, 0), **sidecar)))

    n = np.full(grid.shape, design.matrix.shape[0], dtype=np.int16)
    n[-1] -= 1
    put(("", "", "n"), n)
    put(("", "", "dof"), n - design.matrix.shape[1] + 0.0)
    if effects:
        put(("", "", "tau2"), rng.gamma(1.0, 0.3, grid.shape))
        put(("", "", "i2"), rng.uniform(0, 90, grid.shape))
    for test in design.tests:
        key = "" if only else test.name
        z = rng.normal(0, 1.5, grid.shape)
        z[4:6, 4:6, 4:6] += 6 if significant else 0
        put((key, "", "z"), z)
        if effects and not test.is_f:
            put((key, "", "effect"), z / 10, Units=units)
            put((key, "", "variance"), rng.gamma(2.0, 0.01, grid.shape) + 0.001)
            put((key, "", "t"), 1.2 * z, DegreesOfFreedom="voxelwise")
        for inference in INFERENCES:
            passed = grid.mask & (np.abs(z) > (4.0 if significant else 40.0))
            put((key, inference, "mask"), passed.astype(np.int16))
            path = out / "group" / f"{stem}_test-{key}_desc-{name}_corr-{inference}_clusters.tsv"
            path.write_text("cluster_id\tx\ty\tz\tpeak_z\n" + "1\t2\t-4\t6\t5.123456789\n" * (20 * significant))
            files.append(WrittenFile(key, inference, "clusters", path))
            height, told = 4.0 if significant else None, (LevelFacts(0.05, "an error rate", 7),)
            findings.append(Finding(test.name, INFERENCES[inference], int(passed.sum()), height, told))
    return EstimatorResult(ESTIMATORS[name], {}, "asked for", tuple(files), tuple(findings), ("Knapp-Hartung.",))


def make_participant(out: Path, contrast="faces", label="01", seed=0, **kwargs) -> Results:
    """A participant's combined contrast, with files under ``out/sub-<label>``."""
    rng = np.random.default_rng(seed)
    grid = kwargs.get("grid") or small_grid()
    space = kwargs.get("space", "T1w")
    dataset = Dataset("raw", out / "raw")
    rows = []
    for run in ("1", "2"):
        entities = {"sub": label, "run": run, "space": space, "contrast": contrast}
        path = out / "raw" / f"sub-{label}_run-{run}_stat-effect_statmap.nii.gz"
        statmap = StatMap(path, "effect", dataset, entities)
        rows.append(Observation(label, entities, {"effect": statmap}, dof=102.0, dof_source="sidecar"))
    files = []
    z = rng.normal(0, 2, grid.shape)
    for kind, volume in (
        ("effect", z * 3), ("variance", np.full(grid.shape, 9.0)), ("t", z), ("z", z),
        ("n", np.full(grid.shape, 2, dtype=np.int16)),
    ):  # fmt: skip
        path = out / f"sub-{label}" / "func" / f"sub-{label}_contrast-{contrast}_stat-{kind}_statmap.nii.gz"
        written = save_map(path, grid, np.where(grid.mask, volume, 0), DegreesOfFreedom=204)
        files.append(WrittenFile("", "", kind, written))
    result = EstimatorResult(ESTIMATORS["fixed-effects"], {"test": "t"}, "asked for", tuple(files))
    survey = tuple(MapSurvey(row.label, (f"bids:raw:{row.label}",), grid.n_voxels, dof="102") for row in rows)
    analysis = Analysis(
        "participant", "run", {"sub": label, "space": space, "contrast": contrast}, tuple(rows), ("run",)
    )
    design = Design(np.ones((2, 1)), ("Intercept",), (Test("intercept", np.eye(1)),))
    return Results(analysis, grid, design, survey, (result,), out, {"min_coverage": 0.0})


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def group_results() -> Callable[..., Results]:
    """Factory of group analyses (see `make_group`)."""
    return make_group


@pytest.fixture(scope="session")
def participant_results() -> Callable[..., Results]:
    """Factory of participants' analyses (see `make_participant`)."""
    return make_participant


@pytest.fixture(scope="session")
def grid_maker() -> Callable[..., Grid]:
    """Factory of small grids (see `small_grid`)."""
    return small_grid


@pytest.fixture(scope="session")
def save() -> Callable[[Path, str], None]:
    """Write a text file as the dataset room would."""
    return write_text
