"""Configurations of ``medgen augment value``."""
