"""Measures of segmentations, of anomaly scores, and of how sure one can be of them."""
