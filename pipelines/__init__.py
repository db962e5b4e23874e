"""Compositions of the library into the runs a user starts; each file reads like the method section of a paper."""
