"""Packs of results for others: NIDM-Results, NeuroVault, NIMADS. Files in, files out; nothing is sent from here."""
