"""``ibma-demo``: a small dataset of known truth, and what was recovered."""
