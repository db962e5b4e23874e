"""What a file was made from, and what was made from a scan."""
