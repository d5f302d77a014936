"""What a machine gives to a program: folders, standard streams, threads."""
