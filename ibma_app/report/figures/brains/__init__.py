"""Maps on the brain: slices, projections, the cortex; `plans` chooses by what a map lies on."""
