"""Atlases from files: a volume of labels and a table of their names."""

import csv
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.errors import DataError, IbmaError, InputError, UsageError
from ibma_app.core.from_files import number_in, read_text
from ibma_app.core.system.folders import home_folder
from ibma_app.images.read import Image, read_header, read_image

log = logging.getLogger(__name__)

KEYS = ("labels", "names")
LARGEST = 2**31 - 1  # label
BACKGROUND = ("background", "unknown", "n/a", "")  # names of no region
AT_HAND = ("atlas-Schaefer2018_desc-400Parcels7Networks", "atlas-Schaefer2018_desc-400Parcels17Networks")


def read_atlases(tables: Mapping[str, Any], folder: Path) -> tuple[Atlas, ...]:
    """Read the configuration's ``[atlas.NAME]`` tables.

    Parameters
    ----------
    tables : mapping
        NAME -> {"labels": path, "names": path}.
    folder : Path
        What relative paths are relative to: the configuration's folder.

    Raises
    ------
    UsageError
        A table without ``labels``, or with other keys.
    InputError, ReadWriteError, DataError
        As `read_atlas`.
    """
    return tuple(_read_table(name, table, folder) for name, table in tables.items())


def _read_table(name: str, table: object, folder: Path) -> Atlas:
    """Read one table of the configuration."""
    menu = "labels = an image, names = a table with the columns index and name"
    if not isinstance(table, Mapping) or not isinstance(table.get("labels"), str):
        raise UsageError(f"[atlas.{name}] in the configuration does not name its labels. It takes: {menu}.")
    wrong = [key for key in table if key not in KEYS]
    if wrong:
        raise UsageError(f"[atlas.{name}] in the configuration has no setting {wrong[0]!r}. It takes: {menu}.")
    names = table.get("names")
    return read_atlas(name, folder / table["labels"], None if names is None else folder / str(names))


def read_atlas(name: str, labels: Path, names: Path | None = None) -> Atlas:
    """Read an atlas: one volume of labels, or a volume of probabilities for each region, and their names.

    Parameters
    ----------
    name : str
        What it is called in columns and messages.
    labels : Path
        An image of labels (BIDS ``dseg``), 0 where there is no region; or one
        volume for each region (BIDS ``probseg``), of which the most probable
        counts. The content decides: some label images are called ``probseg``.
    names : Path, optional
        TSV or CSV with the columns ``index`` (the label, or the number of the
        volume from 1 on) and ``name``. Default: the table beside the image, if
        there is one.

    Raises
    ------
    InputError, ReadWriteError
        Files that cannot be read.
    DataError
        Values that are neither labels nor probabilities, a header that states
        no place, a table without these columns.
    """
    regions = names_for(name, labels, names)
    count = read_header(labels).n_volumes
    if count > 1:
        largest, probability, affine = _read_probabilities(name, labels, count)
        return Atlas(name, largest, affine, regions, probability)
    return Atlas(name, *read_labels(name, labels), regions)


def names_for(name: str, labels: Path, names: Path | None = None) -> dict[int, str]:
    """Read the names of an atlas' regions from a table, by default the one beside the image; none where there is none.

    Raises
    ------
    InputError, DataError
        As `read_atlas`.
    """
    if names is None:
        beside = labels.with_name(f"{_stem(labels)}.tsv")
        names = beside if beside.is_file() else None
    return {} if names is None else _read_names(name, names)


def read_labels(name: str, path: Path) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Read one volume of labels, and its affine.

    Raises
    ------
    ReadWriteError
        It cannot be read.
    DataError
        As `read_atlas`.
    """
    image = read_image(path)
    values = np.where(np.isfinite(image.data), image.data, 0.0)
    whole = np.rint(values)
    if np.abs(values - whole).max() > 1e-3 or whole.min() < 0 or whole.max() > LARGEST:
        raise DataError(
            f"Atlas {name}: {path} holds values that are no labels (whole numbers from 0 on). Give a label image "
            "(dseg), or a volume of probabilities for each region; not intensities."
        )
    _require_place(name, path, image)
    return whole.astype(np.int32), image.grid.affine


def _require_place(name: str, path: Path, image: Image) -> None:
    """Refuse an image that does not say where it lies."""
    if not image.grid.placed:
        raise DataError(
            f"Atlas {name}: {path} states no place (neither sform nor qform in the header), so its regions cannot be "
            "found. Copy the header of an image whose place is known (FSL: fslcpgeom)."
        )


def _read_probabilities(
    name: str, path: Path, count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float64]]:
    """Read a volume of probabilities for each region: which is largest, how large, and the affine.

    The labels are the volumes' numbers, from 1 on. Probabilities may be
    proportions or percent.
    """
    image = read_image(path, 0)
    largest = np.zeros(image.data.shape, dtype=np.float32)
    labels = np.zeros(image.data.shape, dtype=np.int32)
    for index, values in enumerate(read_probabilities(name, path, count)):
        more = values > largest
        largest[more], labels[more] = values[more], index + 1
    if not labels.any():
        raise DataError(
            f"Atlas {name}: the {count} volumes of {path} are empty. An atlas has a volume for each region."
        )
    scale = 100.0 if largest.max() > 1.0 else 1.0
    return labels, (largest / scale).astype(np.float32), image.grid.affine


def read_probabilities(name: str, path: Path, count: int) -> Iterator[NDArray[np.float32]]:
    """Read a volume of probabilities for each region, one after the other: proportions or percent, as they are.

    Raises
    ------
    ReadWriteError
        It cannot be read.
    DataError
        Values that are no probabilities, a header that states no place.
    """
    for index in range(count):
        image = read_image(path, index)
        _require_place(name, path, image)
        values = np.nan_to_num(image.data.astype(np.float32), posinf=np.inf)
        if values.min() < 0 or values.max() > 100:
            raise DataError(
                f"Atlas {name}: volume {index + 1} of {path} has values from {values.min():.3g} to {values.max():.3g}. "
                "An atlas is one volume of labels, or a volume of probabilities (0 to 1, or 0 to 100) for each region."
            )
        yield values


def _stem(path: Path) -> str:
    """Return a file's name without ``.nii.gz`` and the like."""
    return path.name.removesuffix(".gz").rpartition(".")[0]


def _read_names(name: str, path: Path) -> dict[int, str]:
    """Read the names of regions; those of no region are left out."""
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise InputError(f"Atlas {name}: {path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise DataError(f"Atlas {name}: {path} is not text in UTF-8.") from None
    except ValueError as error:
        raise DataError(f"Atlas {name}: {path} is no table of names: {error}.") from None
    header = lines[0] if lines else ""
    try:
        rows = list(csv.reader(lines, delimiter="\t" if "\t" in header else ","))
    except csv.Error as error:
        raise DataError(f"Atlas {name}: {path} is no table of names: {error}.") from None
    columns = [column.strip().lower() for column in rows[0]] if rows else []
    if "index" not in columns or "name" not in columns:
        found = ", ".join(columns) or "none"
        raise DataError(f"Atlas {name}: {path} needs the columns index and name; its columns: {found}.")
    return dict(_names_of(rows[1:], columns.index("index"), columns.index("name"), f"Atlas {name}: {path}"))


def _names_of(rows: Sequence[Sequence[str]], index: int, column: int, place: str) -> Sequence[tuple[int, str]]:
    """Turn a table's rows into labels and names."""
    found = []
    for line, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        number = number_in(row[index]) if len(row) > max(index, column) else None
        if number is None:
            raise DataError(f"{place}: line {line} has no whole number as its index, or no name.")
        label, region = int(number), " ".join(row[column].split())
        if label and region.lower() not in BACKGROUND:
            found.append((label, region))
    return found


def atlas_at_hand(space: str | None) -> Atlas | None:
    """Return an atlas of a space that TemplateFlow has on this machine already, or None.

    Files are looked up, nothing is fetched and TemplateFlow is not asked: its
    import writes to its home, and it lists files it has not got (0 bytes).
    """
    if not space:
        return None
    named, home = os.environ.get("TEMPLATEFLOW_HOME"), home_folder()
    if not named and home is None:
        return None
    folder = (Path(named) if named else Path(str(home)) / ".cache" / "templateflow") / f"tpl-{space}"
    for entities in AT_HAND:
        label, _, rest = entities.partition("_")
        for resolution in ("02", "01"):
            labels = folder / f"tpl-{space}_res-{resolution}_{entities}_dseg.nii.gz"
            names = folder / f"tpl-{space}_{entities}_dseg.tsv"
            if not all(_is_filled(path) for path in (labels, names)):
                continue
            try:
                return read_atlas(label.removeprefix("atlas-") + rest.removeprefix("desc-"), labels, names)
            except IbmaError as error:  # nobody asked for it
                log.warning("An atlas of this machine is not used, so peaks have no regions: %s", error.message)
    return None


def _is_filled(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:  # the folder cannot be read
        return False
