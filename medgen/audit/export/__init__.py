"""A run as one file that others verify."""
