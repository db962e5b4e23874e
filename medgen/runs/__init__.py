"""What every run has: its folder, its journal and tracking, its outputs with their hashes, its progress."""
