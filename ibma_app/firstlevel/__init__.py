"""The run level: from preprocessed BOLD and events to effect maps of each run."""
