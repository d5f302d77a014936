"""What command line and source together say of an imported contrast."""

from dataclasses import replace

from ibma_app.core.errors import DatasetError
from ibma_app.core.grid import Grid
from ibma_app.core.study import NATIVE, ImportedContrast, Study
from ibma_app.images.spaces import MNI, is_mni, outside_mni
from ibma_app.workflows.importing.make_maps import turns_z_into_t
from ibma_app.workflows.options.table import ImportOptions


def settle_contrast(
    study: Study, contrast: ImportedContrast, options: ImportOptions, *, is_study: bool
) -> ImportedContrast:
    """Settle what command line and source say of sample size and space, and note what is odd."""
    notes = list(contrast.notes)
    space = options.space or contrast.space
    grid = contrast.grid if isinstance(contrast.grid, Grid) else None  # None: regions of a table lie in no space
    outside = outside_mni(grid) if grid and grid.placed else ""
    if grid and not grid.placed:
        notes.append("The map states no place (its header has neither sform nor qform): its coordinates are a guess.")
    elif grid and is_study and space == "" and not outside:
        space = MNI
        notes.append("The source does not name its space; its box fits MNI space, which is taken (say it by --space).")
    if outside and (is_mni(space) or (is_study and space == "")):
        notes.append(f"The map does not look like one in MNI space: {outside}.")
    if is_study and space == NATIVE:
        raise DatasetError(
            f"{study.source}: {contrast.name} lies in a subject's own (native) space and cannot stand for a study. "
            "Bring it to a template first."
        )
    if not is_study and space == NATIVE:
        notes.append(
            "The maps lie in the subject's own (native) space. Runs combine only where they share it; in FEAT each "
            "run has its own (featregapply brings them to one)."
        )
    if is_study and study.level == "subject":
        notes.append("This is one subject's result (a first level) that stands for a study.")
    if not is_study and study.level == "group":
        notes.append("This is a group's result, imported as a subject's.")
    size = (options.sample_size or contrast.sample_size) if is_study else None
    dof = contrast.dof
    if dof is None and size and size > 1 and turns_z_into_t(contrast):
        n1, n2 = (contrast.columns.get(name) for name in ("n1", "n2"))
        dof = size - (1.0 if n1 is None or n2 is None else 2.0)
        notes.append(f"z is turned into t with {dof:g} degrees of freedom, of its sample size: the source tells none.")
    return replace(contrast, space=space, sample_size=size, dof=dof, notes=tuple(dict.fromkeys(notes)))
