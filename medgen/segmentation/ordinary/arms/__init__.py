"""Ordinary arms, one file each, found by file name and imported only when asked for.

To add one, put ``<name>.py`` here with a sentence ``SOURCE`` (what it does, and where it was published), a flag
``NEEDS_UNLABELLED``, and ``recipe(setting)``, which returns a :class:`medgen.segmentation.recipe.Recipe`.
"""
