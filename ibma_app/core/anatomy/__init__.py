"""Where values lie other than in a box of voxels: structures and their elements, and the regions of atlases."""
