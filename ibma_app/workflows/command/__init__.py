"""What all commands share: log, resources, terminal, compiled kernels."""
