"""VAE-GAN: a variational autoencoder whose samples also have to pass a 3D PatchGAN."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from medgen.models.adversarial.autoencoder import AdversarialModel, AdversarialSettings


class VaeGanSettings(AdversarialSettings):
    """Settings of :class:`VaeGan`."""

    family: Literal["vaegan"] = "vaegan"


class VaeGan(AdversarialModel):
    """VAE-GAN (Larsen et al. 2016) with hinge loss, spectral norm, lazy R1 and feature matching, in 3D.

    Source: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", ICML 2016.

    Likelihoods are those of its VAE part without decoder noise: see :class:`~medgen.models.latent.LatentModel`.
    """

    family: ClassVar[str] = "vaegan"
    Settings: ClassVar[type[VaeGanSettings]] = VaeGanSettings
    tiny: ClassVar[dict[str, Any]] = {
        "widths": (16, 32),
        "latent": 8,
        "components": 2,
        "narrow": 4,
        "discriminator_widths": (16, 16),
    }
