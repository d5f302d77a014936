"""The run level: preprocessed BOLD becomes statistic maps of each run."""
