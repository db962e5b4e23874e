"""Settings that scores read by name, one file each, found by file name and free of torch: keys of ``anomaly``."""
