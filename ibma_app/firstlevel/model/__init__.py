"""BIDS Stats Models: read, checked, and turned into the model of a run and the options of the other levels."""
