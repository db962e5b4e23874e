"""How cohorts lie on disk, and how each layout is recognised and read."""
