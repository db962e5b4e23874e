"""Sections of the anomaly reports."""
