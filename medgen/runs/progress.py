"""The progress of a run, as :mod:`medgen.progress` shows it."""

from medgen.progress import Tick, bars

__all__ = ["Tick", "bars"]
