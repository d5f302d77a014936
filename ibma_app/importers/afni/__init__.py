"""Results of AFNI."""

from ibma_app.importers.afni.importer import IMPORTER

__all__ = ["IMPORTER"]
