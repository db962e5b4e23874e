"""Images painted into label maps: a Gaussian intensity per label, deformation, bias field and blur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medgen.errors import DataError
from medgen.preprocessing.dataset import Dataset
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Extra, LabelledBatch, Recipe
from medgen.transforms.augmentation import blur
from medgen.transforms.fields import exponentiate, smooth_noise, warp

SOURCE = (
    "Standard augmentation; half of the scans are painted into deformed label maps with Gaussian intensities per label "
    "and background cluster, estimated on the training scans and widened (lab2im: Billot et al., MIDL 2020 and "
    "Medical Image Analysis 2023)."
)
NEEDS_UNLABELLED = False


@dataclass(frozen=True, eq=False)
class Lab2Im:
    """The generative model of Bayesian segmentation, drawn from forwards.

    Billot et al., "A learning strategy for contrast-agnostic MRI segmentation", MIDL 2020, section 2: a label map is
    deformed by the flow of a smooth velocity, each class gets a Gaussian whose mean and standard deviation are drawn
    from a prior, and the image gets a bias field and blur. The prior is estimated on the training scans and widened,
    since all scans here come from one cohort. Rotation, zoom and gamma are left to the augmentation that follows.

    Attributes:
        maps: Class of every voxel, (n, 1, i, j, k) uint8: labels, then clusters of the background, 0 for no anatomy.
        numbers: Label number of each class, 0 for background, (g,).
        means: Mean and standard deviation over scans of each class's mean intensity, (2, g, c).
        spreads: The same of each class's standard deviation, (2, g, c).
        largest: Intensities are clipped to [0, largest].
        widening: Factor on the standard deviations of the priors.
        deformation: Standard deviation of the velocity at its control points, 16 voxels apart, in voxels; drawn up to
            this for each scan.
        bias: Standard deviation of the log bias field at control points half a scan apart; drawn up to this.
        blurring: Range of the blur's standard deviation in voxels.
    """

    maps: Tensor
    numbers: Tensor
    means: Tensor
    spreads: Tensor
    largest: float
    widening: float = 2.0
    deformation: float = 3.0
    bias: float = 0.3
    blurring: tuple[float, float] = (0.3, 1.0)

    @classmethod
    def fit(cls, data: Dataset, labels: Sequence[int], clusters: int = 4) -> Lab2Im:
        """Cluster the background of labelled scans and estimate the intensities of every class.

        Args:
            data: Labelled scans.
            labels: Label numbers, without 0; other numbers are treated like background.
            clusters: k-means clusters of the unlabelled anatomy per scan, ordered by brightness.

        Raises:
            DataError: If the scans have no labels.
        """
        if data.labels is None:
            raise DataError("images are painted into masks, and these scans have none")
        maps = torch.zeros(data.labels.shape, dtype=torch.uint8)
        for index, label in enumerate(labels, start=1):
            maps[data.labels == label] = index
        for row in range(len(data)):
            rest = data.foregrounds[row, 0] & (maps[row, 0] == 0)
            if int(rest.sum()) >= clusters:
                maps[row, 0][rest] = (_clusters(data.images[row][:, rest], clusters) + len(labels) + 1).to(torch.uint8)
        classes = len(labels) + 1 + clusters
        numbers = torch.tensor([0, *labels, *[0] * clusters], dtype=torch.uint8)
        means, spreads = _statistics(data.images, maps, classes)
        return cls(maps, numbers, _prior(means), _prior(spreads), float(data.images.max()))

    def draw(self, count: int, generator: torch.Generator) -> LabelledBatch:
        """Painted scans with their labels, on the CPU."""
        return self.paint(*self.parameters(count, generator), generator)

    def parameters(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of label maps (count,), and means and standard deviations of the classes, (count, g, c)."""
        rows = torch.randint(len(self.maps), (count,), generator=generator)
        drawn = []
        for centre, spread in (self.means, self.spreads):
            noise = torch.randn(count, *centre.shape, generator=generator)
            drawn.append((centre + self.widening * spread * noise).clamp_min(0))
        return rows, drawn[0].clamp_max(self.largest), drawn[1]

    def paint(self, rows: Tensor, means: Tensor, spreads: Tensor, generator: torch.Generator) -> LabelledBatch:
        """Scans with the given intensities, see :meth:`parameters`."""
        count, shape = len(rows), self.maps.shape[2:]
        amplitude = self.deformation * torch.rand(count, 1, 1, 1, 1, generator=generator)
        velocity = smooth_noise(count, 3, shape, 16, generator) * amplitude
        classes = warp(self.maps[rows], exponentiate(velocity, 4), "nearest")[:, 0].long()
        picked = torch.arange(count)[:, None, None, None], classes
        noise = torch.randn(count, *shape, means.shape[2], generator=generator)
        image = (means[picked] + spreads[picked] * noise).movedim(-1, 1)
        level = self.bias * torch.rand(count, 1, 1, 1, 1, generator=generator)
        image = image * torch.exp(level * smooth_noise(count, 1, shape, max(max(shape) / 2, 12), generator))
        low, high = self.blurring
        image = blur(image, low + (high - low) * torch.rand(count, generator=generator))
        # Where there is no anatomy prepared scans are 0, and blur must not change that.
        image = image.clamp(0, self.largest) * (classes > 0)[:, None]
        return LabelledBatch(image, self.numbers[classes][:, None])


def _clusters(values: Tensor, clusters: int) -> Tensor:
    """Cluster of each column of ``values`` (c, n), ordered by the mean of the first channel, (n,)."""
    from sklearn.cluster import KMeans

    points = values.T.numpy().astype(np.float64)
    fitted = KMeans(clusters, n_init=1, random_state=0).fit(points[:: max(len(points) // 20000, 1)])
    rank = np.argsort(np.argsort(fitted.cluster_centers_[:, 0]))
    return torch.from_numpy(rank[fitted.predict(points)])


def _statistics(images: Tensor, maps: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each scan's intensities per class, (n, classes, c); NaN where it is absent."""
    means = torch.full((len(images), classes, images.shape[1]), torch.nan)
    spreads = means.clone()
    for row in range(len(images)):
        for index in range(classes):
            inside = images[row][:, maps[row, 0] == index]
            if inside.shape[1]:
                means[row, index] = inside.mean(1)
                spreads[row, index] = inside.std(1, unbiased=False)
    return means, spreads


def _prior(values: Tensor) -> Tensor:
    """Mean and standard deviation over scans, (2, classes, c); zero for what is in no scan."""
    centre = values.nanmean(0)
    spread = (values - centre).square().nanmean(0).sqrt()
    return torch.stack([centre, spread]).nan_to_num(0.0)


def recipe(setting: Setting) -> Recipe:
    """Standard augmentation of labelled and of painted scans."""
    return Recipe(setting.augment, extra=Extra(Lab2Im.fit(setting.real, setting.labels)))
