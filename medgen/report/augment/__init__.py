"""Sections of the reports on synthetic scans."""
