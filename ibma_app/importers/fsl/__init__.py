"""Results of FSL: FEAT and gFEAT folders."""

from ibma_app.importers.fsl.importer import IMPORTER

__all__ = ["IMPORTER"]
