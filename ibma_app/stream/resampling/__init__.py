"""Nulls by relabelling: many refits of the same maps."""
