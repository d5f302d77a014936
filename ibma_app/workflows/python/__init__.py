"""The levels as Python functions: images, paths or a layout in, images and tables out."""
