"""What the pages show as pictures."""
