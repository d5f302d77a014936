"""Names of regions in the cluster tables of a finished analysis, by other atlases."""

import csv
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ibma_app.core.atlas import Atlas
from ibma_app.core.errors import DataError
from ibma_app.core.results import Results
from ibma_app.dataset.output_dir import Output
from ibma_app.dataset.write import save_json, save_tsv
from ibma_app.inference.regions import name_regions, region_columns

REGION = "region"  # how columns of regions begin


def rename_regions(output: Output, results: Results, atlases: Sequence[Atlas]) -> None:
    """Write the cluster tables of an analysis anew, with the regions of these atlases instead of those they have.

    Raises
    ------
    DataError
        A table or its sidecar is not as this program writes it.
    ReadWriteError, OutputError
        A table cannot be written.
    """
    for file in (file for result in results.estimators for file in result.files if file.kind == "clusters"):
        sidecar = file.path.with_suffix(".json")
        try:
            with file.path.open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream, delimiter="\t"))
            head = file.path.read_text(encoding="utf-8").partition("\n")[0].split("\t")
            places = [tuple(float(row[axis]) for axis in "xyz") for row in rows]
            content: Mapping[str, Any] = json.loads(sidecar.read_bytes())
            at = next(index for index, name in enumerate(head) if name.startswith(REGION))
            described = next(value for key, value in content.items() if key.startswith(REGION))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration):
            raise DataError(
                f"{file.path} (or its sidecar) is not as ibma-app wrote it, so its peaks cannot be given regions. Run "
                "the analysis again, with the atlas."
            ) from None
        columns = region_columns(atlases)
        for column, atlas in zip(columns, atlases, strict=True):
            for row, region in zip(rows, name_regions(atlas, places), strict=True):
                row[column] = region
        others = [name for name in head if not name.startswith(REGION)]
        below = file.path.relative_to(output.root)
        save_tsv(output, below, [*others[:at], *columns, *others[at:]], rows)
        save_json(output, below.with_suffix(".json"), _describe(content, dict.fromkeys(columns, described), atlases))


def _describe(content: Mapping[str, Any], columns: Mapping[str, Any], atlases: Sequence[Atlas]) -> dict[str, Any]:
    """Make the table's sidecar: its columns of regions are these, in the place of the former ones."""
    described: dict[str, Any] = {}
    for key, value in content.items():
        described |= columns if key.startswith(REGION) else {key: value}
    return described | {"Atlas": [atlas.name for atlas in atlases]}
