"""What an analysis writes into OUTPUT_DIR."""
