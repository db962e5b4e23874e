"""Whether a generator has memorised its patients."""
