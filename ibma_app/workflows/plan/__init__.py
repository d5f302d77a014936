"""What is planned before any map is read: inputs, analyses, estimators."""
