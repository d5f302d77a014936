"""A table of maps or of regions."""

from ibma_app.importers.table.importer import IMPORTER

__all__ = ["IMPORTER"]
