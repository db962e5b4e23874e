"""Context-encoding VAE: a VAE that also has to fill in what is hidden from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from medgen.models import losses
from medgen.models.latent import LatentModel, LatentSettings
from medgen.transforms.devices import sent

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch


class CeVaeSettings(LatentSettings):
    """Settings of :class:`CeVae`.

    Attributes:
        context: Weight w of the reconstruction from a masked scan; the evidence lower bound has 1 − w.
        masks: Most cuboids that are masked per scan; at least one is.
        mask_smallest: Shortest side of a cuboid, as a share of the grid's side.
        mask_largest: Longest side of a cuboid, as a share of the grid's side.
    """

    family: Literal["cevae"] = "cevae"
    context: float = Field(default=0.5, ge=0, lt=1)
    masks: int = Field(default=3, ge=1, le=20)
    mask_smallest: float = Field(default=0.1, gt=0, le=1)
    mask_largest: float = Field(default=0.5, gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> CeVaeSettings:
        if self.mask_smallest > self.mask_largest:
            raise ValueError(
                f"mask_smallest is {self.mask_smallest} and mask_largest {self.mask_largest}; expected it not larger"
            )
        return self


class CeVae(LatentModel):
    """ceVAE (Zimmerer et al., "Context-encoding variational autoencoder for unsupervised anomaly detection", 2018).

    Source: Zimmerer et al., "Context-encoding variational autoencoder for unsupervised anomaly detection", 2018.

    Minimises (1 − w) · (−ELBO(x)) + w · (−log p(x | z = μ(x̃))) per voxel, x̃ being x with random cuboids masked and
    μ the posterior mean. The code has to say what healthy anatomy is where it cannot be seen, and its KL divergence
    becomes more sensitive to places that do not fit. Likelihoods, code and samples as those of ``vae``.

    The original reconstructs with an L1 loss; here both terms are the same Gaussian likelihood, so that w compares
    like with like.
    """

    family: ClassVar[str] = "cevae"
    Settings: ClassVar[type[CeVaeSettings]] = CeVaeSettings
    tiny: ClassVar[dict[str, Any]] = {"widths": (16, 32), "latent": 8, "components": 2, "narrow": 4}
    settings: CeVaeSettings

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """(1 − w) · negative β-ELBO + w · NLL of the whole scan given its masked version, in nats per voxel."""
        settings = self.settings
        terms = super().loss(phase, batch)
        if settings.context == 0:
            return terms
        sizes = (settings.mask_smallest, settings.mask_largest)
        decoded = self.decode(self.encode(masked(batch.image, batch.foreground, settings.masks, sizes))[0])
        weight = batch.foreground + settings.background * (1 - batch.foreground)
        context = losses.weighted_mean(losses.gaussian_nll(batch.image, decoded.mean, decoded.logvar), weight)
        loss = (1 - settings.context) * terms["loss"] + settings.context * context
        return {**terms, "loss": loss, "context": context.detach()}


def masked(image: Tensor, foreground: Tensor, most: int, sizes: tuple[float, float]) -> Tensor:
    """Copies with 1 to ``most`` random cuboids of one intensity each, drawn from the range of the scan.

    Cuboids are centred on anatomy (the grid's border cuts them off); scans without any stay as they are.

    Args:
        image: (b, c, i, j, k).
        foreground: (b, 1, i, j, k), 1 where there is anatomy.
        most: Cuboids per scan.
        sizes: Smallest and largest side, as shares of the grid's.

    Returns:
        (b, c, i, j, k), a copy; randomness from torch's global generators.
    """
    result, shape, device = image.clone(), image.shape[2:], image.device
    places = [torch.arange(size, device=device) for size in shape]
    for scan, original, inside in zip(result, image, foreground[:, 0] > 0, strict=True):
        # The number of every voxel among those of the foreground: no list of them has to come back from a GPU.
        number = inside.flatten().cumsum(0)
        low, high = original.amin((1, 2, 3)), original.amax((1, 2, 3))
        for _ in range(int(torch.randint(1, most + 1, ()))):
            chosen = ((sent(torch.rand(1), device) * number[-1]).long() + 1).minimum(number[-1])
            middle = torch.searchsorted(number, chosen)[0]
            sides = [max(1, round(share * size)) for share, size in zip(_shares(sizes), shape, strict=True)]
            box = inside.any()
            for axis, (side, place) in enumerate(zip(sides, places, strict=True)):
                start = middle // math.prod(shape[axis + 1 :]) % shape[axis] - side // 2
                within = (place >= start) & (place < start + side)
                box = box & within.view([-1 if other == axis else 1 for other in range(3)])
            level = low + sent(torch.rand(len(low)), device).to(low.dtype) * (high - low)
            scan.copy_(torch.where(box, level.view(-1, 1, 1, 1), scan))
    return result


def _shares(sizes: tuple[float, float]) -> list[float]:
    shares: list[float] = torch.empty(3).uniform_(*sizes).tolist()
    return shares
