"""The scores: how unusual a voxel or a scan is, one file for each kind."""
