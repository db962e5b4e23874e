"""Synthetic scans in a training script of one's own."""
