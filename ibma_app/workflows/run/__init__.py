"""What runs share: log, resources, terminal."""
