"""The report: self-contained pages, figures of maps and designs, methods text."""
