"""Kinds of artefacts of whole scans, one file each, found by file name; see ``docs/extend/add-an-artefact.md``."""
