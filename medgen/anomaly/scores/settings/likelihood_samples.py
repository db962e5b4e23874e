"""How many samples a likelihood is estimated from: read by ``iwae`` and ``multireconstruction``."""

from __future__ import annotations

from pydantic import Field

from medgen.config import Config


class LikelihoodSamples(Config):
    """Setting of scores that draw codes.

    Attributes:
        likelihood_samples: Samples of the importance-weighted likelihood bound, at least 1.
    """

    likelihood_samples: int = Field(default=16, ge=1)
