"""What an analysis leaves in OUTPUT_DIR."""
