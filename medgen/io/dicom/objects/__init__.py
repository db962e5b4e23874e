"""DICOM objects made of a scored series: segmentation, parametric map, secondary capture, structured report."""
