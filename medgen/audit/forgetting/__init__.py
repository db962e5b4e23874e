"""Taking a case out of runs that are finished, in a way that verifies."""
