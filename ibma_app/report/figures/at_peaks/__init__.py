"""Figures of one voxel: its maps, what the design predicts there, and the test without each map."""
