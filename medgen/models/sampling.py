"""What is chosen when a trained model samples, and not when it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from medgen.config import Config, parse_config

# Options of one thing, or of several in groups.
Options = Config
T = TypeVar("T", bound=Options)


class SamplingConfig(Config):
    """Options of sampling: none. What has some derives from it; the same weights serve with any.

    Attributes:
        formerly: Names that options had among the settings of models, in artifacts of earlier versions.
    """

    formerly: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def of(cls, settings: Config) -> Self:
        """The options among settings that have these keys and others."""
        return cls.model_validate({key: getattr(settings, key) for key in cls.model_fields})


class GaussianSampling(SamplingConfig):
    """Options of a model whose samples are drawn from a Gaussian of codes.

    >>> torch.tensor([-3.0, 0.0, 3.0]).equal(GaussianSampling().shaped(torch.tensor([-3.0, 0.0, 3.0])))
    True
    >>> [round(float(code), 2) for code in GaussianSampling(limit=1).shaped(torch.tensor([-3.0, 0.0, 3.0]))]
    [-1.0, 0.0, 1.0]

    Attributes:
        temperature: Factor on the standard deviation of the codes that are drawn; below 1 samples are more typical and
            less diverse (Kingma and Dhariwal, "Glow", NeurIPS 2018).
        limit: Standard deviations that no number of a code is drawn beyond, before the temperature; 0 is no limit
            (the truncation trick of Brock et al., "BigGAN", ICLR 2019).
    """

    temperature: float = Field(default=1.0, gt=0, le=10)
    limit: float = Field(default=0.0, ge=0, le=10)

    def shaped(self, draws: Tensor) -> Tensor:
        """Standard normal draws of any shape as these options want them.

        Draws from a truncated normal distribution are the same quantiles of it, so that every option makes of one seed
        variations of one scan.
        """
        if self.limit:
            edge = torch.special.ndtr(torch.tensor(self.limit, dtype=torch.float64, device=draws.device))
            share = (1 - edge) + (2 * edge - 1) * torch.special.ndtr(draws.double())
            draws = torch.special.ndtri(share).to(draws.dtype)
        return draws if self.temperature == 1 else self.temperature * draws


def overridden(current: T, given: Mapping[str, Any], source: str) -> T:
    """Options with some of them chosen anew; those of groups that are not given stay as they are.

    >>> overridden(GaussianSampling(limit=2), {"temperature": 0.5}, "sampling")
    GaussianSampling(temperature=0.5, limit=2.0)

    Raises:
        ConfigError: If an option does not exist or has a wrong value; ``source`` begins the message.
    """
    chosen = parse_config(type(current), given, source=source).model_dump(exclude_unset=True)
    return type(current).model_validate(_merged(current.model_dump(), chosen))


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """``other`` over ``one``, group by group."""
    both = {key: _merged(one[key], value) if isinstance(value, Mapping) else value for key, value in other.items()}
    return {**one, **both}
