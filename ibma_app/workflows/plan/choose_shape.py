"""Where the maps of an analysis lie, and which options and inferences go with it."""

from collections.abc import Sequence
from dataclasses import replace

from ibma_app.core.anatomy.elements import Shape, require_grid
from ibma_app.core.errors import UsageError
from ibma_app.core.statmap import Analysis
from ibma_app.inference import inferences_that
from ibma_app.inference.neighbourhood import why_unknown
from ibma_app.stream.grid_and_mask import analysis_grid
from ibma_app.workflows.options.table import Options, file_or_word
from ibma_app.workflows.plan.choose_estimators import Choice, or_

REGIONS = ("",)
"""Units of the sizes of elements that have none: those of tables."""


def choose_shape(analysis: Analysis, options: Options, needs: Sequence[str]) -> tuple[Shape, tuple[str, ...]]:
    """Choose the grid or the structures of an analysis, its mask and its meshes; return it, and notes for the user.

    Parameters
    ----------
    analysis : Analysis
    options : Options
    needs : sequence of str
        What is read of each map.

    Raises
    ------
    DatasetError, DataError, InputError, ReadWriteError, UsageError
        As of `ibma_app.stream.grid_and_mask.analysis_grid`; or options are for grids of voxels alone.
    """
    policies = file_or_word(options.grid), file_or_word(options.mask)
    shape, notes = analysis_grid(analysis, *policies, needs, options.surface or ())
    for flag, given in (("--atlas", options.atlas), ("--regions", options.regions)):
        if given and tuple(given) != ("none",):
            require_grid(shape, f"{flag} {' '.join(given)}")
    return shape, notes


def keep_possible(
    choices: Sequence[Choice], shape: Shape, options: Options
) -> tuple[tuple[Choice, ...], tuple[str, ...]]:
    """Leave out of ``--inference auto`` what asks for neighbours where they are not known; return why, too.

    Raises
    ------
    UsageError
        An inference that was named needs what the shape has not: neighbours, or a grid; or clusters have a least size.
    """
    unknown = _why_no_neighbours(shape)
    for choice in choices:
        for inference in choice.every_inference:
            if inference.needs_smoothness:
                require_grid(shape, f"--inference {inference.name}", _without_theory(alone=bool(unknown)))
    if not unknown:
        return tuple(choices), ()
    if options.min_extent > 1:
        raise UsageError(f"--min-extent {options.min_extent} is a size of clusters. {unknown}")
    named = [one.name for choice in choices for one in choice.every_inference if one.needs_neighbours]
    if any(name in options.inference for name in named):
        raise UsageError(unknown)
    left = f"--inference auto leaves {' and '.join(sorted(set(named)))} out, and " if named else ""
    note = f"{left}no clusters are listed: {unknown}"
    notes = (note[:1].upper() + note[1:],) if shape.units != REGIONS else ()  # of regions there is nothing to do
    return tuple(_without_neighbours(choice) for choice in choices), notes


def _without_theory(*, alone: bool) -> str:
    """Say which inferences resample, and so need no theory of random fields; where alone, without neighbours."""
    able = inferences_that(
        lambda record: bool(record.score) and not record.needs_smoothness and not (alone and record.needs_neighbours)
    )
    return f"Choose one that resamples, and needs no theory of random fields: --inference {or_(able)}."


def _why_no_neighbours(shape: Shape) -> str:
    """Say why it is not known which elements are neighbours, and what to do; "" where it is."""
    regions = f"{shape.words} are regions, of which none is another's neighbour: there are no clusters and no TFCE."
    why = regions if shape.units == REGIONS else "" if shape.box else why_unknown(shape)
    able = inferences_that(lambda record: not record.needs_neighbours and not record.needs_smoothness)
    return f"{why} Without neighbours go: --inference {' '.join(able)}." if why else ""


def _without_neighbours(choice: Choice) -> Choice:
    """Return a choice without the inferences that need neighbours."""
    kept = {
        test: tuple(one for one in inferences if not one.needs_neighbours)
        for test, inferences in choice.inferences.items()
    }
    return replace(choice, inferences=kept)
