"""Variational autoencoder with a predicted variance for every voxel."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from medgen.models.latent import LatentModel, LatentSettings


class VaeSettings(LatentSettings):
    """Settings of :class:`Vae`."""

    family: Literal["vae"] = "vae"


class Vae(LatentModel):
    """3D residual VAE (Kingma and Welling 2014) with heteroscedastic Gaussian likelihood (AE-U, Mao et al. 2020).

    Offers reconstruction, likelihood per scan (a bound) and per voxel (a surrogate), a code, and samples, which
    are decoder means and therefore smooth; :class:`~medgen.models.families.vaegan.VaeGan` makes sharp ones.
    """

    family: ClassVar[str] = "vae"
    Settings: ClassVar[type[VaeSettings]] = VaeSettings
    tiny: ClassVar[dict[str, Any]] = {"widths": (16, 32), "latent": 8, "components": 2, "narrow": 4}
