"""Formulas, covariates and tests become a design (the home of pandas and formulaic)."""
