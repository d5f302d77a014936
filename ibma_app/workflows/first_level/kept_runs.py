"""What the page of a run is made of is kept, and the page made again (``--reports-only``): its maps are read."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.bold_run import RunContrastResult, RunResults
from ibma_app.core.errors import DataError, InputError
from ibma_app.core.labels import contrast_label
from ibma_app.dataset.entities import output_name
from ibma_app.dataset.output_dir import Output
from ibma_app.dataset.write import save_text
from ibma_app.images.read import read_image
from ibma_app.workflows.command.log import software_versions
from ibma_app.workflows.write.records_to_json import decode
from ibma_app.workflows.write.reports import set_matplotlib_folder
from ibma_app.workflows.write.saved_results import ENDING, keep_record, read_document

NOTHING = np.zeros(0)


@dataclass(frozen=True)
class RunPage:
    """A page that was made again: what the index and README need of it."""

    methods: tuple[str, ...]
    references: tuple[str, ...]
    seconds: float


def page_of(results: RunResults) -> str:
    """Name the page of a run, without ending."""
    return f"run_{results.name}"


def as_written(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return values as their map has them: a page from the maps is then the same to the byte."""
    return values.astype(np.float32).astype(np.float64)


def keep_run(output: Output, folder: Path, results: RunResults) -> None:
    """Keep what the page shows in a run's folder (relative to OUTPUT_DIR), less the values of its maps."""
    contrasts = tuple(replace(one, values=NOTHING) for one in results.contrasts)
    bare = replace(results, maps=dict.fromkeys(results.maps, NOTHING), contrasts=contrasts)
    keep_record(output, folder / f"{page_of(results)}{ENDING}", bare)


def write_page(output: Output, results: RunResults, software: Mapping[str, str] | None = None) -> None:
    """Write the page of a run; ``software`` is what computed its numbers (None: the versions that run now)."""
    set_matplotlib_folder(output)
    from ibma_app.report.run_page import write_run_page

    used = software or software_versions()
    write_run_page(results, output.root, lambda path, text: save_text(output, path, text), used["ibma-app"], used)


def rebuild_run_page(output: Output, record: Path) -> RunPage:
    """Make the page of a run again.

    Raises
    ------
    InputError
        The record cannot be used, or a map is gone.
    """
    start = time.perf_counter()
    document = read_document(record)
    try:
        results = decode(document["Results"], RunResults, output.root)
        results = with_maps(results, output.root)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{record} cannot be used: {error}. Run the level again.") from error
    write_page(output, results, document["Software"])
    return RunPage(results.methods, results.references, time.perf_counter() - start)


def with_maps(results: RunResults, root: Path) -> RunResults:
    """Read the values that a page shows from the maps of the run."""
    return replace(
        results,
        maps={kind: _read(results, root, {"stat": kind}) for kind in results.maps},
        contrasts=tuple(replace(one, values=_read(results, root, _entities(one))) for one in results.contrasts),
    )


def _entities(contrast: RunContrastResult) -> dict[str, str]:
    """Name the map that shows a contrast: its effect, or z of an F test."""
    return {"contrast": contrast_label(contrast.name), "stat": "effect" if contrast.signed else "z"}


def _read(results: RunResults, root: Path, entities: Mapping[str, str]) -> NDArray[np.float64]:
    """Read the values of a map in the mask."""
    path = root / folder_of(results.entities) / output_name({**results.entities, **entities}, "statmap")
    image = read_image(path)
    if not results.grid.matches(image.grid):
        raise DataError(f"{path} is not on the grid that its run had. Run the level again.")
    return results.grid.to_vector(image.data).astype(np.float64)


def folder_of(entities: Mapping[str, str]) -> Path:
    """Name the folder of a run's maps: ``sub-01/[ses-1/]func``."""
    folder = Path(f"sub-{entities['sub']}")
    return (folder / f"ses-{entities['ses']}" if "ses" in entities else folder) / "func"
