"""Reports: one HTML file per run, orthogonal-plane mosaics and curves; modules are imported by their names."""
