"""Scans painted on label maps: a linear model of the coarse image, then detail by conditional flow matching."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn import functional

from medgen.errors import TrainingError
from medgen.models import losses
from medgen.models.base import Drawn, ModelConfig, ScanCode, ScanModel, Widths
from medgen.models.facts import Estimate, Fact, Likelihood
from medgen.models.likelihoods.gaussian_regression import gaussian_regression
from medgen.models.likelihoods.painted import bound
from medgen.models.networks import blocks
from medgen.models.networks.blocks import full_precision
from medgen.models.networks.haar import band_squares, coloured, haar, whitened
from medgen.models.networks.time_unet import TimeUNet, guess
from medgen.models.sampling import SamplingConfig

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch, Dataset

# Weights of the layer that sees labels.
_STEM = "network.stem.weight"
# Log-variance of a style code: it is a projection, known to rounding.
_CERTAIN = -12.0
# Share of a block that has to be seen for its mean to count.
_SEEN = 0.25
# Rounds in which unseen blocks are filled from the components.
_ROUNDS = 5
# Factor on the coarse image that the network sees: intensities vary by about a quarter.
_CONTRAST = 4.0
# Ridge of the regression of styles on labels, in units of the number of scans over that of predictors.
_RIDGE = 1.0
# Voxels at which the distances between which label maps are interpolated are cut off.
_TRUNCATION = 8


class FlowSettings(ModelConfig):
    """Settings of :class:`Flow`.

    Attributes:
        n_labels: Labels besides the background, numbered 1 to ``n_labels``.
        widths: Channels per level of the network, multiples of 16; the first level is at half the resolution.
        blocks: Residual blocks per level, on the way down and on the way up.
        coarse: Voxels along an axis that become one in the coarse image.
        style: Principal components of the coarse images, at most a third of the training scans.
        background: Weight of voxels outside the foreground in the loss, relative to those inside.
    """

    family: Literal["flow"] = "flow"
    n_labels: int = Field(ge=1, le=255)
    widths: Widths = (32, 64, 96)
    blocks: int = Field(default=2, ge=1, le=8)
    coarse: int = Field(default=4, ge=2, le=16)
    style: int = Field(default=24, ge=1, le=512)
    background: float = Field(default=0.05, gt=0, le=1)


class FlowSampling(SamplingConfig):
    """Options of painting by :class:`Flow`.

    Attributes:
        solver_steps: Steps of the solver from noise to a scan: two passes through the network each, but the last.
        temperature: Factor on the standard deviation of the noise that detail starts from; below 1 it is more typical
            and weaker.
        style_temperature: Factor on the standard deviation of a style beside what is expected for its labels.
    """

    formerly: ClassVar[Mapping[str, str]] = {"sampling_steps": "solver_steps"}
    solver_steps: int = Field(default=8, ge=1, le=1000)
    temperature: float = Field(default=1.0, gt=0, le=10)
    style_temperature: float = Field(default=1.0, ge=0, le=10)


class Flow(ScanModel):
    """x = u(s) + W⁻¹ r, with the coarse image u of a style s | labels ~ N(A l + b, C), and r by a flow from noise.

    Source: Lipman et al., "Flow matching for generative modeling", ICLR 2023; Liu et al., "Flow straight and fast:
    learning to generate and transfer data with rectified flow", ICLR 2023.

    *Coarse.* The style is the vector of principal component scores of the scan, averaged over blocks of ``coarse``³
    voxels; u interpolates its reconstruction. Given labels it follows by ridge regression on the label volumes of the
    same blocks, with the Gaussian of what that leaves (probabilistic principal components; Tipping and Bishop 1999).

    *Detail.* What the coarse image leaves, as Haar wavelet bands that are each brought to variance 1, r = W (x − u), is
    learnt by conditional flow matching along straight lines (rectified flow): r_t = (1 − t) ε + t r, and v(r_t, t |
    labels, u, field of view) regresses r − ε. The network predicts what the best linear guess of r − ε from r_t leaves,
    so that its target has variance 1 at every time (Karras et al. 2022, for straight lines). Training sees u as
    sampling does, from the style, so that what the style does not hold, edges included, is made by the flow. The field
    of view is a condition and is applied again to what is made: the box of a scan is no anatomy.
    """

    family: ClassVar[str] = "flow"
    Settings: ClassVar[type[FlowSettings]] = FlowSettings
    tiny: ClassVar[dict[str, Any]] = {"widths": (16, 32), "style": 2, "n_labels": 2}
    Sampling: ClassVar[type[SamplingConfig]] = FlowSampling
    settings: FlowSettings
    sampling: FlowSampling

    def __init__(self, settings: FlowSettings) -> None:
        super().__init__(settings)
        c, n = settings.in_channels, settings.n_labels
        self.network = TimeUNet(8 * (2 * c + n + 1), settings.widths, settings.blocks, 8 * c)
        small = [-(-size // settings.coarse) for size in settings.shape]
        places = math.prod(small)
        self.mean: Tensor
        self.basis: Tensor
        self.regression: Tensor
        self.spread: Tensor
        self.bands: Tensor
        self.deep_bands: Tensor
        self.label_mean: Tensor
        # Coarse images: mean (c, i, j, k), components times their standard deviation (style, c, i, j, k).
        self.register_buffer("mean", torch.zeros(c, *small))
        self.register_buffer("basis", torch.zeros(settings.style, c, *small))
        # Styles given labels: matrix (n_labels · places, style), mean of the coarse labels, factor of the rest.
        self.register_buffer("regression", torch.zeros(n * places, settings.style))
        self.register_buffer("label_mean", torch.zeros(n * places))
        self.register_buffer("spread", torch.eye(settings.style))
        # Standard deviations of what the coarse image leaves, by wavelet band: of voxels, and of the sums of blocks.
        self.register_buffer("bands", torch.ones(8 * c, 1, 1, 1))
        self.register_buffer("deep_bands", torch.ones(8 * c, 1, 1, 1))

    def phases(self) -> dict[str, list[nn.Parameter]]:
        """One phase with everything."""
        return {"all": list(self.parameters())}

    def fitted(self, name: str, tensor: Tensor, source: ModelConfig) -> Tensor | None:
        """Weights of the first layer for another number of labels: labels of one number take over, new ones start at 0.

        Without weights a new label changes nothing at first. The numbers of a label are those of both label maps.
        """
        if name != _STEM or not isinstance(source, FlowSettings) or source.in_channels != self.settings.in_channels:
            return None
        # Wavelet bands of the scan and of the coarse image, then of the labels, then of the field of view.
        first = 16 * source.in_channels
        before, now = (first + 8 * own.n_labels for own in (source, self.settings))
        kept = min(before, now)
        new = tensor.new_zeros(len(tensor), now - kept, *tensor.shape[2:])
        return torch.cat([tensor[:, :kept], new, tensor[:, before:]], dim=1)

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of the velocity in units of what a linear guess leaves, weighted by the foreground."""
        settings, view = self.settings, batch.foreground
        if batch.labels is None:
            raise TrainingError("the flow family learns from label maps, and these scans have no masks")
        coarse = self.coarse_image(self.encode_style(batch.image, view)[0])
        rest = self.whiten((batch.image - coarse) * view)
        time = torch.rand(len(rest), device=rest.device)
        noise = torch.randn_like(rest)
        t = time[:, None, None, None, None]
        at = (1 - t) * noise + t * rest
        skip, scale = guess(t)
        target = (rest - noise - skip * at) / scale
        said = self.network(self._seen(at, coarse, batch.labels, view), time).float()
        trust = torch.ones_like(view) if batch.confidence is None else batch.confidence
        weight = trust * (view + settings.background * (1 - view))
        error = losses.weighted_mean((said - target).square(), functional.avg_pool3d(self.even(weight), 2))
        return {"loss": error, "detail": rest.square().mean().sqrt().detach()}

    def encode_style(self, x: Tensor, view: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Principal component scores of the coarse images of (b, c, i, j, k), (b, style), and their log-variance.

        Blocks outside of the field of view (b, 1, i, j, k) count as those of the mean scan.
        """
        with full_precision(x.device):
            centred = self._centred(x.float(), torch.ones_like(x[:, :1]) if view is None else view.float())
            basis = self.basis.flatten(1)
            # Components are orthogonal, each as long as its standard deviation.
            scores = centred.flatten(1) @ basis.T / basis.square().sum(1).clamp_min(1e-12)
        return scores, torch.full_like(scores, _CERTAIN)

    def whiten(self, rest: Tensor) -> Tensor:
        """What the coarse image leaves, (b, c, i, j, k), as wavelet bands of variance 1, (b, 8c, i/2, j/2, k/2)."""
        return whitened(self.even(rest), self.bands, self.deep_bands)

    def colour(self, bands: Tensor) -> Tensor:
        """Inverse of :meth:`whiten`: (b, 8c, i/2, j/2, k/2) to (b, c, i, j, k)."""
        return blocks.crop_to(self.uncropped(bands), self.settings.shape)

    def uncropped(self, bands: Tensor) -> Tensor:
        """The same on the grid with even sides that the flow works on."""
        return coloured(bands, self.bands, self.deep_bands)

    def coarse_image(self, style: Tensor) -> Tensor:
        """The coarse images u of styles (b, style), interpolated to (b, c, i, j, k)."""
        with full_precision(style.device):
            small = self.mean + torch.tensordot(style.float(), self.basis, dims=1)
            size = [steps * self.settings.coarse for steps in small.shape[2:]]
            full = functional.interpolate(small, size=size, mode="trilinear", align_corners=False)
        i, j, k = self.settings.shape
        return full[:, :, :i, :j, :k]

    @torch.no_grad()
    def draw_style(self, labels: Tensor, generator: Generator | None = None) -> Tensor:
        """Styles (b, style) drawn for label maps (b, 1, i, j, k)."""
        expected = (self._small_labels(labels) - self.label_mean) @ self.regression
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(expected.shape, generator=generator, device=device).to(expected)
        return expected + self.sampling.style_temperature * noise @ self.spread.T

    def draw_noise(self, n: int, generator: Generator | None = None) -> list[Tensor]:
        """Noise (n, 8c, i/2, j/2, k/2) that the flow starts from, one value for every wavelet band.

        Its standard deviation is the ``temperature`` of the options of sampling.
        """
        device = self.mean.device if generator is None else generator.device
        shape = (n, 8 * self.settings.in_channels, *self._half)
        noise = torch.randn(shape, generator=generator, device=device).to(self.mean.device)
        return [self.sampling.temperature * noise]

    @torch.no_grad()
    def paint(
        self, labels: Tensor, style: Tensor, noise: list[Tensor] | None = None, view: Tensor | None = None
    ) -> Tensor:
        """Images (b, c, i, j, k) float32 for labels (b, 1, i, j, k) and styles (b, style).

        Args:
            labels: Label maps.
            style: What the coarse image looks like, from :meth:`draw_style` or :meth:`encode_style`.
            noise: From :meth:`draw_noise`; without it the flow starts from 0 and makes the scan deterministic.
            view: Where there is a scan at all, (b, 1, i, j, k) of 0 and 1; everywhere by default. It is 0 elsewhere.
        """
        inside = torch.ones_like(labels, dtype=torch.float32) if view is None else view.float()
        coarse = self.coarse_image(style)
        shape = (len(labels), 8 * self.settings.in_channels, *self._half)
        at = coarse.new_zeros(shape) if noise is None else noise[0].to(coarse)
        return (coarse + self.colour(self.made(at, coarse, labels, inside))) * inside

    def made(self, at: Tensor, coarse: Tensor, labels: Tensor, inside: Tensor) -> Tensor:
        """What the flow makes of noise: bands of variance 1."""
        steps = self.sampling.solver_steps
        for step in range(steps):
            now, then = (at.new_full((len(at),), (step + more) / steps) for more in (0, 1))
            first = self.velocity(at, now, coarse, labels, inside)
            if step + 1 == steps:
                at = at + first / steps
            else:
                # Heun's second-order rule; the last step is Euler's, where the velocity is known least.
                second = self.velocity(at + first / steps, then, coarse, labels, inside)
                at = at + (first + second) / (2 * steps)
        return at

    def likelihood(self) -> Likelihood:
        """A bound, see :meth:`conditional_log_likelihood`."""
        return Likelihood(
            "bound",
            "log p(scan | labels, field of view), less what Gaussians over the style and over unseen voxels leave out; "
            "an estimate with a standard error, unbiased but for the steps of the solver",
        )

    @torch.no_grad()
    def conditional_log_likelihood(
        self, batch: Batch, samples: int = 4, generator: Generator | None = None, steps: int = 8
    ) -> Estimate:
        """See :func:`medgen.models.likelihoods.painted.bound`; ``steps`` of the solver lead from a scan to noise."""
        if batch.labels is None:
            raise TrainingError("the flow family knows how likely scans are given labels, and these have no masks")
        if samples < 2:
            raise ValueError("expected at least 2 samples: a standard error comes from their differences")
        return bound(self, batch.image.float(), batch.labels, batch.foreground.float(), samples, generator, steps)

    @property
    def styles(self) -> int:
        """How many components of the coarse image the training scans allowed; the others are nothing."""
        return int((self.basis.flatten(1).square().sum(1) > 0).sum())

    def style_log_density(self, style: Tensor, labels: Tensor) -> Tensor:
        """Log N(s; A l + b, C) in nats, (b,) float64, for styles (b, style) and label maps (b, 1, i, j, k)."""
        own = slice(self.styles)
        expected = ((self._small_labels(labels) - self.label_mean) @ self.regression)[:, own].double()
        factor = self.spread[own, own].double()
        return torch.distributions.MultivariateNormal(expected, scale_tril=factor).log_prob(style[:, own].double())

    @torch.no_grad()
    def locate(self, batch: Batch) -> ScanCode:
        """Styles of scans; their label maps as signed distances, and their fields of view."""
        if batch.labels is None:
            raise TrainingError("the flow family paints label maps, and these scans have no masks")
        style = self.encode_style(batch.image, batch.foreground)[0]
        distance = losses.signed_distance(batch.labels, self.settings.n_labels, _TRUNCATION)
        return ScanCode(style, maps=(distance, batch.foreground))

    @torch.no_grad()
    def draw_at(self, place: ScanCode) -> Drawn:
        """Label maps between the given ones, painted from the flow's middle."""
        distance, view = place.maps
        labels = losses.labels_from_distance(distance)[:, None]
        return Drawn(self.paint(labels, place.code, view=(view > 0.5).float()), labels)

    @staticmethod
    def passes(sampling: FlowSampling) -> int:
        """Passes through the network that a scan takes."""
        return 2 * sampling.solver_steps - 1

    def facts(self) -> Sequence[Fact]:
        """How many components the training scans allowed, how rough what they leave is, and what a scan takes."""
        used = self.styles
        left = float(self.bands.square().mean().sqrt())
        passes = self.passes(self.sampling)
        return (
            *super().facts(),
            Fact(
                "style_components", used, "components", "The coarse image of a scan has {value} principal components."
            ),
            Fact(
                "detail",
                left,
                "model intensities",
                "What the coarse images leave of the training scans, and the flow has to make, has a root mean square "
                "of {value:.3f} in model intensities.",
            ),
            Fact("passes", passes, "passes", "Painting a scan takes {value} passes through the network."),
        )

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Fit the coarse images, their regression on labels, and the spread of what they leave."""
        if dataset.labels is None:
            raise TrainingError("the flow family learns from label maps, and these scans have no masks")
        view, images = dataset.foregrounds.float(), dataset.images
        share = self._small(view)
        small = self._small(images * view) / share.clamp_min(1e-6)
        known = (share > _SEEN).float()
        self.mean.copy_((small * known).sum(0) / known.sum(0).clamp_min(1))
        count = max(1, min(self.settings.style, len(images) // 3))
        centred = self._centred(images, view)
        for _ in range(_ROUNDS):
            vectors, values, basis = torch.linalg.svd(centred.flatten(1).double(), full_matrices=False)
            kept = (vectors[:, :count] * values[:count]) @ basis[:count]
            # What a scan does not show is what its style says of it.
            centred = torch.where(known.bool(), centred, kept.float().view_as(centred))
        scale = (values[:count] / len(images) ** 0.5).clamp_min(1e-6)
        self.basis.zero_()
        self.basis[:count].copy_((basis[:count] * scale[:, None]).unflatten(1, self.mean.shape).float())
        styles = vectors[:, :count] * len(images) ** 0.5
        self._regress(styles, self._small_labels(dataset.labels.long()).double(), count)
        self._measure_bands(images, view)

    def _measure_bands(self, images: Tensor, view: Tensor) -> None:
        """Standard deviations of the wavelet bands of what the coarse images leave, where a block is seen whole."""
        squares = [torch.zeros_like(self.bands).flatten() for _ in range(2)]
        counts = [0.0, 0.0]
        for image, seen in zip(images.split(1), view.split(1), strict=True):
            rest = (image - self.coarse_image(self.encode_style(image, seen)[0])) * seen
            for level, (own, count) in enumerate(band_squares(self.even(rest), self.even(seen))):
                squares[level] += own
                counts[level] += count
        for buffer, own, count in zip((self.bands, self.deep_bands), squares, counts, strict=True):
            buffer.copy_((own / max(count, 1.0)).sqrt().clamp_min(1e-4)[:, None, None, None])

    def _regress(self, styles: Tensor, labels: Tensor, count: int) -> None:
        """The Gaussian of styles (n, count) given coarse labels (n, d)."""
        mean, weights, factor = gaussian_regression(labels, styles, _RIDGE)
        self.label_mean.copy_(mean.float())
        self.regression.zero_()
        self.regression[:, :count].copy_(weights.float())
        self.spread.zero_()
        self.spread[:count, :count].copy_(factor.float())

    def velocity(self, at: Tensor, time: Tensor, coarse: Tensor, labels: Tensor, view: Tensor) -> Tensor:
        """v(r_t, t | labels, coarse image, field of view) of the bands (b, 8c, i/2, j/2, k/2) at times (b,)."""
        skip, scale = guess(time[:, None, None, None, None])
        return skip * at + scale * self.network(self._seen(at, coarse, labels, view), time).float()

    def _seen(self, at: Tensor, coarse: Tensor, labels: Tensor, view: Tensor) -> Tensor:
        """What the network sees: detail so far, coarse image in the same units, one-hot labels, field of view."""
        classes = losses.one_hot(labels, self.settings.n_labels + 1)[:, 1:].to(at.dtype)
        conditions = self.even(torch.cat([classes, view.to(at.dtype)], dim=1))
        anatomy = haar(self.even(coarse * view)) / 8**0.5
        return torch.cat([at, _CONTRAST * anatomy, blocks.space_to_depth(conditions)], dim=1)

    @property
    def _half(self) -> list[int]:
        return [size // 2 for size in blocks.padded_shape(self.settings.shape, 2)]

    def even(self, x: Tensor) -> Tensor:
        """With sides that are even: the last voxels are repeated."""
        return blocks.pad_to_multiple(x, 2)

    def _centred(self, x: Tensor, view: Tensor) -> Tensor:
        """Coarse images less their mean, 0 where too little of a block is seen."""
        share = self._small(view)
        return (self._small(x * view) / share.clamp_min(1e-6) - self.mean) * (share > _SEEN)

    def _small(self, x: Tensor) -> Tensor:
        """Means over blocks of ``coarse``³ voxels; at the far end over what is there."""
        return functional.avg_pool3d(x, self.settings.coarse, ceil_mode=True, count_include_pad=False)

    def _small_labels(self, labels: Tensor) -> Tensor:
        """Share of every label in every block, (b, n_labels · blocks) float32."""
        classes = losses.one_hot(labels, self.settings.n_labels + 1)[:, 1:].float()
        return self._small(classes).flatten(1)
