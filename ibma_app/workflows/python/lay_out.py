"""Images and tables of a Python session, laid out as the BIDS dataset that the levels read."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ibma_app.core.errors import UsageError
from ibma_app.core.statmap import CIFTI, KINDS
from ibma_app.images.write import save_nibabel

CONTRAST = "maps"  # the label of maps whose contrast nobody named
LINKED = (*CIFTI, ".nii.gz", ".nii")  # what one file holds; of two endings that fit the first counts

Maps = Mapping[str, Sequence[Any]] | Sequence[Any]


def lay_out(
    folder: Path, maps: Maps, table: Any, level: str, *, space: str | None, metadata: Mapping[str, Any] | None
) -> Path:
    """Make a dataset of maps in a folder.

    Parameters
    ----------
    folder : Path
        An empty folder.
    maps : mapping of str to sequence of images or paths, or sequence
        Kind (``effect``, ``variance``, ``t``, ``z``, ``p``, ``dof``) to one map of each run, subject or study; a
        sequence alone is of effects. Files are linked to, images are written in the precision that they have.
    table : pandas.DataFrame or None
        One row a map, in their order. With a column ``study_id`` the maps are those of studies; ``participant_id``
        names subjects.
    level : {"participant", "group"}
    space : str or None
        The template that the maps lie in.
    metadata : mapping or None
        Sidecar of all maps, e.g. ``{"Units": "percent"}``.

    Returns
    -------
    Path
        The dataset.

    Raises
    ------
    UsageError
        Kinds that do not exist, or as many maps of one kind as of no other.
    """
    kinds: Mapping[str, Sequence[Any]] = maps if isinstance(maps, Mapping) else {"effect": maps}
    count = _count(kinds, table)
    dataset = folder / "maps"
    dataset.mkdir()
    description = {"Name": "Maps of a Python session", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    _write_json(dataset / "dataset_description.json", description)
    if metadata:
        _write_json(dataset / "statmap.json", dict(metadata))
    stems = _stems(table, count, level)
    middle = f"{f'_space-{space}' if space else ''}_contrast-{CONTRAST}"
    for kind, images in kinds.items():
        for stem, image in zip(stems, images, strict=True):
            _place(image, dataset / f"{stem}{middle}_stat-{kind}_statmap")
    if table is not None and level == "group":
        _write_table(dataset, table, stems)
    return dataset


def write_covariates(folder: Path, table: Any) -> Path:
    """Write a DataFrame as the table of a formula."""
    path = folder / "covariates.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


def _count(kinds: Mapping[str, Sequence[Any]], table: Any) -> int:
    """Count the runs, subjects or studies."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise UsageError(f"maps: there is no kind {', '.join(map(repr, unknown))}. Kinds: {', '.join(KINDS)}.")
    counts = {kind: len(images) for kind, images in kinds.items()} | ({} if table is None else {"table": len(table)})
    if len(set(counts.values())) > 1:
        raise UsageError(
            f"maps: {', '.join(f'{count} of {kind}' for kind, count in counts.items())}. Give as many maps of each "
            "kind as the table has rows, in one order."
        )
    return next(iter(counts.values()))


def _stems(table: Any, count: int, level: str) -> list[str]:
    """Name the maps, folder included, without contrast and kind."""
    if level == "participant":
        return [f"sub-1/func/sub-1_run-{number}" for number in range(1, count + 1)]
    columns = () if table is None else tuple(table.columns)
    key, prefix = ("study_id", "study") if "study_id" in columns else ("participant_id", "sub")
    width = len(str(count))
    given = [str(label) for label in table[key]] if key in columns else [f"{n:0{width}}" for n in range(1, count + 1)]
    labels = [label.removeprefix(f"{prefix}-") for label in given]
    return [f"{prefix}-{label}/{prefix}-{label}" for label in labels]


def _write_table(dataset: Path, table: Any, stems: Sequence[str]) -> None:
    """Write the covariates beside the maps, under the names of these."""
    names = [stem.partition("/")[0] for stem in stems]
    of_studies = names[0].startswith("study-")
    key = "study_id" if of_studies else "participant_id"
    named = table.drop(columns=[key], errors="ignore")
    named.insert(0, key, names)
    named.to_csv(dataset / ("studies.tsv" if of_studies else "participants.tsv"), sep="\t", index=False, na_rep="n/a")


def _place(image: Any, stem: Path) -> None:
    """Link to a file, or write an image."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, str | os.PathLike):
        path = Path(os.path.abspath(image))  # noqa: PTH100  keeps the names of links
        ending = next((ending for ending in LINKED if path.name.endswith(ending)), None)
        if ending is None:
            raise UsageError(
                f"{path} is no NIfTI or CIFTI file ({', '.join(LINKED)}). Load a volume, and give the image; other "
                "formats are given as a BIDS folder."
            )
        stem.with_name(stem.name + ending).symlink_to(path)
    else:
        save_nibabel(image, stem.with_name(f"{stem.name}.nii"))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
