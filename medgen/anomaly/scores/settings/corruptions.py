"""Which corruptions the self-supervised score learns from: read by ``selfsup``."""

from __future__ import annotations

from pydantic import field_validator

from medgen.config import Config

# Of the functions in medgen.anomaly.scores.corruptions, which needs torch.
NAMES = (
    "offset", "noise", "contrast", "blurred", "sharpened", "radial", "twist", "warped", "jittered", "moved", "foreign",
    "seamless",
)  # fmt: skip
# Left out, so that implants of these kinds can say how good a channel is on what it has not learned.
HELD_BACK = ("contrast", "sharpened", "twist")
DEFAULT = tuple(name for name in NAMES if name not in HELD_BACK)


class Corruptions(Config):
    """Setting of the score that learns to tell corrupted tissue.

    Attributes:
        corruptions: Kinds of corruption that the self-supervised score learns from, see
            :mod:`medgen.anomaly.scores.corruptions`; leave some out to see how it does on what it has not learned.
    """

    corruptions: tuple[str, ...] = DEFAULT

    @field_validator("corruptions")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(kinds) - set(NAMES))
        if unknown or not kinds:
            raise ValueError(f"expected some of {', '.join(NAMES)}, found {', '.join(unknown) or 'none'}")
        return kinds
