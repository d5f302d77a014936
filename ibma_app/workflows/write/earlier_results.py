"""Results of other estimators that an earlier run left in OUTPUT_DIR: kept on the page, or named there."""

from dataclasses import replace

import numpy as np

from ibma_app.core.errors import IbmaError, Note, merge_notes
from ibma_app.core.results import Results
from ibma_app.dataset.output_dir import Output
from ibma_app.workflows.write.saved_results import find_records, read_record

OF_REGIONS = ("regions", "values")  # kinds of files


def with_earlier(output: Output, results: Results) -> Results:
    """Add the estimators of an earlier run of the same maps, design and settings; else a note that names them.

    Parameters
    ----------
    output : Output
    results : Results
        A finished group analysis, which is not kept yet.

    Returns
    -------
    Results
        As it was, where the folder has no other estimators of this analysis.
    """
    path = find_records(output.root, "group").get(f"group_{results.analysis.name}")
    if path is None:
        return results
    try:
        earlier = read_record(path, output.root).results
    except IbmaError:
        return results  # files of it are gone
    ours = {one.estimator.name for one in results.estimators}
    others = tuple(one for one in earlier.estimators if one.estimator.name not in ours)
    if not others:
        return results
    names = ", ".join(one.estimator.name for one in others)
    run = path.parent.parent.relative_to(output.root).as_posix()
    if not _is_same(earlier, results):
        text = (
            f"This page shows the estimators of its run only. An earlier run wrote results of {names} with other maps, "
            f"another design or other settings: its maps are in group/, its options and log in {run}/."
        )
        return replace(results, notes=merge_notes((*results.notes, Note(text))))
    text = f"Results of {names} are those of an earlier run of the same maps and settings ({run}/)."
    kept = tuple(replace(one, grid=one.grid or earlier.grid, survey=one.survey or earlier.survey) for one in others)
    if results.regions is not None and results.regions != earlier.regions:  # the table of values is of ours
        kept = tuple(replace(one, files=tuple(f for f in one.files if f.kind not in OF_REGIONS)) for one in kept)
    return replace(
        results,
        estimators=(*results.estimators, *kept),
        notes=merge_notes((*results.notes, Note(text))),
        regions=results.regions or earlier.regions,
    )


def _is_same(earlier: Results, results: Results) -> bool:
    """Whether two analyses are of the same maps, with the same design and settings."""
    one, other = earlier.design, results.design
    return (
        _maps_of(earlier) == _maps_of(results)
        and one.columns == other.columns
        and np.array_equal(one.matrix, other.matrix)
        and [(test.name, test.tail, test.is_f) for test in one.tests]
        == [(test.name, test.tail, test.is_f) for test in other.tests]
        and all(np.array_equal(a.weights, b.weights) for a, b in zip(one.tests, other.tests, strict=True))
        and dict(earlier.settings) == dict(results.settings)
    )


def _maps_of(results: Results) -> list[dict[str, tuple[str, ...]]]:
    """List the files of every map that there was to choose from: estimators read different kinds."""
    return [{kind: one.uris for kind, one in row.statmaps.items()} for row in results.analysis.observations]
