"""Every error a user can cause; each message says the file, what was found, what was expected and what to do."""

from __future__ import annotations

import errno
from collections.abc import Sequence


class MedgenError(Exception):
    """Base of all errors that are shown to the user as one clear line with exit code 2."""


class DataError(MedgenError):
    """A file or cohort cannot be used: missing, damaged, of the wrong kind, inconsistent."""


class GeometryError(DataError):
    """A grid is not a valid voxel-to-world mapping, or two grids that must agree do not."""


class OutOfDistribution(DataError):
    """A scan as a whole is unlike the scans a model was calibrated on, so that no score of it means anything.

    Attributes:
        reasons: One sentence for each check that failed.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(". ".join(self.reasons))


class ConfigError(MedgenError):
    """A configuration has an unknown key, a wrong type or a value outside its range."""


class ArtifactError(MedgenError):
    """A trained model on disk is incomplete, altered, or of a kind this version cannot read."""


class TrainingError(MedgenError):
    """Training cannot start or go on: no cases, a loss that is not finite, a checkpoint of another run."""


class ResourceError(MedgenError):
    """A run needs more memory or disk than this machine has free."""


class CalibrationError(MedgenError):
    """A calibration target cannot be reached with the number of healthy scans at hand."""


class AuditError(MedgenError):
    """An output does not match the record of the run that made it."""


# What allocators say when they raise a plain RuntimeError; torch's CPU allocator does.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "cannot allocate memory", "out of memory", "bad_alloc")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was wanted and not had, in whatever way a library says so."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in (*_NO_MEMORY, "can't start new thread"))
