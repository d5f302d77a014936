"""Methods text on regions: the atlases that name peaks, and the regions that are tested as a whole."""

from ibma_app.core.anatomy.atlas import AtlasSource, RegionSet
from ibma_app.core.methods import Citation
from ibma_app.core.results import Results
from ibma_app.report.text.significance import and_


def naming_paragraph(results: Results) -> str:
    """Name the atlases that peaks and clusters are named by; empty where there are none."""
    if not results.atlases or not any(result.findings for result in results.estimators):
        return ""
    names = and_(atlas.name for atlas in results.atlases)
    noun = "atlas" if len(results.atlases) == 1 else "atlases"
    return f"Peaks and clusters were named by the {noun} {names}."


def naming_citations(results: Results) -> tuple[Citation, ...]:
    """List what that paragraph cites."""
    return tuple(atlas.citation for atlas in results.atlases if atlas.citation)


def tests_paragraph(results: Results) -> str:
    """Say how regions were tested as a whole (``--regions``); empty where none were."""
    if results.regions is None:
        return ""
    sets = results.regions.sets
    needs = {need for result in results.estimators for need in result.estimator.needs}
    weighted = [one.source.name for one in sets if one.weighted]
    by = f" (weighted by the probabilities of {and_(weighted)})" if weighted else ""
    half = "half of a region, by weight," if weighted else "half of a region"
    total = sum(one.n_regions for one in sets)
    test = "a test" if len(results.design.tests) == 1 else "each test"
    parts = [
        f"Beside voxels, {and_(_phrase(one) for one in sets)} {'was' if total == 1 else 'were'} tested as a whole, by "
        "the same estimators, design and tests. The value of a map in a region was its mean over the voxels of the "
        f"region that it covers{by}; a map that covers less than {half} had none there.",
        "The sampling variance of such a mean was taken to be the mean of the variances of its voxels, the most that "
        "it can be, as the correlation of their errors is not known: tests by these variances are conservative, and "
        "estimates of heterogeneity too small."
        if "variance" in needs
        else "",
        "The variance of a mean z under the null was taken to be at most 1." if "z" in needs else "",
        f"p values of {test} were corrected over all {total} regions for the family-wise error rate (Holm 1979) and "
        "the false discovery rate (Benjamini and Hochberg 1995)."
        if total > 1
        else "",
        "Intervals are of 95 %, each for one region.",
    ]
    return " ".join(part for part in parts if part)


def tests_citations(results: Results) -> tuple[Citation, ...]:
    """List what that paragraph cites."""
    if results.regions is None:
        return ()
    sets = results.regions.sets
    corrected = results.regions.citations if sum(one.n_regions for one in sets) > 1 else ()
    return (*(one.source.citation for one in sets if one.source.citation), *corrected)


def atlases_of(results: Results) -> tuple[AtlasSource, ...]:
    """List the atlases of an analysis, those that name and those that are tested, each once."""
    tested = (one.source for one in results.regions.sets) if results.regions else ()
    return tuple({atlas.name: atlas for atlas in (*results.atlases, *tested)}.values())


def _phrase(one: RegionSet) -> str:
    if one.n_regions == 1:
        return f"the region {one.source.name}"
    return f"the {one.n_regions} regions of {one.source.name}"
