"""BIDS in and out: which maps there are, what their names and sidecars say, and what we write."""
