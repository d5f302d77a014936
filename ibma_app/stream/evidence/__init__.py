"""What maps say at peaks and in regions."""
