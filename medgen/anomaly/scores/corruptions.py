"""Random local corruptions of healthy scans, made on the device: what self-supervised heads learn to find.

Each is a change of a random region: intensities, texture, sharpness, geometry, or tissue from elsewhere. The regions
are lumpy superellipsoids with soft or hard edges. Randomness comes from torch's global generator, which the training
loop seeds.

Sources: Tan et al., "Detecting outliers with foreign patch interpolation" (FPI), MELBA 2022; Tan et al., "Detecting
outliers with Poisson image interpolation" (PII), MICCAI 2021; Marimont et al., "DISYRE: diffusion-inspired synthetic
restoration", 2024 (several corruptions at once); Zimmerer et al., "MOOD 2020", IEEE TMI 2022 (what is to be found).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medgen.transforms.augmentation import blur

# A change below this share of the scan's spread is not visible, and not asked for.
_VISIBLE = 0.1
# Share of the region's weight above which a voxel belongs to it.
_EDGE = 0.1


@dataclass(frozen=True, eq=False)
class Place:
    """One region to corrupt.

    Attributes:
        image: The scan, (c, i, j, k).
        other: Another scan on the same grid, intensities of the same scale, (c, i, j, k).
        box: Slices of the region.
        weight: (p, q, r) in [0, 1].
        rho: (p, q, r), 0 at the centre, 1 on the surface.
        centre: Voxel coordinates of the centre in the scan, (3,).
        points: Voxel coordinates of the box in the scan, (3, p, q, r).
        radius: Nominal radius in voxels.
        sd: Spread of the scan's intensities in its foreground, (c, 1, 1, 1).
    """

    image: Tensor
    other: Tensor
    box: tuple[slice, slice, slice]
    weight: Tensor
    rho: Tensor
    centre: Tensor
    points: Tensor
    radius: float
    sd: Tensor

    @property
    def here(self) -> Tensor:
        """The scan in the box, (c, p, q, r)."""
        return self.image[(slice(None), *self.box)]

    @property
    def there(self) -> Tensor:
        """The other scan in the box, (c, p, q, r)."""
        return self.other[(slice(None), *self.box)]


def offset(place: Place) -> Tensor:
    """Brighter or darker, evenly or with a smooth unevenness."""
    strength = _sign() * _between(0.4, 3.0, log=True) * place.sd
    return place.here + strength * place.weight * (1 + _between(0, 0.5) * _smooth(place, 0.3))


def noise(place: Place) -> Tensor:
    """Noise of a random grain."""
    grain = torch.randn_like(place.here)
    sigma = _between(-0.5, 1.5)
    if sigma > 0.2:
        grain = _blurred(grain, sigma)
        grain = grain / grain.std().clamp_min(1e-6)
    return place.here + _between(0.4, 3.0, log=True) * place.sd * place.weight * grain


def contrast(place: Place) -> Tensor:
    """Deviations from the region's mean made smaller or larger."""
    inside = place.weight > 0
    mean = (place.here * inside).sum((1, 2, 3), keepdim=True) / inside.sum().clamp_min(1)
    factor = _between(0.1, 0.6) if _chance(0.5) else _between(1.6, 3.0)
    return place.here + place.weight * (factor - 1) * (place.here - mean)


def blurred(place: Place) -> Tensor:
    """Loss of sharpness."""
    return _mixed(place, _blurred(place.here, _between(0.6, 3.0)))


def sharpened(place: Place) -> Tensor:
    """Exaggerated detail."""
    return _mixed(place, place.here + _between(0.8, 3.0) * (place.here - _blurred(place.here, 1.0)))


def radial(place: Place) -> Tensor:
    """Tissue pulled to the centre or pushed away from it; the surface stays."""
    exponent = math.exp(_sign() * _between(0.3, 1.3))
    stretch = place.rho.clamp(1e-3, 1) ** (exponent - 1)
    return _changed(place, place.centre.view(3, 1, 1, 1) + (place.points - _centres(place)) * stretch)


def twist(place: Place) -> Tensor:
    """Tissue turned about an axis, most at the centre."""
    axis = functional.normalize(torch.randn(3), dim=0).to(place.weight)
    angle = _sign() * _between(0.6, 3.0) * (1 - place.rho).clamp_min(0)
    arm = place.points - _centres(place)
    along = (axis.view(3, 1, 1, 1) * arm).sum(0, keepdim=True) * axis.view(3, 1, 1, 1)
    across = torch.linalg.cross(axis.view(3, 1, 1, 1).expand_as(arm), arm, dim=0)
    turned = along + (arm - along) * angle.cos() + across * angle.sin()
    return _changed(place, _centres(place) + turned)


def warped(place: Place) -> Tensor:
    """A smooth random displacement that ends at the surface."""
    scale = _between(0.3, 0.8)
    field = torch.stack([_smooth(place, scale) for _ in range(3)])
    return _changed(place, place.points + _between(0.3, 0.9) * place.radius * (1 - place.rho).clamp_min(0) * field)


def jittered(place: Place) -> Tensor:
    """Voxels trade places with near ones."""
    jump = (torch.rand_like(place.points) - 0.5) * _between(2.0, 4.5)
    return _mixed(place, _at(place.image, (place.points + jump).round()))


def moved(place: Place) -> Tensor:
    """Tissue from another place of the same scan, or its mirror image."""
    arm = place.points - _centres(place)
    if _chance(0.5):
        arm = arm * torch.tensor([_sign(), _sign(), _sign()]).to(arm).view(3, 1, 1, 1)
    middle = torch.tensor([(size - 1) / 2 for size in place.image.shape[1:]]).to(arm)
    source = place.centre
    if _chance(0.3):
        axis = int(torch.randint(3, ()))
        source = source.clone()
        source[axis] = 2 * middle[axis] - source[axis]
    else:
        source = source + functional.normalize(torch.randn(3), dim=0).to(arm) * _between(0.8, 4.0) * place.radius
    return _mixed(place, _at(place.image, source.view(3, 1, 1, 1) + arm))


def foreign(place: Place) -> Tensor:
    """The same place of another scan (Tan et al., FPI)."""
    return place.here + _between(0.3, 1.0) * place.weight * (place.there - place.here)


def seamless(place: Place) -> Tensor:
    """The detail of another scan or place on this scan's own coarse intensities (after Tan et al., PII)."""
    sigma = max(place.radius / 2, 1.0)
    source = place.there
    if _chance(0.5):
        far = functional.normalize(torch.randn(3), dim=0).to(place.points) * _between(0.8, 4.0) * place.radius
        source = _at(place.image, place.points + far.view(3, 1, 1, 1))
    return _mixed(place, source - _blurred(source, sigma) + _blurred(place.here, sigma))


KINDS: dict[str, Callable[[Place], Tensor]] = {
    function.__name__: function
    for function in (
        offset, noise, contrast, blurred, sharpened, radial, twist, warped, jittered, moved, foreign, seamless,
    )
}  # fmt: skip


def corrupt(
    image: Tensor, foreground: Tensor, kinds: Sequence[str], radius: tuple[float, float], most: int
) -> tuple[Tensor, Tensor]:
    """Corrupt a batch in up to ``most`` places per scan; one scan in ten or so stays as it is.

    Args:
        image: (b, c, i, j, k) float32.
        foreground: (b, 1, i, j, k), 1 where there is anatomy.
        kinds: Names in ``KINDS`` to draw from.
        radius: Smallest and largest nominal radius in voxels, drawn log-uniformly.
        most: Places per scan.

    Returns:
        The corrupted images and where they changed visibly, (b, 1, i, j, k) float32 of 0 and 1.
    """
    result, truth = image.clone(), torch.zeros_like(foreground)
    for number in range(len(image)):
        inside = foreground[number, 0] > 0
        where = inside.nonzero()
        if not len(where):
            continue
        values = image[number][:, inside]
        sd = values.std(dim=1).clamp_min(1e-3).view(-1, 1, 1, 1)
        other = image[(number + 1) % len(image)]
        for _ in range(int(torch.randint(1, most + 1, ())) if _chance(0.9) else 0):
            centre = where[int(torch.randint(len(where), ()))]
            size = _between(*radius, log=True)
            place = _place(result[number], other, inside, centre, size, sd)
            kind = kinds[int(torch.randint(len(kinds), ()))]
            # Only tissue changes: the background of a stripped brain stays what it is.
            region = (place.weight > _EDGE) & inside[place.box]
            after = torch.where(inside[place.box] & (place.weight > 0), KINDS[kind](place), place.here)
            change = (after - place.here).abs().div(sd).amax(0)
            near = functional.avg_pool3d(change[None, None], 3, stride=1, padding=1)[0, 0]
            visible = region & (near > _VISIBLE)
            result[(number, slice(None), *place.box)] = after
            truth[(number, 0, *place.box)] = torch.maximum(truth[(number, 0, *place.box)], visible.to(truth.dtype))
    return result, truth


def _place(image: Tensor, other: Tensor, inside: Tensor, centre: Tensor, radius: float, sd: Tensor) -> Place:
    """A lumpy superellipsoid of random axes, turn, edges and softness around a voxel."""
    reach = math.ceil(1.6 * radius) + 1
    middle = centre.tolist()
    box = [slice(max(0, m - reach), min(size, m + reach + 1)) for m, size in zip(middle, inside.shape, strict=True)]
    axes = [torch.arange(part.start, part.stop, device=image.device, dtype=torch.float32) for part in box]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    middle_point = centre.to(torch.float32)
    turn, _ = torch.linalg.qr(torch.randn(3, 3))
    stretch = torch.exp(torch.empty(3).uniform_(-0.35, 0.35))
    half_axes = radius * stretch / stretch.prod() ** (1 / 3)
    frame = (turn / half_axes[:, None]).to(image.device)
    local = torch.tensordot(frame, points - middle_point.view(3, 1, 1, 1), dims=1)
    power = (1.5, 2.0, 2.0, 4.0)[int(torch.randint(4, ()))]
    rho = local.abs().pow(power).sum(0).pow(1 / power)
    # Lumps: a few plane waves of about the region's own size.
    waves, phases = (2.0 * torch.randn(4, 3)).to(image.device), (2 * math.pi * torch.rand(4)).to(image.device)
    lumps = torch.cos(torch.tensordot(waves, local, dims=1) + phases.view(4, 1, 1, 1)).sum(0)
    rho = rho * (1 + _between(0.0, 0.15) * lumps).clamp_min(0.3)
    ramp = ((1 - rho) / _between(0.05, 0.7)).clamp(0, 1)
    weight = ramp * ramp * (3 - 2 * ramp)
    return Place(image, other, (box[0], box[1], box[2]), weight, rho, middle_point, points, radius, sd)


def _centres(place: Place) -> Tensor:
    return place.centre.view(3, 1, 1, 1)


def _mixed(place: Place, value: Tensor) -> Tensor:
    return place.here + place.weight * (value - place.here)


def _changed(place: Place, points: Tensor) -> Tensor:
    """Geometry changes to the full: a soft edge would only hide part of the deformation."""
    return torch.where(place.rho < 1, _at(place.image, points), place.here)


def _at(image: Tensor, points: Tensor) -> Tensor:
    """Linear interpolation of (c, i, j, k) at voxel coordinates (3, p, q, r); edge values outside."""
    sizes = torch.tensor(image.shape[1:], device=image.device, dtype=torch.float32).view(3, 1, 1, 1)
    grid = (2 * points / (sizes - 1) - 1).flip(0).movedim(0, -1)[None]
    return functional.grid_sample(image[None], grid, padding_mode="border", align_corners=True)[0]


def _blurred(values: Tensor, sigma: float) -> Tensor:
    return blur(values[None], torch.full((1,), sigma, device=values.device))[0]


def _smooth(place: Place, scale: float) -> Tensor:
    """Smooth noise of about unit spread in the box, correlated over ``scale`` radii, (p, q, r)."""
    size = place.weight.shape
    coarse = [max(2, math.ceil(n / max(scale * 2 * place.radius, 1.0)) + 1) for n in size]
    draws = torch.randn(1, 1, *coarse).to(place.weight)
    return functional.interpolate(draws, size=size, mode="trilinear", align_corners=True)[0, 0] * 1.3


def _chance(p: float) -> bool:
    return float(torch.rand(())) < p


def _sign() -> float:
    return 1.0 if _chance(0.5) else -1.0


def _between(low: float, high: float, log: bool = False) -> float:
    unit = float(torch.rand(()))
    return low * (high / low) ** unit if log else low + (high - low) * unit
