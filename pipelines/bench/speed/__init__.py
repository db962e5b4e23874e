"""How fast medgen is beside what a user would take instead: contests in one process, and how cost grows with work."""
