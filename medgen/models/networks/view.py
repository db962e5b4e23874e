"""The box of the field of view: known of each scan, and therefore not to be learnt as anatomy.

Beyond the box a scan is padded with 0. What is not shown there counts as what other scans show; and what a generator
makes is looked at through the boxes of real scans, so that it need not draw any (measurements of which each misses
something determine the whole: Bora et al., "AmbientGAN", ICLR 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

from medgen.models.networks.linear import LinearModel

# Times that what is not shown is guessed from what follows from the last guess.
_ROUNDS = 3
# Weight of a voxel of a scan that does not show it: something, so that no voxel is without any.
_UNSEEN = 1e-4


def field_of_view(x: Tensor) -> Tensor:
    """The smallest boxes that hold every voxel which is not 0, (b, 1, i, j, k) float32 of 1 inside and 0 outside.

    Of images it is where they show anything. In training the box of the foreground is taken: augmentation moves it
    along, while noise leaves no voxel at 0.

    Args:
        x: (b, c, i, j, k). Of a scan without anything the box is empty.

    >>> field_of_view(torch.tensor([0.0, 2.0, 0.0, 1.0, 0.0]).view(1, 1, 5, 1, 1)).flatten().tolist()
    [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    shown = (x != 0).any(1, keepdim=True)
    box = torch.ones_like(shown)
    for axis in (2, 3, 4):
        first, second = (other for other in (2, 3, 4) if other != axis)
        line = shown.any(first, keepdim=True).any(second, keepdim=True)
        size = line.shape[axis]
        place = torch.arange(size, device=x.device).view([-1 if other == axis else 1 for other in range(5)])
        low = torch.where(line, place, size).amin(axis, keepdim=True)
        high = torch.where(line, place, -1).amax(axis, keepdim=True)
        box = box & (low <= place) & (place <= high)
    return box.float()


def usual_view(views: Tensor) -> Tensor:
    """Voxels that at least half of the scans show, (1, i, j, k) float32, of boxes (n, 1, i, j, k).

    What is drawn without a scan is shown there: beyond it few scans say what there is.
    """
    return (views.mean(0) >= 0.5).float()


def completed(x: Tensor, view: Tensor, linear: LinearModel) -> Tensor:
    """Scans (b, c, i, j, k) with what a linear model says of them where the view (b, 1, i, j, k) is 0.

    Scores of what is shown alone are too small, as if the rest were the mean scan; those of the scan that they complete
    are less so, and so on (expectation maximisation of principal components; Roweis, NeurIPS 1998).
    """
    whole = x * view + linear.mean[: linear.channels] * (1 - view)
    for _ in range(_ROUNDS):
        whole = x * view + linear(linear.scores(whole))[0] * (1 - view)
    return whole


@torch.no_grad()
def fit_seen(linear: LinearModel, images: Tensor, views: Tensor, weight: Tensor) -> Tensor:
    """Fit a linear model without further maps to scans of which each shows a part; returns the scans, completed by it.

    What is not shown begins at the mean of what is, and becomes what the components say of it.

    Args:
        linear: Model to be fitted.
        images: (n, c, i, j, k).
        views: (n, 1, i, j, k) of 1 where a scan shows something.
        weight: (n, 1, i, j, k), of what is shown.
    """
    if bool(views.all()):
        linear.fit(images, weight, images[:, :0])
        return images
    weight = (weight * views).clamp_min(_UNSEEN)
    whole = images * views + (weight * images).sum(0) / weight.sum(0) * (1 - views)
    linear.fit(whole, weight, whole[:, :0])
    for _ in range(_ROUNDS):
        # Scan by scan: nothing else of the cohort's size is made.
        for own, image, view in zip(whole.split(1), images.split(1), views.split(1), strict=True):
            there, seen = image.to(linear.mean), view.to(linear.mean)
            own.copy_(completed(there, seen, linear))
        linear.fit(whole, weight, whole[:, :0])
    return whole
