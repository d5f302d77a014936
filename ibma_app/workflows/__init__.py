"""The workflows: what happens, in which order. No other package but `cli` imports them."""
