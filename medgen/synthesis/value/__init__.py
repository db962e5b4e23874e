"""Whether synthetic scans help: the study, its statistics and its verdict."""
