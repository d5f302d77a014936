"""``ibma-import``: results of other software as a BIDS dataset."""
