"""Focal lesions made, moved and painted into real scans."""
