"""The options: their table, the parsers, and the Boutiques descriptor."""
