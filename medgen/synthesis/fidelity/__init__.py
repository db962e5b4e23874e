"""How like real scans synthetic ones are."""
