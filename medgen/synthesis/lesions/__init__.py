"""Focal lesions in label maps and scans: found, cut out, varied, and put where lesions occur."""
