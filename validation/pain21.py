"""The story of the 21 pain studies, measured with the program: what is significant when maps share people.

``python validation/pain21.py FOLDER [--subjects FOLDER] [--write docs/pain21.md]``: the first folder has the whole
maps of NeuroVault's collection 1425 as the R package pain21 has them (contrast_pain_01.nii.gz, var_pain_01.nii.gz, ...,
samples.tsv with the columns map and sample_size), the second contrast images of subjects who are all different people
(Wager et al. 2008, from CanlabCore), for which no alarm is right. It exits with 1 when a claim of the page fails.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is imported

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

from ibma_app.cli import import_main  # noqa: E402
from ibma_app.cli import main as ibma_app  # noqa: E402

SAMPLES = ((1, 2), (3, 4), (5, 6, 7), (8, 9, 10, 11), (15, 16), (20, 21))
ALIKE = "look like the same people"


def run(command: Sequence[str | Path]) -> str:
    """Run a command line, and return what it said."""
    words = [str(word) for word in command]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = import_main(words) if words[0] == "table" else ibma_app(words)
    if code != 0:
        raise RuntimeError(f"exit code {code}: {words}\n{said.getvalue()}")
    return said.getvalue()


def write_table(folder: Path, path: Path, lacking: str = "", *, contrasts: bool = False) -> None:
    """Write the table that ibma-import reads; one study may have t alone, and studies contrasts of their own."""
    lines = ["study_id\tpath\tkind\tcontrast\tsample_size\tdof"]
    for number, row in enumerate((folder / "samples.tsv").read_text(encoding="utf-8").splitlines()[1:]):
        name, size = row.split("\t")[:2]
        study, contrast = name.replace("_", ""), ("pain", "heat", "shock")[number % 3] if contrasts else "pain"
        maps = {
            kind: folder / f"{image}_{name}.nii.gz" for kind, image in (("effect", "contrast"), ("variance", "var"))
        }
        if study == lacking:
            effect, variance = (nib.load(maps[kind]) for kind in ("effect", "variance"))
            values, squares = (np.asarray(image.dataobj, dtype=float) for image in (effect, variance))
            t = np.divide(values, np.sqrt(squares), out=np.zeros_like(values), where=squares > 0)
            maps = {"t": path.with_name(f"{path.stem}-{study}.nii.gz")}
            nib.save(nib.Nifti1Image(t.astype(np.float32), effect.affine), maps["t"])
        lines += [f"{study}\t{image}\t{kind}\t{contrast}\t{size}\t{int(size) - 1}" for kind, image in maps.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def named_otherwise(folder: Path, scratch: Path) -> dict[str, list[list[str]]]:
    """Return what is named where contrasts are pooled, and where one study has t alone."""
    found = {}
    for what, lacking, pooled in (
        ("pooled", "", True),
        ("pain12 by t", "pain12", False),
        ("pain05 by t", "pain05", False),
    ):
        maps, table = scratch / f"maps-{what.split()[0]}", scratch / f"{what.split()[0]}.tsv"
        write_table(folder, table, lacking, contrasts=pooled)
        run(["table", table, maps, "--space", "MNI152NLin6Asym"])
        options = ["--pool", "contrast"] if pooled else []
        run([maps, scratch / what.split()[0], "group", "--estimator", "stouffer", "--inference", "bonferroni",
             "--min-coverage", "1", "--no-report", *options])  # fmt: skip
        found[what] = named(scratch / what.split()[0])
    return found


def count(out: Path, estimator: str, inference: str = "bonferroni") -> int:
    """Count the significant voxels of a run."""
    (path,) = (out / "group").glob(f"*_desc-{estimator}_corr-{inference}_mask.nii.gz")
    return int(np.count_nonzero(np.asarray(nib.load(path).dataobj)))


def named(out: Path) -> list[list[str]]:
    """Return the studies that a run's sidecars name as one sample."""
    sidecar = json.loads(next((out / "group").glob("*_stat-z_statmap.json")).read_text(encoding="utf-8"))
    return sidecar.get("LikelySameSample", [])


def read_dependence(out: Path) -> dict[str, float]:
    """Return what the sidecars say of the dependence of maps."""
    path = next((out / "group").glob("*_desc-stouffer_stat-z_statmap.json"))
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["Dependence"]
    return found


def draw(before: Path, after: Path, picture: Path) -> None:
    """Draw what is significant in six axial slices: after in colours, before alone in grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    def read(out: Path, name: str) -> np.ndarray:
        (path,) = (out / "group").glob(f"*_desc-stouffer_{name}.nii.gz")
        return np.asarray(nib.load(path).dataobj, dtype=float)

    once, kept = read(before, "corr-bonferroni_mask") > 0, read(after, "corr-bonferroni_mask") > 0
    z, inside = read(after, "stat-z_statmap"), read(after, "stat-n_statmap") > 0
    figure, axes = plt.subplots(1, 6, figsize=(9, 2))
    for axis, at in zip(axes, np.linspace(0.25, 0.75, 6) * z.shape[2], strict=True):
        k = int(at)
        shade = np.where(inside[..., k], 0.93, 1.0)
        shade = np.where(once[..., k] & ~kept[..., k], 0.6, shade)
        rgb = np.repeat(shade[..., None], 3, axis=-1)
        rgb[kept[..., k] & (z[..., k] > 0)] = (0.80, 0.25, 0.20)
        rgb[kept[..., k] & (z[..., k] < 0)] = (0.20, 0.40, 0.75)
        axis.imshow(rgb.swapaxes(0, 1), origin="lower", interpolation="nearest")
        axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0)
    figure.savefig(picture, dpi=90)


def read_z(maps: Path, out: Path) -> np.ndarray:
    """Read all studies' z where all cover, (K, V), as the program makes them of t."""
    (path,) = (out / "group").glob("*_desc-stouffer_stat-n_statmap.nii.gz")
    inside = np.asarray(nib.load(path).dataobj) > 0
    sizes = dict(line.split("\t")[:2] for line in (maps / "studies.tsv").read_text().splitlines()[1:])
    rows = []
    for study, size in sorted(sizes.items()):
        (image,) = (maps / study).rglob("*_stat-t_statmap.nii.gz")
        t = np.squeeze(np.asarray(nib.load(image).dataobj, dtype=float))[inside]
        rows.append(np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), int(size) - 1)))
    return np.array(rows)


def groups_of(n_maps: int, *more: tuple[int, ...]) -> list[list[int]]:
    """List the rows of each sample."""
    shared = [[number - 1 for number in group] for group in (*SAMPLES, *more)]
    taken = {row for group in shared for row in group}
    return sorted(shared + [[row] for row in range(n_maps) if row not in taken])


def count_with_correlations(z: np.ndarray) -> tuple[int, float]:
    """Count what Stouffer's z would find that knew how maps of one sample correlate; and the mean correlation."""
    left = z - z.mean(axis=0)
    n_maps = len(z)
    r = (np.corrcoef(left) * (n_maps - 1) + 1) / n_maps  # residuals of independent maps correlate at -1 / (K - 1)
    covariance, inside = np.eye(n_maps), []
    for group in groups_of(n_maps):
        for one in group:
            for other in group:
                if one != other:
                    covariance[one, other] = r[one, other]
                    inside.append(r[one, other])
    combined = z.sum(axis=0) / np.sqrt(covariance.sum())
    return significant(2 * stats.norm.sf(np.abs(combined))), float(np.mean(inside))


def count_of_means(z: np.ndarray, *more: tuple[int, ...]) -> int:
    """Count what a one-sample t test of the samples' mean z finds."""
    means = np.array([z[group].mean(axis=0) for group in groups_of(len(z), *more)])
    return significant(stats.ttest_1samp(means, 0).pvalue)


def significant(p: np.ndarray) -> int:
    """Count what Bonferroni leaves."""
    return int(np.count_nonzero(p <= 0.05 / p.size))


def state_clusters(maps: Path) -> None:
    """Add the column ``cluster`` to studies.tsv."""
    first = {f"study-pain{number:02d}": f"pain{group[0]:02d}" for group in SAMPLES for number in group}
    path = maps / "studies.tsv"
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    told = [f"{row}\t{first.get(row.split()[0], row.split()[0].removeprefix('study-'))}" for row in rows]
    path.write_text("\n".join([f"{header}\tcluster", *told]) + "\n", encoding="utf-8")


def what_is_missing(groups: list[list[str]]) -> str:
    """Say in which way the named groups are not the six that are known."""
    known = {f"pain{number:02d}" for group in SAMPLES for number in group}
    missing = sorted(known - {study for group in groups for study in group})
    return f"{' and '.join(missing)} is missing from its group" if missing else "they are, too"


def subjects_alarm(folder: Path, scratch: Path) -> bool:
    """Return whether subjects who are different people raise an alarm."""
    data = scratch / "subjects"
    lines = ["participant_id\tpath\tkind\tcontrast"]
    for number, image in enumerate(sorted(folder.glob("*.img")), 1):
        lines.append(f"{number:02d}\t{image}\teffect\treappraise")
    (scratch / "subjects.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run(["table", scratch / "subjects.tsv", data, "--space", "MNI152NLin6Asym"])
    said = run([data, scratch / "out-subjects", "group", "--inference", "bonferroni", "--no-report"])
    return ALIKE in said or "more than once" in said


PAGE = """# 21 pain studies that are 11 or 12

Made by `python validation/pain21.py FOLDER --write docs/pain21.md`; do not edit by hand.

Collection 1425 of NeuroVault, 21 studies of pain with their effects and variances, is what methods of image-based
meta-analysis are shown on, ours among them. Its maps are of 11 or 12 samples: studies 1 and 2 are of the same 25
people, 8 to 11 of the same 12. Nothing in the collection says so. A method that takes maps as independent counts these
people up to four times.

## The run

The maps are those of the R package pain21 (CC0); `maps.tsv` has a row for each, with the study's sample size and its
degrees of freedom ([a table of maps](importing-table.md)). Only voxels that all 21 studies cover are analysed here, so
that every number below speaks of the same {voxels:,} voxels.

```bash
ibma-import table maps.tsv maps --space MNI152NLin6Asym
ibma-app maps results group --estimator stouffer stouffer-rfx --inference bonferroni --min-coverage 1
```

The program does not know the samples, but it looks. It compares the fine detail of the maps (what is left of each when
the mean of all and its own smoothing are taken away): broad patterns are alike in all pain studies, and the fine
detail of two maps is alike only where the same people are in both. The terminal, the report and the sidecars
(`LikelySameSample`) then name the studies:

{named}

These are the six groups that are known (17 and 18 may be one more; the maps do not tell). Every run names them,
whatever it combines: z as here, as `--estimator auto` does where units are unknown, standardised effects (`--units
hedges-g`), or effects, one contrast or several of one question (`--pool contrast`). Studies that have effects are
compared by these, because z tells less: of t or z maps alone, without effects, studies 5 and 11 would be missing. A
study that has t alone is compared by z with all others, and these still by their effects: where study 12 lacks its
effect, all six groups are named; where study 5 does, {without}. Whether it raises false alarms was measured [on
simulated collections](validation-same-sample.md).{subjects}

## What it does to the result

| what is combined | `stouffer` | `stouffer-rfx` |
|---|---|---|
| 21 maps, taken as independent | {all_stouffer:,} | {all_rfx:,} |
| one map of each of 12 samples | {one_stouffer:,} | {one_rfx:,} |
| 21 maps, with the correlations of each sample's maps ({r:.2f} on average) | {known_stouffer:,} | |
| 12 samples, each by the mean of its maps (11, if 17 and 18 are one) | | {mean_rfx:,} ({eleven_rfx:,}) |

Voxels that are significant at .05, Bonferroni. The second row is this command:

```bash
ibma-app maps results-12 group --estimator stouffer stouffer-rfx --inference bonferroni --min-coverage 1 \\
    --exclude-study-label pain02 pain04 pain06 pain07 pain09 pain10 pain11 pain16 pain21
```

The last two rows are arithmetic on the same z (`validation/pain21.py`): Stouffer's sum over the square root of the sum
of all correlations of residuals, corrected by -1/20 alone, and a one-sample t test of 12 means. The commands that know
the samples are [below](#with-the-samples-named).

- `stouffer` asks whether there is evidence anywhere, and as independent maps it finds {overstated:.0%} more voxels than
  their correlations allow.
- `stouffer-rfx` asks whether the effect is consistent over studies. Its test takes the scatter between studies as the
  measure of error, and maps of the same people scatter too little: {all_rfx:,} voxels become {mean_rfx:,}.
- Leaving out all but one map of each sample is always right, and costs what the other maps know.

## What to do

Read the warning. Then leave out all but one map of each sample, as above; or state the samples in a column `cluster` of
`maps/studies.tsv` (any label, the same for all maps of one sample), for estimators that take maps which depend on each
other. `ols` then estimates a cluster-robust error ([repeated measures](validation-repeated-measures.md)). It combines
effects, which here have to be standardised:

```bash
ibma-app maps results-g group --units hedges-g --estimator ols --inference bonferroni --min-coverage 1
```

finds {free_ols:,} voxels without the column, and {robust_ols:,} with it ({robust_fdr:,} with `fdr`). The error is then
estimated from 12 samples, some of which have four maps and some one, which leaves 8 degrees of freedom: for Bonferroni
over a whole brain that is little.

## With the samples named

`--dependence cluster` estimates how the maps of each sample are correlated, and takes it into account; `--estimator
multilevel` estimates a variance between samples and one between the maps of one, beside the sampling variances. Both
read the column `cluster`, and with it the warning is silent:

```bash
ibma-app maps results-d group --estimator stouffer --dependence cluster --inference bonferroni --min-coverage 1
ibma-app maps results-m group --units hedges-g --estimator reml multilevel --inference bonferroni fdr --min-coverage 1
```

| significant voxels | as if independent | with the samples |
|---|---|---|
| `stouffer`, Bonferroni | {all_stouffer:,} | {cluster_stouffer:,} |
| Hedges' g, `reml` and `multilevel`, Bonferroni | {reml:,} | {multilevel:,} |
| the same, FDR | {reml_fdr:,} | {multilevel_fdr:,} |

The 21 maps amount to {effective:.1f} independent ones, and two of one sample correlate by up to {largest:.2f} (sidecar
`Dependence`). These correlations are larger than those of the table above: the mean of all maps, which residuals are
taken about, takes part of each sample's own error with it, and where four maps share a sample that is more than
1/20 ([decision 0032](decisions/0032-dependence-of-maps.md)). `multilevel` speaks of other samples, not of these maps:
that is why it finds less, and `stouffer` more.

![Axial slices: what is significant as independent maps, and with the samples named](pain21-samples.png)

Red and blue: significant (Bonferroni, .05) with the samples named. Grey: significant as independent maps only.
"""


def main() -> int:
    """Run everything, write the page, and check its claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=Path)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        maps = scratch / "maps"
        write_table(given.folder.resolve(), scratch / "maps.tsv")
        run(["table", scratch / "maps.tsv", maps, "--space", "MNI152NLin6Asym"])
        same = ["--inference", "bonferroni", "fdr", "--min-coverage", "1", "--no-report"]
        both = ["--estimator", "stouffer", "stouffer-rfx", *same]
        said = run([maps, scratch / "all", "group", *both])
        left_out = [f"pain{number:02d}" for group in SAMPLES for number in group[1:]]
        run([maps, scratch / "one", "group", *both, "--exclude-study-label", *left_out])
        run([maps, scratch / "effect", "group", "--estimator", "ols", "--units", "assume-same", *same])
        standardised = ["group", "--estimator", "ols", "--units", "hedges-g", *same]
        run([maps, scratch / "free", *standardised])
        z = read_z(maps, scratch / "all")
        state_clusters(maps)
        run([maps, scratch / "robust", *standardised])
        told = run([maps, scratch / "named", "group", "--estimator", "stouffer", "--dependence", "cluster", *same])
        levels = ["--estimator", "reml", "multilevel", "--units", "hedges-g"]
        run([maps, scratch / "levels", "group", *levels, *same])
        dependence = read_dependence(scratch / "named")
        if given.write:
            draw(scratch / "all", scratch / "named", given.write.with_name("pain21-samples.png"))
        known, r = count_with_correlations(z)
        alarm = subjects_alarm(given.subjects.resolve(), scratch) if given.subjects else None
        numbers = {
            "voxels": z.shape[1], "known_stouffer": known, "r": r, "mean_rfx": count_of_means(z),
            "eleven_rfx": count_of_means(z, (17, 18)),
            "free_ols": count(scratch / "free", "ols"),
            "robust_fdr": count(scratch / "robust", "ols", "fdr"), "robust_ols": count(scratch / "robust", "ols"),
            "all_stouffer": count(scratch / "all", "stouffer"), "all_rfx": count(scratch / "all", "stoufferRfx"),
            "one_stouffer": count(scratch / "one", "stouffer"), "one_rfx": count(scratch / "one", "stoufferRfx"),
            "cluster_stouffer": count(scratch / "named", "stouffer"), "reml": count(scratch / "levels", "reml"),
            "reml_fdr": count(scratch / "levels", "reml", "fdr"),
            "multilevel": count(scratch / "levels", "multilevel"),
            "multilevel_fdr": count(scratch / "levels", "multilevel", "fdr"),
            "effective": dependence["EffectiveNumberOfMaps"], "largest": dependence["LargestCorrelation"],
        }  # fmt: skip
        found = {what: named(scratch / what) for what in ("all", "effect", "free")}
        found |= named_otherwise(given.folder.resolve(), scratch)
    wanted = [[f"pain{number:02d}" for number in group] for group in SAMPLES]
    none = "" if alarm is None else " The 30\nsubjects of Wager et al. (2008), all different people, raise none."
    page = PAGE.format(
        **numbers, subjects=none, overstated=numbers["all_stouffer"] / known - 1,
        named=as_list(found["all"]), without=what_is_missing(found.pop("pain05 by t")),
    )  # fmt: skip
    if given.write:
        given.write.write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)
    broken = [] if ALIKE in said else ["the terminal names no studies"]
    broken += [f"named in the run {what!r}: {groups}" for what, groups in found.items() if groups != wanted]
    broken += ["samples that are named raise an alarm"] if ALIKE in told else []
    broken += [] if numbers["cluster_stouffer"] < 0.7 * numbers["all_stouffer"] else ["dependence corrects nothing"]
    broken += [] if numbers["multilevel_fdr"] < numbers["reml_fdr"] else ["two levels correct nothing"]
    broken += ["different people raise an alarm"] if alarm else []
    for claim in broken:
        sys.stderr.write(f"claim broken: {claim}\n")
    return 1 if broken else 0


def as_list(groups: list[list[str]]) -> str:
    """Write groups of studies as a list."""
    return "\n".join(f"- {', '.join(group)}" for group in groups)


if __name__ == "__main__":
    raise SystemExit(main())
