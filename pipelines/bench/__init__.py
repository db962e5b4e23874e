"""Benchmarks: medgen beside its peers, with intervals."""
