"""The scores: how unusual a voxel or a scan is, one file each, found by file name."""
