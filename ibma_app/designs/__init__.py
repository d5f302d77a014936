"""Designs, made of formulas, covariates and tests (by pandas and formulaic)."""
