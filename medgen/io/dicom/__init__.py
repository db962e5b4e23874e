"""DICOM series: which files belong together, what their headers say, their pixels, and the grid they make."""
