"""Which maps, which analyses, which estimators: before any map is read."""
