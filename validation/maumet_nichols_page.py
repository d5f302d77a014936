"""The page of `maumet_nichols.py`: its tables, its pictures, its claims and its words."""

from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

Shares = dict[tuple[Any, str], np.ndarray]
"""By condition and method: the share of voxels whose p is at or below each level."""

EXPONENTS = np.arange(1.0, 4.01, 0.25)  # of the levels, before .05
AT_05, AT_001 = -1, 8
WHO = ("agree, equal variances", "agree, unequal", "differ, equal variances", "differ, unequal")
COLOURS = {5: "#c80000", 10: "#e69f00", 25: "#0072b2", 50: "#000000"}
COLOURS_SAVED = 64
EVIDENCE = ("stouffer", "stouffer-weighted", "fisher", "tippett")
Z_FAMILY = (*EVIDENCE, "stouffer-rfx")
MIXED = ("reml", "ml", "dl", "hedges", "hunter-schmidt", "sidik-jonkman", "paule-mandel", "empirical-bayes")
FIGURES = {
    "one-sample": ("one sample", "nominal"),
    "two-samples": ("two samples 1:1", "nominal"),
    "two-samples-unequal": ("two samples 1:4", "nominal"),
    "data-units": ("two samples 1:1", "data, half"),
    "contrast-units": ("two samples 1:1", "contrast"),
}
"""By name of the picture: the design and the units that it shows."""


def figure_names() -> dict[str, str]:
    """Return the name of each picture's file."""
    return {name.replace("-", "_"): f"validation-maumet-nichols-{name}.png" for name in FIGURES}


def group(cell: Any) -> str:
    """Return which column of tables and pictures a condition belongs to."""
    return WHO[2 * int(cell.tau2 > 0) + int("fold" in cell.variance)]


def pick(found: Shares, method: str, design: str, units: str) -> dict[str, list[tuple[Any, np.ndarray]]]:
    """List a method's conditions by column."""
    own: dict[str, list[tuple[Any, np.ndarray]]] = {who: [] for who in WHO}
    for (cell, name), shares in found.items():
        if (name, cell.design, cell.units) == (method, design, units):
            own[group(cell)].append((cell, shares))
    return own


def span(values: list[float], digits: int) -> str:
    """Write the smallest and the largest."""
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low}-{high}"


def nominal_table(found: Shares, design: str) -> str:
    """Tabulate a design where all effects are in one unit."""
    lines = ["| method | " + " | ".join(WHO) + " |", "|---|" + "---|" * len(WHO)]
    for method in dict.fromkeys(name for _, name in found):
        own = pick(found, method, design, "nominal")
        if any(own.values()):
            texts = [
                f"{span([s[AT_05] for _, s in own[who]], 3)}; {max(s[AT_001] for _, s in own[who]) / 1e-3:.1f}"
                for who in WHO
            ]
            lines.append("| " + " | ".join([f"`{method}`", *texts]) + " |")
    return "\n".join(lines)


def units_table(found: Shares) -> str:
    """Tabulate what units do to the share below .05: the smallest and the largest of all conditions that have them."""
    units = list(dict.fromkeys(cell.units for cell, _ in found))
    designs = list(dict.fromkeys(cell.design for cell, _ in found))
    variances = {cell.variance for cell, _ in found if cell.units != units[0]}
    lines = ["| method | design | " + " | ".join(units) + " |", "|---|---|" + "---|" * len(units)]
    for method in dict.fromkeys(name for _, name in found):
        for design in designs:
            values: dict[str, list[float]] = {unit: [] for unit in units}
            for (cell, name), shares in found.items():
                # without what goes wrong in any unit: evidence and fixed effects where effects differ
                fair = cell.tau2 == 0 or name not in (*EVIDENCE, "fixed-effects")
                if (name, cell.design) == (method, design) and cell.variance in variances and fair:
                    values[cell.units].append(shares[AT_05])
            if values[units[0]] and method not in EVIDENCE[1:]:
                texts = [span(values[unit], 3) for unit in units]
                lines.append("| " + " | ".join([f"`{method}`", design, *texts]) + " |")
    return "\n".join(lines)


def tables(found: Shares, n_voxels: int) -> dict[str, str]:
    """Return all tables by name."""
    return {
        "one": nominal_table(found, "one sample"),
        "two": nominal_table(found, "two samples 1:1"),
        "unequal": nominal_table(found, "two samples 1:4"),
        "units": units_table(found),
        "band": f"{4 * np.sqrt(0.05 * 0.95 / n_voxels):.3f}",
    }


def draw_figures(found: Shares, n_voxels: int, folder: Path) -> None:
    """Write the pictures."""
    names = figure_names()
    for name, (design, units) in FIGURES.items():
        methods = [m for m in dict.fromkeys(m for _, m in found) if any(pick(found, m, design, units).values())]
        with mpl.rc_context({"font.size": 6, "axes.linewidth": 0.4}):
            figure, grid = plt.subplots(
                len(methods), 4, figsize=(6, 0.72 * len(methods) + 0.6), sharex=True, sharey=True
            )
            for row, method in zip(grid, methods, strict=True):
                for axes, (who, own) in zip(row, pick(found, method, design, units).items(), strict=True):
                    draw_panel(axes, own, n_voxels)
                    axes.set_title(who if method == methods[0] else "", fontsize=6, pad=3)
                row[0].set_ylabel(method.replace(", ", ",\n"), rotation=0, ha="right", va="center")
            for axes in grid[-1]:
                axes.set_xlabel("expected p")
            lines = [axes.plot([], [], color=colour, lw=1)[0] for colour in COLOURS.values()]
            names_of = [f"{studies} studies" for studies in COLOURS]
            figure.legend(
                lines, names_of, loc="lower center", ncols=len(COLOURS), frameon=False, bbox_to_anchor=(0.5, -0.02)
            )
            figure.tight_layout(pad=0.3, h_pad=0.2, w_pad=0.8)
            drawn = BytesIO()
            figure.savefig(drawn, dpi=115, bbox_inches="tight")
            plt.close(figure)
        few = Image.open(drawn).convert("RGB").quantize(COLOURS_SAVED, dither=Image.Dither.NONE)
        few.save(folder / names[name.replace("-", "_")], optimize=True)


def draw_panel(axes: Axes, own: list[tuple[Any, np.ndarray]], n_voxels: int) -> None:
    """Draw observed over expected p of some conditions, a colour for each number of studies."""
    p = 10.0**-EXPONENTS
    half = 1.96 * np.sqrt((1 - p) / (n_voxels * p))
    axes.fill_between(EXPONENTS, np.maximum(1 - half, 0.03), 1 + half, color="0.8", lw=0)
    axes.axhline(1, color="0.4", lw=0.4)
    for cell, shares in own:
        ratio = np.maximum(shares[: p.size] / p, 0.03)
        axes.plot(EXPONENTS, ratio, color=COLOURS[cell.studies], lw=0.6, alpha=0.8)
    axes.set(yscale="log", ylim=(0.03, 300), xlim=(1, 4), xticks=(1, 2, 3, 4), yticks=(0.1, 1, 10, 100))
    axes.set_xticklabels((".1", ".01", ".001", "1e-4"))
    axes.set_yticklabels(("0.1", "1", "10", "100"))
    axes.minorticks_off()
    axes.tick_params(length=1.5, width=0.4, pad=1)


def claims(found: Shares, n_voxels: int) -> list[str]:
    """Tell which claims of the page fail."""
    slack = 4 * np.sqrt(0.05 * 0.95 / n_voxels)
    broken = []
    for (cell, method), shares in found.items():
        low, high = claimed(cell, method)
        if not low - slack <= shares[AT_05] <= high + slack:
            broken.append(f"{method}, {cell}: {shares[AT_05]:.4f} below .05, not {low} to {high}")
        same = found.get((type(cell)(**{**vars(cell), "units": "nominal"}), method))
        if method in Z_FAMILY and not np.array_equal(shares, same):
            broken.append(f"{method}, {cell}: units change z")
    return broken


def claimed(cell: Any, method: str) -> tuple[float, float]:
    """Return between which shares of p below .05 a condition is claimed to lie; 0 and 1: nothing is claimed."""
    one = cell.design == "one sample"
    if method in (*EVIDENCE, "fixed-effects") and cell.tau2:
        return (0.07, 1.0) if cell.units == "nominal" else (0.0, 1.0)
    if method in EVIDENCE:
        return 0.05, 0.05
    if cell.units != "nominal" and method not in Z_FAMILY:
        return 0.0, 1.0
    if method.startswith("ols") and one:
        return (0.0 if "fold" in cell.variance else 0.05), 0.05
    if method == "ols" and "fold" not in cell.variance:
        return 0.05, 0.05
    if method == "ols":
        return 0.0, 1.0
    limits = {
        "fixed-effects": 0.055,
        "reml": 0.055 if one else 0.06,
        "sidik-jonkman": 0.05,
        "stouffer-rfx": 0.055,
        "ols, sandwich": 0.065,
    }
    limit = limits.get(method, 0.06 if one else 0.075)
    wide = method in ("stouffer-rfx", "reml, knha")  # with a sample of two studies, and few studies of 16-fold variance
    return 0.0, 0.085 if wide and "fold" in cell.variance else limit


PAGE = """# The simulation of Maumet and Nichols, for every estimator

Made by `python validation/maumet_nichols.py --write docs/validation-maumet-nichols.md`; do not edit by hand.

Maumet and Nichols (2016, [doi:10.1101/048249](https://doi.org/10.1101/048249)) asked of eight methods of image-based
meta-analysis whether their p mean what they say. This is their simulation for all estimators of one map each, with
its defaults, and for two settings (`reml` with Knapp and Hartung's test, `ols` with a sandwich). K = 5, 10, 25 or 50
studies of 20 people each, whose variances are estimated from these; the within-study variance of the contrast is .25,
.5, 1, 2 or 4 in all studies, or varies between them 2-, 4-, 8- or 16-fold around 1; the true effects agree, or
scatter around 0 with a variance of 1. One sample is tested against 0, or two samples of studies (1:1, 1:4) against
each other. There is no effect, and {voxels:,} voxels a condition.

## When to use which

- `reml`: the default wherever effects and variances are in one unit; with 5 or 10 studies that agree it hardly ever
  rejects, and with variances that differ 16-fold and 10 studies p of .001 come up 1.5 times too often.
- `dl`, `paule-mandel`, `empirical-bayes`: as `reml`, when a protocol asks for them; the two last are one estimate
  here.
- `hedges`: as these, a little more liberal where variances differ much; no reason to prefer it.
- `ml`, `hunter-schmidt`: to compare with published analyses; their tau2 is too small with few studies, and p of .05
  come up in up to 8 of 100 voxels between two samples.
- `sidik-jonkman`: when false positives cost more than misses; its tau2 is too large, so that it finds less than any
  other.
- `ols`: when there are effects in one unit and no variances; of one sample it is right or careful in every condition,
  between two samples it is right only where variances are alike, and errs four times as often as it says where one
  study of the smallest samples varies more than the others.
- `ols` with `errors = "sandwich"`: two samples whose variances may differ; the fewer studies the smaller one has, the
  more careful it is.
- `fixed-effects`: for what these studies found and no others (runs of one person, a replication of one protocol);
  where true effects differ it errs in 8 to 39 of 100 voxels.
- `stouffer-rfx`: when only t or z were shared, or units differ: is the effect consistent? It is right in every
  condition of one sample, and asks for no unit.
- `stouffer`, `stouffer-weighted` (the same here, where all studies are of one size): is there evidence in at least
  one study? Right for that question; a significant voxel may be the work of a few studies.
- `fisher`, `tippett`: as `stouffer`, for evidence in very few studies; where effects differ they find something
  nearly everywhere, since then there is something everywhere.

## One unit, one sample

How often p falls below .05, from the condition where it does so least to the one where it does so most; and how many
times as often as it should p falls below .001, at most. Where effects differ, what `fixed-effects`, `stouffer`,
`stouffer-weighted`, `fisher` and `tippett` find is not false: they ask another question, to which the answer is yes.

{tables[one]}

![Observed over expected p of one sample, by method and condition]({figures[one_sample]})

Observed over expected p; 1 is right. A line for each condition; grey is where 95 % of right ones lie by chance.

## One unit, two samples

1:1.

{tables[two]}

![Observed over expected p of two samples, 1:1]({figures[two_samples]})

1:4.

{tables[unequal]}

![Observed over expected p of two samples, 1:4]({figures[two_samples_unequal]})

## Several units

Software scales its data differently (to a mean of 100, of 10,000, or to something else), and contrasts are written
with different weights. "Data": the first fifth or half of the studies have effects twice as large in number (between
two samples of 1:4, the first fifth is the small sample; between 1:1, the first half is one of them), "contrast":
factors from .4 to 1.6. The share of p below .05 where there is no effect, over all conditions with variances of .25,
1, 4 and 16-fold; of `fixed-effects` and `stouffer` those where effects agree (`stouffer-weighted`, `fisher` and
`tippett` are unchanged too, as `stouffer` is).

{tables[units]}

![Observed over expected p of two samples in two units]({figures[data_units]})

Two samples 1:1, one of which is in another unit ("data, half").

![Observed over expected p of two samples, contrasts scaled]({figures[contrast_units]})

Two samples 1:1, contrasts scaled by .4 to 1.6.

Where there is no effect, zero is zero in any unit: tests of one sample hold, and lose power, since a difference of
units looks like scatter. Tests between samples err more often, as variances then differ with the sample. The larger
harm is done where there is an effect. 25 studies with a true effect of exactly 1 in each: the mean of the estimates,

{units[0]}

and the share of p below .05 for a *difference* between two samples of which there is none,

{units[1]}

A difference of units between two samples is a difference between them: `ols`, `fixed-effects` and the mixed models
report it in a third of the voxels where each sample has its unit, the more often the more studies there are, and no
statistic can tell. The pooled effect of one sample has no unit at all then, and weights by inverse variances prefer
the studies with the smaller numbers. This is what `--units check`, the default, protects from: effects whose units
differ or are unknown are not combined, `--units hedges-g` standardises them, and the Z family does without.

The script ends with 1 when an error leaves what is said here by more than chance explains (4 standard errors,
{tables[band]} at .05), or when units change anything of z. """
