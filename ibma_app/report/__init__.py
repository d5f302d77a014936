"""What the reader sees: self-contained pages, figures of maps and designs, methods text."""
