"""A model out of its file: the format, the nodes and what each level can do; what is wrong is said with its path."""
