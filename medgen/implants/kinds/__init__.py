"""Kinds of implants, one file each, found by file name; see ``docs/extend/add-an-implant-kind.md``."""
