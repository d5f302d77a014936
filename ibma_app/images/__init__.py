"""Images: reading, writing, regridding, spaces, masks and atlases."""
