"""What happens, in order: the only room that knows the others."""
