"""Maps on the elements of structures: GIFTI, CIFTI and tables of regions, and the meshes that they lie on."""
