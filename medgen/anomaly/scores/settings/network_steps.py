"""How long the self-supervised network is trained: read by ``selfsup_network``."""

from __future__ import annotations

from pydantic import Field

from medgen.config import Config


class NetworkSteps(Config):
    """Setting of the score that trains a network of its own in every fold.

    Attributes:
        network_steps: Optimiser steps of the self-supervised network, at least 1; a step sees two cubes of a
            corrupted scan.
    """

    network_steps: int = Field(default=400, ge=1)
