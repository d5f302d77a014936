"""Tables of regions: what each map has there, and the tests of their means by the estimator of the maps."""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.atlas import Regions, RegionTests
from ibma_app.core.anatomy.elements import require_grid
from ibma_app.core.design import Test
from ibma_app.core.estimate import Estimate
from ibma_app.core.labels import group_label
from ibma_app.core.results import WrittenFile
from ibma_app.core.statmap import Analysis
from ibma_app.dataset.entities import output_name
from ibma_app.dataset.write import save_json, save_tsv
from ibma_app.designs.tables import collect_covariates
from ibma_app.images.region_images import find_regions
from ibma_app.inference.bonferroni import HOLM, step_down
from ibma_app.inference.fdr import INFERENCE as FDR
from ibma_app.inference.fdr import step_up
from ibma_app.stats.tails import z_to_log10p
from ibma_app.stream.effect_sizes import Z_95, EffectSize, find_effect_sizes
from ibma_app.stream.estimate import Model
from ibma_app.stream.evidence.region_values import RegionBlock, RegionValues, average_regions, take
from ibma_app.stream.stack import Stack
from ibma_app.workflows.plan.choose_estimators import Choice
from ibma_app.workflows.plan.find_inputs import Gathered
from ibma_app.workflows.write import sidecars
from ibma_app.workflows.write.effect_bounds import critical_errors, has_errors
from ibma_app.workflows.write.maps import SMALLEST_P, Target

OUTSIDE, TOO_FEW, NOT_ESTIMABLE = "outside the mask", "too few maps cover half of it", "cannot be estimated"
RULE = "A map that covers less than half of a region (by weight) has no value there."
MEANS = (
    "The value of a map is the mean over the voxels of the region that it covers, weighted by the probabilities where "
    "the atlas has such. Its variance is the mean of the voxels' sampling variances: their errors are correlated to an "
    "unknown degree, and the variance of the mean is at most that, which it equals where voxels err as one. Tests by "
    "inverse variances are therefore conservative, and tau2, I2 and Q too small, where it is well above the truth."
)
MEAN_Z = (
    "The value of a map is the mean of its z over the voxels of the region that it covers, weighted by the "
    "probabilities where the atlas has such. The variance of a mean z is at most 1 under the null: tests that take it "
    "for 1 are conservative, those that estimate it are not."
)
SHARED = {
    "tau2": ("tau2", "Variance of the true effects between maps"),
    "sigma2": ("sigma2", "Variance within units, where tau2 is that between them"),
    "omega2": ("omega2", "Variance of true effects within clusters, where tau2 is that between them"),
    "icc": ("icc", "tau2 / (tau2 + sigma2)"),
    "i2": ("i2", "Percent of the variation between maps that is not sampling error"),
    "h2": ("h2", "Q over its degrees of freedom"),
    "q": ("q", "Cochran's Q"),
    "q_log10p": ("q_log10p", "-log10 p of Q"),
    "pilower": ("pi_lower", "Lower end of the 95 % prediction interval"),
    "piupper": ("pi_upper", "Upper end of the 95 % prediction interval"),
}
"""Field of `Estimate` -> column, and what it is."""
COLUMNS = {
    "atlas": "The atlas or file that the region is of",
    "index": "Its label there, or the number of its volume from 1 on",
    "region": "Its name",
    "n_voxels": "Voxels of the region on the grid of the maps",
    "n_covered": "Those of them in the analysis mask",
    "n_maps": "Maps that have a value in the region",
    "effect": "The estimate of the test, in the units of the maps",
    "se": "Its standard error",
    "lower": "Lower end of its 95 % interval (two-sided, whatever the tail)",
    "upper": "Upper end of its 95 % interval",
    "g": "Hedges' g of the region's mean",
    "g_lower": "Lower end of its exact 95 % interval",
    "g_upper": "Upper end of its exact 95 % interval",
    "eta2": "Partial eta squared of the test",
    "eta2_lower": "Lower end of its exact 95 % interval",
    "eta2_upper": "Upper end of its exact 95 % interval",
    "t": "The test's t",
    "F": "The test's F",
    "dof": "Its (denominator) degrees of freedom",
    "z": "The statistic as z",
    "p": "p in the tail of the test, uncorrected",
    "p_holm": "p corrected over the regions of this table: family-wise error rate (Holm 1979)",
    "p_fdr": "p corrected over the regions of this table: false discovery rate (Benjamini and Hochberg 1995)",
    **dict(SHARED.values()),
    "note": "Why there are no numbers",
}
VALUES = {
    "atlas": COLUMNS["atlas"],
    "index": COLUMNS["index"],
    "region": COLUMNS["region"],
    "effect": "Mean effect of the map in the region",
    "variance": "Its sampling variance: the mean of the voxels'",
    "z": "Mean z of the map in the region",
    "dof": "Degrees of freedom of the map",
    "n_voxels": "Voxels of the region that the map covers, in the analysis mask",
    "sample_size": "People behind the map",
}
Rows = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class RegionTables:
    """The regions of an analysis: what each map has there, and what else the tables say."""

    values: RegionValues
    n_min: int  # maps that a region needs, as a voxel does
    maps: Rows  # of each map: its unit, and whatever else is known of it
    described: Mapping[str, str]  # the columns of these, the unit first, and what they are
    kind: str = "regions"  # after ``desc-`` in the name of the table of values

    @property
    def told(self) -> RegionTests:
        """What texts say of them."""
        return RegionTests(self.values.regions.sets, (HOLM, *FDR.citations))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        regions = self.values.regions
        lost = [name.name for name, voxels in zip(regions.names, regions.n_covered, strict=True) if not voxels]
        few = [
            name.name
            for name, voxels, n in zip(regions.names, regions.n_covered, self.values.block.covered.sum(0), strict=True)
            if voxels and n < self.n_min
        ]
        texts = list(regions.notes)
        if lost:
            texts.append(f"--regions: {_some(lost)} no voxel in the mask, so none is tested: {_names(lost)}.")
        if few:
            texts.append(f"--regions: {_some(few)} fewer than {self.n_min} maps that cover half of it: {_names(few)}.")
        if self.values.block.variance is not None:
            texts.append(
                "--regions: the variance of a region's mean is not known, and the most that it can be is taken, the "
                "mean of its voxels' variances. Estimators that read variances are conservative there, much so in "
                "regions that are larger than the maps are smooth; those that read effects alone are not."
            )
        return tuple(texts)


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} {'region has' if len(names) == 1 else 'regions have'}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def names_of_values(parts: Sequence[tuple[Choice, ...]]) -> list[tuple[tuple[Choice, ...], str]]:
    """Name the values that the estimators of each part read: ``regions``; of further parts ``regionsZ``, ..., too."""
    kinds = ["".join(one[:1].upper() + one[1:] for one in sorted(part[0].estimator.needs)) for part in parts]
    return [
        (part, f"regions{kind if number else ''}") for number, (part, kind) in enumerate(zip(parts, kinds, strict=True))
    ]


def collect_tables(
    chosen: Sequence[str | Regions], stack: Stack, analysis: Analysis, gathered: Gathered, share: float, kind: str
) -> RegionTables | None:
    """Average the maps of a stack over regions, and collect what is known of each map; None where none were chosen.

    Parameters
    ----------
    chosen : sequence of str or Regions
        As `ibma_app.images.region_images.choose_regions` returns it.
    stack : Stack
    analysis : Analysis
    gathered : Gathered
        With the table of covariates.
    share : float
        Of the maps that must have a value in a region, as in a voxel.
    kind : str
        From `names_of_values`.
    """
    if not chosen:
        return None
    regions = find_regions(chosen, analysis.entities.get("space"), require_grid(stack.grid, "--regions"))
    unit, prefix = ("study_id", "study-") if analysis.unit == "study" else ("participant_id", "sub-")
    observations = [analysis.observations[row] for row in stack.kept]
    known = collect_covariates(observations, gathered.table, unit, gathered.table_path)
    combined = [key for key in analysis.combined if any(key in one.entities for one in observations)]
    table = [] if gathered.table is None else [str(name) for name in gathered.table.columns]
    sizes = ["sample_size"] if analysis.unit == "study" and known["sample_size"].notna().any() else []
    columns = [name for name in dict.fromkeys((*sizes, *table)) if name in known and name not in combined]
    described = {unit: f"The {analysis.unit} that the map is of", **{key: f"Its {key}" for key in combined}}
    own = {*described, *VALUES, "file"} - {*sizes}
    shown = {name: _rename(name, {*own, *table}) if name in own else name for name in columns}
    described |= {shown[name]: f"Column {name} of the table of covariates" for name in columns}
    described |= {"sample_size": VALUES["sample_size"]} if sizes else {}
    described["file"] = "The map (its first file), as BIDS URI"
    maps = [
        {
            unit: f"{prefix}{one.unit_label}",
            **{key: one.entities.get(key) for key in combined},
            **{shown[name]: known[name].iloc[row] for name in columns},
            "file": stack.survey[row].uris[0],
        }
        for row, one in enumerate(observations)
    ]
    n_min = max(1, math.ceil(share * stack.n_maps - 1e-9))
    return RegionTables(average_regions(stack, regions), n_min, maps, described, kind)


def _rename(name: str, taken: Set[str]) -> str:
    """Find another name for a covariate that is called as a column of the table is."""
    return next(one for number in count(1) if (one := f"covariate{number if number > 1 else ''}_{name}") not in taken)


def write_values(target: Target, tables: RegionTables) -> Path:
    """Write the table of maps by regions: one row for each map and region, with the covariates of the map."""
    values, described = tables.values, tables.described
    block, names = values.block, values.regions.names
    kinds = [one for one in ("effect", "variance", "z") if getattr(block, one) is not None]
    unit, *others = described
    known = block.dof is not None and bool(np.isfinite(block.dof).any())
    own = ["atlas", "index", "region", *kinds, *(["dof"] if known else []), "n_voxels"]
    header = [unit, *own, *others]
    entities = {**target.analysis.entities, "desc": tables.kind}
    path = target.folder / output_name(entities, "values", ".tsv")

    def rows() -> Iterator[dict[str, Any]]:
        for row, about in enumerate(tables.maps):
            dof = None if block.dof is None or not known else np.broadcast_to(block.dof[row], len(names))
            for column, name in enumerate(names):
                there = bool(block.covered[row, column])
                cells = {one: float(getattr(block, one)[row, column]) if there else None for one in kinds}
                cells["dof"] = float(dof[column]) if there and dof is not None and dof[column] < np.inf else None
                yield {
                    **about, "atlas": name.atlas, "index": name.index, "region": name.name, **cells,
                    "n_voxels": int(values.n_voxels[row, column]),
                }  # fmt: skip

    written = save_tsv(target.output, path, header, rows())
    words = {**VALUES, **described}
    common = {key: value for key, value in target.common.items() if key not in ("Estimator", "Derived")}
    content = {
        **common,
        "Description": f"Values of each map in each region. {_means(values)} {RULE}",
        **{column: {"Description": words[column]} for column in header},
        "Units": target.units,
    }
    save_json(target.output, path.with_suffix(".json"), content)
    return written


def _means(values: RegionValues) -> str:
    return MEANS if values.block.effect is not None else MEAN_Z


def write_regions(target: Target, tables: RegionTables) -> list[WrittenFile]:
    """Test the means of regions, and write a table for each test.

    Parameters
    ----------
    target : Target
        Its model is fitted to the table of maps by regions as to one of maps by voxels.
    tables : RegionTables
    """
    values, model = tables.values, target.model
    columns = np.flatnonzero(values.block.covered.sum(axis=0) >= tables.n_min)
    fitted = _fit(model, RegionBlock(take(values.block, columns))) if columns.size else None
    files = [WrittenFile("", "", "values", write_values(target, tables))]
    for test in target.design.tests:
        rows = _rows(target, tables, test, columns, fitted)
        filled = {key for row in rows for key in row}
        groups = {key: f"Variance of the true effects between maps, {key}" for key in filled if key not in COLUMNS}
        header = [name for name in (*list(COLUMNS)[:-1], *sorted(groups), "note") if name in filled]
        path = target.path("regions", ".tsv", test=test.name)
        written = save_tsv(target.output, path, header, rows)
        common = sidecars.map_sidecar(
            target.common, "effect", target.units, test=test, design=target.design, dof=None, tail=test.tail
        )
        words = {**COLUMNS, **groups}
        content = {
            **common,
            "Description": f"Tests of the means of regions. {_means(values)} {RULE} A region is tested where "
            f"{tables.n_min} maps have a value.",
            "NumberOfTests": sum(row.get("p") is not None for row in rows),
            **{name: {"Description": words[name]} for name in header},
        }
        save_json(target.output, path.with_suffix(".json"), content)
        files.append(WrittenFile(test.name if target.named_tests else "", "", "regions", written))
    return files


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The fit of some regions."""

    estimate: Estimate
    sizes: Mapping[str, EffectSize]


def _fit(model: Model, block: RegionBlock) -> _Fitted:
    """Fit the model to regions, as many at once as of voxels."""
    estimate = model.fit(block.block)
    return _Fitted(estimate, find_effect_sizes(block, model, estimate))


def _rows(target: Target, tables: RegionTables, test: Test, columns: NDArray[np.intp], fitted: _Fitted | None) -> Rows:
    """Make the rows of one test: those of all regions, with numbers where it can be estimated."""
    regions = tables.values.regions
    covered = regions.n_covered
    maps = tables.values.block.covered.sum(axis=0)
    rows: Rows = []
    for number, name in enumerate(regions.names):
        row = {
            "atlas": name.atlas, "index": name.index, "region": name.name, "n_voxels": int(regions.n_voxels[number]),
            "n_covered": int(covered[number]), "n_maps": int(maps[number]),
            "note": None if covered[number] else OUTSIDE,
        }  # fmt: skip
        if covered[number] and maps[number] < tables.n_min:
            row["note"] = TOO_FEW
        rows.append(row)
    if fitted is None:
        return rows
    estimable = fitted.estimate.tests[test.name].estimable
    numbers = _numbers(target, test, fitted)
    for place, column in enumerate(columns.tolist()):
        if estimable[place]:
            rows[column] |= {key: float(values[place]) for key, values in numbers.items()}
        else:
            rows[column]["note"] = NOT_ESTIMABLE
    return rows


def _numbers(target: Target, test: Test, fitted: _Fitted) -> dict[str, NDArray[np.float64]]:
    """Collect the numbers of one test, a column each; corrected p are over the regions that are estimable."""
    estimate, one = fitted.estimate, fitted.estimate.tests[test.name]
    found: dict[str, NDArray[np.float64]] = {}
    if has_errors(estimate, test) and one.effect is not None and one.variance is not None:
        half = critical_errors(estimate, test, Z_95) * np.sqrt(np.maximum(one.variance, 0.0))
        found |= {"effect": one.effect, "se": np.sqrt(np.maximum(one.variance, 0.0))}
        found |= {"lower": one.effect - half, "upper": one.effect + half}
    size = fitted.sizes.get(test.name) if target.analysis.unit == "subject" else None
    if size is not None:
        found |= {size.kind: size.value, f"{size.kind}_lower": size.lower, f"{size.kind}_upper": size.upper}
    if one.statistic is not None:
        found[one.statistic_name] = one.statistic
    dof = estimate.dof_of(test.name)
    if dof is not None:
        found["dof"] = np.where(np.isfinite(dof), dof, np.nan)
    found["z"] = one.z
    log10_p = np.asarray(z_to_log10p(one.z, test.tail), dtype=np.float64)
    found["p"] = _to_p(log10_p)
    for name, adjust in (("p_holm", step_down), ("p_fdr", step_up)):
        found[name] = np.full(log10_p.size, np.nan)
        found[name][one.estimable] = _to_p(adjust(log10_p[one.estimable]))
    found |= {
        column: np.asarray(values, dtype=np.float64)
        for kind, (column, _) in SHARED.items()
        if (values := getattr(estimate, kind)) is not None and (target.design.one_sample or not kind.startswith("pi"))
    }
    by = target.choice.settings.get("tau2_by", "")
    return found | {f"tau2{group_label(by, group)}": one for group, one in (estimate.tau2_groups or {}).items()}


def _to_p(log10_p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(10.0 ** -np.maximum(log10_p, 0.0), SMALLEST_P)
