"""``CHECK.md``: what is missing, what each service will say, and what may identify people."""

from collections.abc import Iterable, Iterator, Sequence

from ibma_app.publishing.about import TEXTS, About
from ibma_app.publishing.neurovault import VaultImage
from ibma_app.publishing.selected import Selected

NAMED = 6  # tests or files that a line names
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
        says = [(str(image.fields["file"]), text) for image in images for text in image.says]
        lines += ["", "## NeuroVault will say", "", *_listed(_together((*says, *_of_neurovault(selected))))]
    if "nidm" in kinds:
        lines += ["", "## Readers of NIDM-Results will see", "", *_listed(_together(_of_nidm(selected)))]
    if "nimads" in kinds:
        lines += ["", "## NiMARE and Neurosynth Compose will see", "", *_listed(_together(_of_nimads(selected)))]
    lines += ["", "## What may identify people", "", *_listed(_together(_personal(selected)))]
    return "\n".join(lines) + "\n"


def _listed(texts: Iterator[str]) -> list[str]:
    """Write a list, or that there is nothing."""
    found = list(dict.fromkeys(texts))
    return [f"- {text}" for text in found] or ["Nothing."]


def list_blanks(about: About) -> list[str]:
    """List what a collection needs and its authors have not said, by the keys of about.toml."""
    return [key for key in (*NEEDED, "authors") if not getattr(about, key)]


def _together(remarks: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Write each text once, after the names of all that it is about."""
    about: dict[str, list[str]] = {}
    for name, text in remarks:
        about.setdefault(text, []).append(name)
    for text, names in about.items():
        distinct = list(dict.fromkeys(names))
        more = f" and {len(distinct) - NAMED} more" if len(distinct) > NAMED else ""
        yield f"{', '.join(distinct[:NAMED])}{more}: {text}"


def _missing(about: About, selected: Sequence[Selected]) -> Iterator[str]:
    for key in list_blanks(about):
        yield f"{key} ({TEXTS[key]}): give it in about.toml." if key in TEXTS else f"{key}: give them in about.toml."
    if not about.doi:
        yield "doi: NeuroVault keeps a collection without one private; add it when the paper is out."
    without = [
        (one.name, "no inference was run, so the pack has no excursion set, clusters and peaks.")
        for one in selected
        if one.finding is None
    ]
    yield from _together(without)


def _of_neurovault(selected: Sequence[Selected]) -> Iterator[tuple[str, str]]:
    """Say what its one number of degrees of freedom leaves out."""
    for one in selected:
        if one.dof_range is not None:
            yield (
                one.name,
                (
                    "degrees of freedom differ from voxel to voxel; its one number (statistic_parameters) is their "
                    "median, the description has their range."
                ),
            )
        if one.test.is_f and one.path("F") is not None:
            yield (
                one.name,
                (
                    "its one number of degrees of freedom (statistic_parameters) is that of F's denominator; the "
                    "description has both."
                ),
            )


def _of_nidm(selected: Sequence[Selected]) -> Iterator[tuple[str, str]]:
    for one in selected:
        if one.path("effect") is None:
            yield one.name, f"the estimator ({one.estimator.estimator.name}) or the F test has no effect with a sign."
        elif one.path("variance") is None:
            yield one.name, f"no standard error, as the estimator ({one.estimator.estimator.name}) gives none."
        if one.results.design.matrix.shape[1] > 1:
            yield one.name, "the grand mean map is the effect of the test; the mean over all maps is not kept."


def _of_nimads(selected: Sequence[Selected]) -> Iterator[tuple[str, str]]:
    for one in selected:
        if one.test.is_f and one.unit == "subject":
            yield one.name, "an F test has no direction, so it has no images, only peaks."
        if one.unit == "study" and one.n_subjects is None:
            yield one.results.analysis.name, "studies without sample size cannot be weighted by it."
        if not one.peaks and one.unit == "subject":
            yield one.name, "no significant peaks, so coordinate-based analyses find nothing in it."


def _personal(selected: Sequence[Selected]) -> Iterator[tuple[str, str]]:
    for one in selected:
        design, maps = one.results.design, len(one.results.analysis.observations)
        if one.unit == "subject" and design.matrix.shape[1] > 1:
            who = (
                "each participant"
                if maps == one.n_subjects
                else f"each of {maps} maps of {one.n_subjects} participants"
            )
            yield (
                one.results.analysis.name,
                (
                    f"the design matrix (in the NIDM packs) has a row for {who}: {', '.join(design.columns)}. Ages, "
                    "scores or groups of few people may identify them."
                ),
            )
        if one.unit == "subject" and (one.n_subjects or 0) < 5:
            yield one.results.analysis.name, f"the maps are of {one.n_subjects} people."
