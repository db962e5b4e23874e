"""What healthy scans score at each place, by how much they vary, and how both depend on age, sex and scanner."""
