"""Results of SPM."""

from ibma_app.importers.spm.importer import IMPORTER

__all__ = ["IMPORTER"]
