"""The families of models, one file each, found by file name."""
