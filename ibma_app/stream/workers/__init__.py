"""Threads, processes and Dask workers, and what the machine allows."""
