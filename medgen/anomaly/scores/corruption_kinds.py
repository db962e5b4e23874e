"""Names of the corruptions of :mod:`medgen.anomaly.scores.corruptions`, so that settings are read without torch."""

from __future__ import annotations

NAMES = (
    "offset", "noise", "contrast", "blurred", "sharpened", "radial", "twist", "warped", "jittered", "moved", "foreign",
    "seamless",
)  # fmt: skip
# Left out, so that implants of these kinds can say how good a channel is on what it has not learned.
HELD_BACK = ("contrast", "sharpened", "twist")
DEFAULT = tuple(name for name in NAMES if name not in HELD_BACK)
