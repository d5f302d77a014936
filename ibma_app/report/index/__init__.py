"""The index of the pages: what each tells of itself, and the page that lists them."""
