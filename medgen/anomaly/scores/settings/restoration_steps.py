"""How long a scan is optimised: read by ``restoration`` and ``regret``."""

from __future__ import annotations

from pydantic import Field

from medgen.config import Config


class RestorationSteps(Config):
    """Setting of scores that optimise.

    Attributes:
        restoration_steps: Gradient steps of scores that optimise an image or a code for each scan, at least 1.
    """

    restoration_steps: int = Field(default=50, ge=1)
