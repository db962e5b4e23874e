"""The text for the methods section of a paper, ``methods.md``: sentences from the settings and results of a run."""
