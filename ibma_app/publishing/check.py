"""``CHECK.md``: what is missing, what each service will say, and what may identify people."""

from collections.abc import Iterator, Sequence

from ibma_app.publishing.about import TEXTS, About
from ibma_app.publishing.neurovault import VaultImage
from ibma_app.publishing.selected import Selected

NEEDED = ("title", "description", "task", "cognitive_atlas_task", "licence")


def write_check(about: About, selected: Sequence[Selected], images: Sequence[VaultImage], kinds: Sequence[str]) -> str:
    """Write the page that is read before anything is given away.

    Parameters
    ----------
    about : About
    selected : sequence of Selected
    images : sequence of VaultImage
        Of the NeuroVault folder; empty where none is made.
    kinds : sequence of str
        What is made.
    """
    lines = ["# Before you publish", "", "## Missing", "", *_listed(_missing(about, selected))]
    if "neurovault" in kinds:
        says = (f"{image.fields['file']}: {text}" for image in images for text in image.says)
        lines += ["", "## NeuroVault will say", "", *_listed(says)]
    if "nidm" in kinds:
        lines += ["", "## Readers of NIDM-Results will see", "", *_listed(_of_nidm(selected))]
    if "nimads" in kinds:
        lines += ["", "## NiMARE and Neurosynth Compose will see", "", *_listed(_of_nimads(selected))]
    lines += ["", "## What may identify people", "", *_listed(_personal(selected))]
    return "\n".join(lines) + "\n"


def _listed(texts: Iterator[str]) -> list[str]:
    """Write a list, or that there is nothing."""
    found = list(dict.fromkeys(texts))
    return [f"- {text}" for text in found] or ["Nothing."]


def list_blanks(about: About) -> list[str]:
    """List what a collection needs and its authors have not said, by the keys of about.toml."""
    return [key for key in (*NEEDED, "authors") if not getattr(about, key)]


def _missing(about: About, selected: Sequence[Selected]) -> Iterator[str]:
    for key in list_blanks(about):
        yield f"{key} ({TEXTS[key]}): give it in about.toml." if key in TEXTS else f"{key}: give them in about.toml."
    if not about.doi:
        yield "doi: NeuroVault keeps a collection without one private; add it when the paper is out."
    for one in selected:
        if one.finding is None:
            yield f"{one.name}: no inference was run, so the pack has no excursion set, clusters and peaks."


def _of_nidm(selected: Sequence[Selected]) -> Iterator[str]:
    for one in selected:
        if one.path("effect") is None:
            yield f"{one.name}: the estimator ({one.estimator.estimator.name}) or the F test has no effect with a sign."
        elif one.path("variance") is None:
            yield f"{one.name}: no standard error, as the estimator ({one.estimator.estimator.name}) gives none."
        if one.results.design.matrix.shape[1] > 1:
            yield f"{one.name}: the grand mean map is the effect of the test; the mean over all maps is not kept."


def _of_nimads(selected: Sequence[Selected]) -> Iterator[str]:
    for one in selected:
        if one.test.is_f and one.unit == "subject":
            yield f"{one.name}: an F test has no direction, so it has no images, only peaks."
        if one.unit == "study" and one.n_subjects is None:
            yield f"{one.results.analysis.name}: studies without sample size cannot be weighted by it."
        if not one.peaks and one.unit == "subject":
            yield f"{one.name}: no significant peaks, so coordinate-based analyses find nothing in it."


def _personal(selected: Sequence[Selected]) -> Iterator[str]:
    for one in selected:
        design = one.results.design
        if one.unit == "subject" and design.matrix.shape[1] > 1:
            yield (
                f"{one.name}: the design matrix (in the NIDM pack) has a row for each participant: "
                f"{', '.join(design.columns)}. Ages, scores or groups of few people may identify them."
            )
        if one.unit == "subject" and (one.n_subjects or 0) < 5:
            yield f"{one.name}: the maps are of {one.n_subjects} people."
