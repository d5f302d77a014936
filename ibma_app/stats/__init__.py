"""The numbers: arrays in, arrays out (numpy, scipy, and the only home of numba)."""
