"""Vector-quantised autoencoder, and a transformer that knows how likely its codes are: exact likelihood of the code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor
from torch.nn import functional

from medgen.models import losses
from medgen.models.base import GenerativeModel, ModelConfig, VoxelMap, Widths
from medgen.models.facts import Fact, Likelihood
from medgen.models.networks import blocks
from medgen.models.networks.code_book import CodeBook
from medgen.models.networks.code_prior import CodePrior
from medgen.models.networks.cube_networks import CubeDecoder, CubeEncoder, start_linear
from medgen.models.networks.view import field_of_view, usual_view
from medgen.models.sampling import SamplingConfig
from medgen.models.stages import Phase, Stage

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch, Dataset

# Limits of the predicted log-variance: standard deviations of 0.02 to 4.5 in model intensities.
_LOGVAR = (-7.8, 3.0)
# Scans of usual spread that count beside those that show a voxel.
_PRIOR = 4.0
# Scans decoded at a time where no gradient is kept.
_CHUNK = 8


class VqVaeSettings(ModelConfig):
    """Settings of :class:`VqVae`.

    Attributes:
        widths: Channels per level of encoder and decoder, multiples of 16; each level halves the resolution, so that
            a cube of 2^levels voxels along each axis becomes one code.
        blocks: Residual blocks per level.
        codes: Vectors in the book.
        length: Numbers in a vector.
        decay: Of the moving averages that the book follows.
        commitment: Weight of the distance between what is encoded and the book (β of van den Oord et al. 2017).
        background: Weight of voxels outside the foreground, relative to those inside.
        prior_share: Share of the training's steps that the prior gets.
        prior_width: Width of its transformer, a multiple of ``heads``.
        prior_depth: Its blocks.
        heads: Its attention heads.
        dropout: Share of the numbers in its inputs that training hides.
    """

    family: Literal["vqvae"] = "vqvae"
    widths: Widths = (32, 64, 96)
    blocks: int = Field(default=1, ge=1, le=8)
    codes: int = Field(default=256, ge=2, le=16384)
    length: int = Field(default=16, ge=1, le=256)
    decay: float = Field(default=0.97, ge=0, lt=1)
    commitment: float = Field(default=0.25, ge=0)
    background: float = Field(default=0.1, gt=0, le=1)
    prior_share: float = Field(default=0.5, gt=0, lt=1)
    prior_width: int = Field(default=96, ge=4, le=4096)
    prior_depth: int = Field(default=3, ge=1, le=48)
    heads: int = Field(default=4, ge=1, le=64)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.prior_width % self.heads:
            raise ValueError(f"expected prior_width to be a multiple of heads ({self.heads}), found {self.prior_width}")
        return self


class VqVaeSampling(SamplingConfig):
    """Options of sampling from :class:`VqVae`.

    Attributes:
        temperature: The prior's logits are divided by it; below 1 samples are more typical and less diverse.
        top_p: Only the likeliest codes that together have this probability are drawn; 1 is all.
    """

    formerly: ClassVar[Mapping[str, str]] = {"temperature": "temperature", "top_p": "top_p"}
    temperature: float = Field(default=1.0, gt=0, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)


class VqVae(GenerativeModel):
    """VQ-VAE (van den Oord et al. 2017) with a causal transformer over its codes (as VQ-GAN's, Esser et al. 2021).

    Source: van den Oord et al., "Neural discrete representation learning", NeurIPS 2017; Esser et al., "Taming
    transformers for high-resolution image synthesis", CVPR 2021.

    A scan becomes a grid of codes: numbers of vectors in a book, each for one cube of voxels. The first stage trains
    encoder, book and decoder, which gives every voxel a Gaussian; the second a prior p(codes) that is a product of
    conditionals, so that its likelihood is exact, and high where a cube does not follow from the cubes before it
    (Marimont and Tarroni, "Anomaly detection through latent space restoration using VQ-VAEs", ISBI 2021).

    Encoder and decoder add to a linear model (:func:`~medgen.models.networks.cube_networks.start_linear`). The box of a
    scan's field of view is no anatomy (:mod:`medgen.models.networks.view`).
    """

    family: ClassVar[str] = "vqvae"
    Settings: ClassVar[type[VqVaeSettings]] = VqVaeSettings
    maps: ClassVar[dict[str, VoxelMap]] = {
        "code_surprise": VoxelMap(
            "Nats that a code costs under the prior, given the codes before it. As coarse as the grid of codes, and "
            "judged in the order in which the grid lies in memory; what is strange and yet nearest to a common code is "
            "not seen here, but by ``residual`` and ``nll``. Source: Marimont and Tarroni, ISBI 2021; Pinaya et al., "
            "Medical Image Analysis 2022."
        )
    }
    tiny: ClassVar[dict[str, Any]] = {
        "widths": (16, 16),
        "codes": 48,
        "length": 4,
        "prior_width": 32,
        "prior_depth": 1,
        "heads": 2,
    }
    Sampling: ClassVar[type[SamplingConfig]] = VqVaeSampling
    settings: VqVaeSettings
    sampling: VqVaeSampling

    def __init__(self, settings: VqVaeSettings) -> None:
        super().__init__(settings)
        c, length = settings.in_channels, settings.length
        self.encoder = CubeEncoder(c, settings.widths, settings.blocks, length)
        self.decoder = CubeDecoder(length, settings.widths, settings.blocks, 2 * c, c)
        self.book = CodeBook(settings.codes, length, settings.decay)
        factor = self.encoder.factor
        self.grid = [size // factor for size in blocks.padded_shape(settings.shape, factor)]
        transformer = (settings.prior_width, settings.prior_depth, settings.heads, settings.dropout)
        self.prior = CodePrior(self.grid, settings.codes, length, *transformer)
        # The mean scan, which encoder and decoder are beside, and the log-variance that the decoder starts from.
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(c, *settings.shape))
        self.register_buffer("spread", torch.zeros(c, *settings.shape))
        # Where samples show anything.
        self.view: Tensor
        self.register_buffer("view", torch.ones(1, *settings.shape))

    def stages(self) -> Sequence[Stage]:
        """``codes``: encoder, book and decoder; then ``prior``, of the codes that these give."""
        share = self.settings.prior_share
        first = Phase([*self.encoder.parameters(), *self.decoder.parameters()])
        second = Phase(list(self.prior.parameters()), betas=(0.9, 0.95))
        return Stage("codes", {"codes": first}, 1 - share), Stage("prior", {"prior": second}, share)

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood per voxel and commitment of the codes; nats per code of the prior."""
        view = field_of_view(batch.foreground)
        if phase == "prior":
            shown = self._shown(view)
            nll = self.prior.nll(self.codes(batch.image, view), shown)
            return {"loss": losses.weighted_mean(nll[:, None], shown[:, None])}
        return self._codes_loss(batch, view)

    def shared_buffers(self) -> Sequence[Tensor]:
        """The book's moving sums: each process sees other scans."""
        return self.book.state()

    def averaged_buffers(self) -> Sequence[Tensor]:
        """The same: averaged weights meet an averaged book."""
        return self.book.state()

    def encode_grid(self, x: Tensor, view: Tensor | None = None) -> Tensor:
        """What the encoder gives for (b, c, i, j, k) before it becomes codes, (b, i', j', k', length) float32.

        Outside of the field of view (b, 1, i, j, k), by default the box of what is not 0, a scan counts as the mean.
        """
        view = field_of_view(x) if view is None else view
        padded = blocks.pad_to_multiple((x - self.mean) * view, self.encoder.factor)
        return self.encoder(padded).float().movedim(1, -1)

    @torch.no_grad()
    def codes(self, x: Tensor, view: Tensor | None = None) -> Tensor:
        """Numbers of the nearest vectors for (b, c, i, j, k), (b, i', j', k') int64; see :meth:`encode_grid`.

        Cubes of which a scan shows nothing have the code that is nearest to the mean scan.
        """
        view = field_of_view(x) if view is None else view
        z = self.encode_grid(x, view)
        return self.book.nearest(torch.where(self._shown(view)[..., None] > 0, z, 0.0))

    def decode_vectors(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance per voxel, (b, c, i, j, k) each, for vectors (b, i', j', k', length)."""
        maps = blocks.crop_to(self.decoder(vectors.movedim(-1, 1)), self.settings.shape).float()
        change, raw = maps.chunk(2, dim=1)
        low, high = _LOGVAR
        return self.mean + change, low + (high - low) * torch.sigmoid(raw + self.spread)

    @torch.no_grad()
    def decode_codes(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance per voxel, (b, c, i, j, k) each, for codes (b, i', j', k')."""
        parts = [self.decode_vectors(self.book.look_up(part)) for part in codes.split(_CHUNK)]
        mean, logvar = (torch.cat(maps) for maps in zip(*parts, strict=True))
        return mean, logvar

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean of the scan given its own codes, (b, c, i, j, k), 0 outside of its field of view; deterministic."""
        view = field_of_view(x)
        return self.decode_codes(self.codes(x, view))[0] * view

    @torch.no_grad()
    def voxel_nll(self, x: Tensor) -> Tensor:
        """−log N(x; μ(codes), exp s(codes)) in nats per voxel, (b, c, i, j, k).

        A surrogate for −log p(x) per voxel: exact given the codes, which the scan itself has chosen. 0 outside of its
        field of view, where nothing was observed.
        """
        view = field_of_view(x)
        return losses.gaussian_nll(x, *self.decode_codes(self.codes(x, view))) * view

    @torch.no_grad()
    def code_log_likelihood(self, codes: Tensor, view: Tensor | None = None) -> Tensor:
        """Log-probability of grids of codes (b, i', j', k'), in nats, (b,): exact, their probabilities sum to 1.

        With a field of view (b, 1, i, j, k), of the codes of cubes that it shows something of.
        """
        shown = torch.ones_like(codes, dtype=torch.float32) if view is None else self._shown(view)
        nll = self.prior.nll(codes, None if view is None else shown)
        return -(nll * (shown > 0)).flatten(1).sum(1)

    @torch.no_grad()
    def voxel_maps(self, x: Tensor) -> dict[str, Tensor]:
        """``code_surprise``, (b, 1, i, j, k), brought to the voxels by trilinear interpolation.

        A cube surprises as far as the scan shows it.
        """
        view = field_of_view(x)
        shown = self._shown(view)
        # A last digit decides which code is the nearest, and another one surprises differently.
        with blocks.full_precision(x.device):
            codes = self.codes(x, view)
        surprise = (self.prior.nll(codes, shown) * shown)[:, None].float()
        shape = self.settings.shape
        padded = blocks.padded_shape(shape, self.encoder.factor)
        fine = functional.interpolate(surprise, size=padded, mode="trilinear", align_corners=False)
        return {"code_surprise": blocks.crop_to(fine, shape)}

    def likelihood(self) -> Likelihood:
        """A bound, of which one part is exact, see :meth:`log_likelihood`."""
        return Likelihood(
            "bound",
            "log p(code) + log p(scan | code) at the scan's own code; log p(code) is exact under the prior, the sum is "
            "below log p(scan), since all other codes are left out",
        )

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, mask: Tensor | None = None, samples: int = 64, generator: Generator | None = None
    ) -> Tensor:
        """Lower bound on log p(x) = log Σ p(x | codes) p(codes) in nats per scan, (b,): the term of the scan's codes.

        Nothing is drawn, so that ``samples`` and ``generator`` change nothing. Voxels in the field of view count as
        observed, with ``mask`` (b, 1, i, j, k) those inside of both; codes are those of all that the scan shows, which
        keeps it a bound.
        """
        view = field_of_view(x)
        codes = self.codes(x, view)
        nll = losses.gaussian_nll(x, *self.decode_codes(codes))
        weight = view if mask is None else view * mask.float()
        return self.code_log_likelihood(codes, view) - (nll * weight).flatten(1).sum(1)

    def facts(self) -> Sequence[Fact]:
        """How large the grid of codes is, and how much of the book the training scans use."""
        uses = self.prior.seen.sum(0)
        share = uses / uses.sum().clamp_min(1)
        perplexity = float(torch.exp(-torch.special.xlogy(share, share).sum())) if float(uses.sum()) else 0.0
        said = "The training scans use {value} of the " + f"{self.settings.codes} codes in the book."
        alike = "They use them as evenly as {value:.1f} codes that are all used alike (perplexity)."
        return (
            *super().facts(),
            Fact("places", math.prod(self.grid), "codes", "A scan is a grid of {value} codes."),
            Fact("codes_used", int((uses > 0).sum()), "codes", said),
            Fact("perplexity", perplexity, "codes", alike),
        )

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Begin at the mean scan and the principal components of its cubes, with a book by k-means."""
        foreground = dataset.foregrounds.float()
        views = field_of_view(foreground)
        self.view.copy_(usual_view(views))
        weight = (foreground + self.settings.background * (1 - foreground)) * views
        total = weight.sum(0).clamp_min(1e-6)
        self.mean.copy_((weight * dataset.images).sum(0) / total)
        centred = (dataset.images - self.mean.to(dataset.images)) * views
        start_linear(self.encoder, self.decoder, blocks.pad_to_multiple(centred, self.encoder.factor))
        vectors = [self._of_case(dataset, row) for row in range(len(dataset))]
        self.book.start(torch.cat(vectors).flatten(0, -2), per_step=math.prod(self.grid))
        # What the book leaves at every voxel, and a tenth of its mean, so that few scans that agree are no certainty.
        left = torch.zeros_like(self.mean)
        for row, z in enumerate(vectors):
            image, seen = (maps[row].to(left) for maps in (dataset.images, weight))
            left += seen * (image - self.decode_vectors(self.book.look_up(self.book.nearest(z)))[0][0]).square()
        usual = left.sum() / (total.to(left).sum() * len(left)).clamp_min(1e-6)
        # A voxel that few scans show is not known the better for it.
        variance = (left + _PRIOR * usual) / (total.to(left) + _PRIOR)
        low, high = _LOGVAR
        logvar = (variance + 0.1 * usual + 1e-6).log()
        self.spread.copy_(torch.logit(((logvar - low) / (high - low)).clamp(0.02, 0.98)))

    @torch.no_grad()
    def begin_stage(self, name: str, dataset: Dataset) -> None:
        """Before the prior: it takes over the book, and how often each place has which code in the training scans."""
        found = torch.cat([self.book.nearest(self._of_case(dataset, row)) for row in range(len(dataset))])
        views = [self._shown(field_of_view(foreground[None])) for foreground in dataset.foregrounds]
        self.prior.start(found, self.book.vectors, torch.cat(views).to(found.device))

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Means of scans (n, c, i, j, k) whose codes are drawn from the prior, by ``temperature`` and ``top_p``.

        0 where fewer than half of the training scans look.
        """
        device = self.mean.device if generator is None else generator.device
        uniform = torch.rand((n, math.prod(self.grid)), generator=generator, device=device).to(self.mean.device)
        sampling = self.sampling
        blank = self.book.nearest(self.mean.new_zeros(1, self.settings.length))[0]
        shown = (self._shown(self.view[None])[0].flatten(), blank)
        parts = [self.prior.sample(part, sampling.temperature, sampling.top_p, shown) for part in uniform.split(64)]
        return self.decode_codes(torch.cat(parts))[0] * self.view

    def _of_case(self, dataset: Dataset, row: int) -> Tensor:
        batch = dataset.batch([row]).to(self.mean.device)
        return self.encode_grid(batch.image, field_of_view(batch.foreground))

    def _shown(self, view: Tensor) -> Tensor:
        """Share of every cube that lies in a field of view (b, 1, i, j, k), (b, i', j', k') float32."""
        factor = self.encoder.factor
        return functional.avg_pool3d(blocks.pad_to_multiple(view, factor), factor)[:, 0]

    def _codes_loss(self, batch: Batch, view: Tensor) -> dict[str, Tensor]:
        z = self.encode_grid(batch.image, view)
        codes = self.book.nearest(z)
        vectors = self.book.look_up(codes)
        # Straight through: the decoder's gradient goes to what was encoded as if it had not been replaced.
        mean, logvar = self.decode_vectors(z + (vectors - z).detach())
        if self.training and torch.is_grad_enabled():
            self.book.learn(z.detach().flatten(0, -2), codes.flatten())
        weight = (batch.foreground + self.settings.background * (1 - batch.foreground)) * view
        nll = losses.weighted_mean(losses.gaussian_nll(batch.image, mean, logvar), weight)
        commitment = (z - vectors.detach()).square().mean()
        with torch.no_grad():
            rmse = losses.weighted_mean((mean - batch.image).square(), batch.foreground).sqrt()
            share = functional.one_hot(codes.flatten(), self.settings.codes).float().mean(0)
            perplexity = torch.exp(-torch.special.xlogy(share, share).sum())
        loss = nll + self.settings.commitment * commitment
        return {
            "loss": loss,
            "nll": nll.detach(),
            "commitment": commitment.detach(),
            "rmse": rmse,
            "perplexity": perplexity,
        }
