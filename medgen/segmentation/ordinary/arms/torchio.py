"""A chain of TorchIO's random transforms in place of the standard augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from medgen.errors import ConfigError
from medgen.segmentation.ordinary.draws import number
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import LabelledBatch, Recipe

SOURCE = (
    "A chain of TorchIO's random affine, elastic deformation, bias field, gamma, noise and blur in place of the "
    "standard augmentation (Pérez-García et al., Computer Methods and Programs in Biomedicine 2021)."
)
NEEDS_UNLABELLED = False


@dataclass(frozen=True)
class TorchIOChain:
    """TorchIO's transforms, one scan at a time on the CPU.

    Ranges are TorchIO's defaults, except where those suppose other scans: noise and blur are halved for intensities
    of about 0 to 1 and small grids, and displacements end at 0.4 of the distance between control points, below which a
    B-spline cannot fold. The result is clipped to the batch's own range of intensities.

    Attributes:
        spatial: Probability of the affine; the elastic deformation has a third of it.
        intensity: Probability of each intensity transform.

    Raises:
        ConfigError: If TorchIO is not installed.
    """

    spatial: float = 0.75
    intensity: float = 0.3

    def __post_init__(self) -> None:
        _torchio()

    def __call__(self, batch: LabelledBatch, generator: torch.Generator) -> LabelledBatch:
        """The transformed batch on the batch's device."""
        tio = _torchio()
        chain = self._chain(tio, tuple(batch.image.shape[2:]))
        low, high = float(batch.image.min()), float(batch.image.max())
        images, targets, weights = [], [], []
        for row in range(len(batch.image)):
            parts = {"image": tio.ScalarImage(tensor=batch.image[row].cpu())}
            parts["target"] = tio.LabelMap(tensor=batch.target[row].cpu())
            if batch.weight is not None:
                # Doubt, since what comes from outside becomes 0 and is certainly background.
                parts["doubt"] = tio.LabelMap(tensor=1 - batch.weight[row].cpu())
            # TorchIO draws from torch's global stream.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(number(generator))
                done = chain(tio.Subject(**parts))
            images.append(done["image"].data.clamp(low, high))
            targets.append(done["target"].data.to(batch.target.dtype))
            if batch.weight is not None:
                weights.append(1 - done["doubt"].data.float())
        weight = torch.stack(weights) if weights else None
        result = LabelledBatch(torch.stack(images).to(batch.image.dtype), torch.stack(targets), weight)
        return result.to(batch.image.device)

    def _chain(self, tio: Any, shape: tuple[int, ...]) -> Any:
        points = 7
        largest = tuple(min(7.5, 0.4 * length / (points - 1)) for length in shape)
        return tio.Compose(
            [
                tio.RandomAffine(default_pad_value=0, p=self.spatial),
                tio.RandomElasticDeformation(num_control_points=points, max_displacement=largest, p=self.spatial / 3),
                tio.RandomBiasField(p=self.intensity),
                tio.RandomGamma(p=self.intensity),
                tio.RandomNoise(std=(0, 0.125), p=self.intensity),
                tio.RandomBlur(std=(0, 1), p=self.intensity),
            ]
        )


def _torchio() -> Any:
    try:
        import torchio
    except ImportError as error:
        raise ConfigError(
            "the arm 'torchio' needs the package TorchIO, which is not installed; pip install 'medgen[torchio]', or "
            "leave the arm out"
        ) from error
    return torchio


def recipe(setting: Setting) -> Recipe:
    """TorchIO's chain and nothing else."""
    del setting
    return Recipe(transforms=(TorchIOChain(),))
