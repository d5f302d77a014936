"""Where maps come from: one file for each software, and the table that shows them.

Importing this is light; `find_importer` imports the one file that is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ibma_app.core.errors import UsageError

if TYPE_CHECKING:
    from ibma_app.core.study import Importer

IMPORTERS = ("spm", "fsl", "afni", "nidm", "neurovault", "table")
"""The menu: the record of ``spm`` is ``IMPORTER`` in ``spm.py``."""


def find_importer(name: str) -> "Importer":
    """Return the record of a source of the menu.

    Raises
    ------
    UsageError
        When the menu does not have it.
    """
    if name not in IMPORTERS:
        raise UsageError(f"There is no importer {name!r}; choose from: {', '.join(IMPORTERS)}.")
    record: Importer = import_module(f"ibma_app.importers.{name}").IMPORTER
    return record
