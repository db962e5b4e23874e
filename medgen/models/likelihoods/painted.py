"""How likely a scan is that a flow could have painted on its labels: a bound over styles and over what is not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional

from medgen.models.facts import Estimate
from medgen.models.latent import randn_beside
from medgen.models.likelihoods.change_of_variables import log_density, rademacher, standard_normal
from medgen.models.networks.haar import log_volume

# Least width of what is drawn, in standard deviations of styles and in model intensities: a point has no density.
_NARROWEST = 1e-3


class PaintingFlow(Protocol):
    """What the bound asks of a flow that paints, as the family ``flow`` has it: x = u(s) + W⁻¹ r.

    Attributes:
        bands: Standard deviations of the wavelet bands of voxels, (8c, 1, 1, 1).
        deep_bands: Those of the bands of their sums.
    """

    bands: Tensor
    deep_bands: Tensor

    @property
    def styles(self) -> int:
        """Components of a style that are something."""
        ...

    def encode_style(self, x: Tensor, view: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Style of scans, (b, d), and its log-variance."""
        ...

    def style_log_density(self, style: Tensor, labels: Tensor) -> Tensor:
        """Log p(s | labels), (b,)."""
        ...

    def coarse_image(self, style: Tensor) -> Tensor:
        """u(s), (b, c, i, j, k)."""
        ...

    def even(self, x: Tensor) -> Tensor:
        """Maps (b, c, i, j, k) on the grid with even sides."""
        ...

    def whiten(self, rest: Tensor) -> Tensor:
        """W, from maps to bands."""
        ...

    def uncropped(self, bands: Tensor) -> Tensor:
        """W⁻¹, from bands to maps on the grid with even sides."""
        ...

    def made(self, at: Tensor, coarse: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
        """The bands that the flow makes of noise."""
        ...

    def velocity(self, at: Tensor, time: Tensor, coarse: Tensor, labels: Tensor, view: Tensor) -> Tensor:
        """V of bands at times (b,)."""
        ...


def bound(
    model: PaintingFlow,
    image: Tensor,
    labels: Tensor,
    view: Tensor,
    samples: int,
    generator: Generator | None,
    steps: int,
) -> Estimate:
    """Lower bound on log p(x | labels, view) of the voxels in view, in nats per scan, with its standard error, (b,).

    p(x | l) = ∫ p(s | l) p(x, o | s, l) ds do, with the style s, and o the voxels that the flow makes and nobody sees:
    outside of the field of view, and beyond grids of odd size. Given both it is exact: the flow's density of the
    wavelet bands r = W (x − u(s)), and log |det W|. For s and o drawn from any q,
    log p(x | l) ≥ E_q [log p(x, o, s | l) − log q(s, o)], and the mean of draws is an unbiased estimate of that bound.
    q is Gaussian, around the scan's own style and around 0, and as wide as styles and unseen voxels of one scan that
    the model paints differ from what they were to be.

    Args:
        model: The flow.
        image: (b, c, i, j, k) float32.
        labels: (b, 1, i, j, k).
        view: (b, 1, i, j, k) of 0 and 1.
        samples: Draws of s, o and the probe of the divergence, two at least.
        generator: Of all draws.
        steps: Of the solver, four passes forwards and backwards each.
    """
    rows = []
    # One scan and one draw at a time: a gradient through the network is kept meanwhile.
    for one in zip(image.split(1), labels.split(1), view.split(1), strict=True):
        around = _Around.of(model, *one, generator)
        rows.append(torch.cat([around.draw(generator, steps) for _ in range(samples)]))
    return Estimate.of(torch.stack(rows, dim=1))


def detail_log_density(
    model: PaintingFlow,
    rest: Tensor,
    coarse: Tensor,
    labels: Tensor,
    view: Tensor,
    steps: int,
    probe: Tensor | None = None,
) -> Tensor:
    """Log p(x | s, l) in nats, (b,) float64, of all voxels of the even grid that the flow works on.

    Args:
        model: The flow.
        rest: What the coarse image of the style leaves, (b, c, i, j, k) with even sides.
        coarse: The coarse image u(s), (b, c, i, j, k).
        labels: Label maps (b, 1, i, j, k).
        view: Fields of view (b, 1, i, j, k).
        steps: Of the solver.
        probe: Of the divergence, in the shape of the bands; without one it is exact, and slow.
    """

    def velocity(at: Tensor, time: Tensor) -> Tensor:
        return model.velocity(at, time, coarse, labels, view)

    bands = model.whiten(rest)
    volume = log_volume(model.bands, model.deep_bands, bands.shape[2:])
    return log_density(velocity, bands, steps, probe) + volume


@dataclass(frozen=True, eq=False)
class _Around:
    """One scan, and the Gaussians around it that its style and its unseen voxels are drawn from.

    Attributes:
        model: The flow.
        image, labels, view: The scan, and its conditions.
        style: Its style, (1, d).
        hidden: Voxels of the even grid that nobody sees, (1, c, i, j, k) boolean.
        widths: Standard deviations of styles and of unseen voxels.
    """

    model: PaintingFlow
    image: Tensor
    labels: Tensor
    view: Tensor
    style: Tensor
    hidden: Tensor
    widths: tuple[float, float]

    @classmethod
    def of(
        cls, model: PaintingFlow, image: Tensor, labels: Tensor, view: Tensor, generator: Generator | None
    ) -> _Around:
        style = model.encode_style(image, view)[0]
        coarse = model.coarse_image(style)
        # One scan of the model, as it comes from the flow: on the even grid, nothing outside taken away.
        noise = randn_beside(tuple(model.whiten(image).shape), generator, image)
        made = model.uncropped(model.made(noise, coarse, labels, view))
        i, j, k = image.shape[2:]
        inside = made[:, :, :i, :j, :k] * view
        extra = [side for size, whole in zip((k, j, i), made.shape[:1:-1], strict=True) for side in (0, whole - size)]
        hidden = functional.pad(view, extra) == 0
        away = (made - model.even(inside))[hidden.expand_as(made)]
        apart = (model.encode_style(inside + coarse * view, view)[0] - style)[:, : model.styles]
        widths = [float(own.square().mean().sqrt()) if own.numel() else 0.0 for own in (apart, away)]
        first, second = (max(width, _NARROWEST) for width in widths)
        return cls(model, image, labels, view, style, hidden.expand_as(made), (first, second))

    def draw(self, generator: Generator | None, steps: int) -> Tensor:
        """One draw of log p(x, o, s | l) − log q(s, o), (1,) float64."""
        model, (style_width, hidden_width) = self.model, self.widths
        change = randn_beside((1, model.styles), generator, self.style)
        style = self.style + style_width * functional.pad(change, (0, self.style.shape[1] - model.styles))
        coarse = model.coarse_image(style)
        rest = model.even((self.image - coarse) * self.view)
        fill = randn_beside((int(self.hidden.sum()),), generator, rest)
        rest[self.hidden] = rest[self.hidden] + hidden_width * fill
        probe = rademacher(model.whiten(rest), generator)
        joint = detail_log_density(model, rest, coarse, self.labels, self.view, steps, probe)
        joint = joint + model.style_log_density(style, self.labels)
        log_q = torch.zeros_like(joint)
        for drawn, width in ((change, style_width), (fill[None], hidden_width)):
            log_q += standard_normal(drawn) - drawn.numel() * torch.tensor(width, dtype=torch.float64).log()
        return joint - log_q
