"""Findings: the peaks of a heatmap that stand apart, how many of them are false, and what is told of each."""
