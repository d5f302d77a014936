"""Collections of NeuroVault."""

from ibma_app.importers.neurovault.importer import IMPORTER

__all__ = ["IMPORTER"]
