"""NIDM-Results packs."""

from ibma_app.importers.nidm.importer import IMPORTER

__all__ = ["IMPORTER"]
