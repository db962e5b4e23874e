"""Wasserstein GAN with gradient penalty: the plain GAN of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from medgen.models.stages import Phase
from medgen.models.wasserstein import WassersteinModel, WassersteinSettings

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch


class WganGpSettings(WassersteinSettings):
    """Settings of :class:`WganGp`."""

    family: Literal["wgan_gp"] = "wgan_gp"


class WganGp(WassersteinModel):
    """WGAN-GP (Gulrajani et al. 2017) in 3D: it samples and offers nothing else.

    With ``components: 0`` everything is learnt by the game, as published; that wants thousands of scans and steps.
    """

    family: ClassVar[str] = "wgan_gp"
    Settings: ClassVar[type[WganGpSettings]] = WganGpSettings
    tiny: ClassVar[dict[str, Any]] = {
        "widths": (16, 16),
        "latent": 8,
        "components": 2,
        "narrow": 4,
        "critic_widths": (16, 16),
    }
    settings: WganGpSettings

    def phases(self) -> dict[str, Phase]:
        """See :meth:`WassersteinModel.game_phases`."""
        return self.game_phases()

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`WassersteinModel.game_loss`."""
        return self.game_loss(phase, batch)
