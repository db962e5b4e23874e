"""Scored scans as other programs open them: BIDS derivatives, 3D Slicer scenes, ITK-SNAP workspaces."""
