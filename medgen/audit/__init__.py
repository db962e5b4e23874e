"""Outputs verified, made again, and searched for leaks."""
