"""The importers: one file or folder for each software, and their menu.

Importing this package is fast; `find_importer` imports the one importer that is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ibma_app.core.errors import UsageError

if TYPE_CHECKING:
    from ibma_app.core.study import Importer

IMPORTERS = ("spm", "fsl", "afni", "nidm", "neurovault", "table")
"""The menu: the record of ``spm`` is ``IMPORTER`` of ``ibma_app.importers.spm``."""


def find_importer(name: str) -> "Importer":
    """Return the record of an importer by its name on the menu.

    Raises
    ------
    UsageError
        When the menu does not have it.
    """
    if name not in IMPORTERS:
        raise UsageError(f"There is no importer {name!r}; choose from: {', '.join(IMPORTERS)}.")
    record: Importer = import_module(f"ibma_app.importers.{name}").IMPORTER
    return record
