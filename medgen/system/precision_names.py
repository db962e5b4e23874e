"""Names of number formats in configurations, which can be read without torch; see :mod:`medgen.system.precision`."""

from __future__ import annotations

from typing import Literal

PrecisionName = Literal["auto", "32", "bf16"]
