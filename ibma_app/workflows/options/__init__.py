"""The options: one table, and what reads it."""
