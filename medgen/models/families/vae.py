"""Hierarchical variational autoencoder: a code of the whole scan, grids of codes below it, a Gaussian per voxel."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from medgen.models import losses
from medgen.models.base import ScanCode, VoxelMap
from medgen.models.code_model import CodeFlowSettings, CodeModel, CodeModels, Seen
from medgen.models.facts import Fact, Likelihood
from medgen.models.hierarchical import Decoded, HierarchicalModel, HierarchicalSettings, means
from medgen.models.latent import aggregated_posterior, randn_beside, reparametrise
from medgen.models.networks import blocks
from medgen.models.networks.code_grid import CodeGrid, Codes
from medgen.models.passes import once, scans_at_once
from medgen.models.sampling import GaussianSampling, SamplingConfig
from medgen.models.stages import Phase, Stage

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch, Dataset

logger = logging.getLogger(__name__)

# Draws of codes decoded at a time, and nats per scan below which a level of codes says nothing.
_CHUNK, _COLLAPSED = 8, 1.0
# The phase, and the stage, that trains the flow of codes.
_FLOW = "flow"


class VaeSettings(HierarchicalSettings):
    """Settings of :class:`Vae`.

    Attributes:
        beta: Weight of the KL divergence; 1 is the evidence lower bound.
        free_bits: Nats that cost nothing, for every number of every code.
        warmup: Share of the training during which ``beta`` rises from 0.
        typical: Standard deviations of the prior that the grids of a reconstruction keep within; 0 is no limit. What is
            unlike healthy scans is then rebuilt as what is most like it.
        code_flow: The flow that grids of codes of new scans are drawn by, trained in a stage of its own; without it
            they are drawn from their priors, with the spread that training scans have at each place.
    """

    family: Literal["vae"] = "vae"
    beta: float = Field(default=1.0, ge=0)
    free_bits: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.3, ge=0, le=1)
    typical: float = Field(default=2.0, ge=0)
    code_flow: CodeFlowSettings | None = None

    def ramp(self, progress: float) -> float:
        """Factor in [0, 1] that rises linearly over the warm-up."""
        return min(1.0, progress / self.warmup) if self.warmup > 0 else 1.0


class VaeSampling(GaussianSampling):
    """Options of sampling from :class:`Vae`.

    Attributes:
        solver_steps: Steps of the solver from noise to a grid of codes, two passes through the network of the flow
            each; only models with ``code_flow`` have one.
    """

    solver_steps: int = Field(default=6, ge=1, le=1000)


class Vae(HierarchicalModel):
    """3D VAE (Kingma and Welling 2014) of a hierarchy of codes, with a predicted variance for every voxel.

    Source: Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014; Sønderby et al., "Ladder variational
    autoencoders", NeurIPS 2016.

    Offers reconstruction, likelihood per scan (a bound) and per voxel (a surrogate), the top code, and samples, which
    are decoder means and therefore smooth.

    With ``code_flow`` a second stage learns by flow matching how codes of the trained model really are, beyond their
    priors (a latent flow, as the latent diffusion of Rombach et al., CVPR 2022, or the latent score model of Vahdat et
    al., NeurIPS 2021, on frozen codes). It is what new scans are drawn by and nothing else: likelihoods, bounds and
    maps are under the priors, and the same numbers as without it.
    """

    family: ClassVar[str] = "vae"
    Settings: ClassVar[type[VaeSettings]] = VaeSettings
    maps: ClassVar[dict[str, VoxelMap]] = {
        "code_kl": VoxelMap(
            "KL divergence of the grids of codes from their prior in nats per voxel: what the codes above and around a "
            "place do not lead to expect there. A part of ``nll`` as well. Source: Sønderby et al., NeurIPS 2016; "
            "Zimmerer et al., MIDL 2019.",
            fused=False,
        )
    }
    tiny: ClassVar[dict[str, Any]] = {
        "widths": (16, 32),
        "latent": 2,
        "codes": ((4, 2), (2, 2)),
        "code_flow": {"share": 0.2, "widths": (16,)},
    }
    Sampling: ClassVar[type[SamplingConfig]] = VaeSampling
    settings: VaeSettings
    sampling: VaeSampling

    def __init__(self, settings: VaeSettings) -> None:
        super().__init__(settings)
        # The aggregated posterior that samples are drawn from, and nats per scan of every level, after training.
        self.latent_mean: Tensor
        self.latent_factor: Tensor
        self.level_nats: Tensor
        self.register_buffer("latent_mean", torch.zeros(settings.latent))
        self.register_buffer("latent_factor", torch.eye(settings.latent))
        self.register_buffer("level_nats", torch.zeros(1 + len(settings.codes)))
        # Last, so that all other weights begin as they do without it.
        self.code_models = CodeModels(self._code_models())

    def _code_models(self) -> list[CodeModel]:
        """What each grid of new scans is drawn from."""
        settings = self.settings
        shape = blocks.padded_shape(settings.shape, self._factor)
        return [
            CodeModel(settings.widths[place], codes, [size // side for size in shape], settings.code_flow)
            for place, (side, codes) in zip(self.decoder.places, settings.codes, strict=True)
        ]

    def stages(self) -> Sequence[Stage]:
        """All that the bound depends on; then, where there is one, the flow of the codes that this gives."""
        flow = self.settings.code_flow
        own = {id(parameter) for parameter in self.code_models.parameters()}
        # Phases of one name have the same draws, so that the first stage is the training without a flow, bit for bit.
        first = {"all": Phase([parameter for parameter in self.parameters() if id(parameter) not in own])}
        if flow is None:
            return (Stage("training", first),)
        second = {_FLOW: Phase(list(self.code_models.parameters()))}
        return Stage("autoencoder", first, 1 - flow.share), Stage(_FLOW, second, flow.share)

    @torch.no_grad()
    def begin_stage(self, name: str, dataset: Dataset) -> None:
        """Before the flow: measure the spread of codes at every place of the grids."""
        device = self.latent_mean.device
        scans = (dataset.batch([row]).to(device).image for row in range(len(dataset)))
        self.code_models.measure(self._drawn_codes(image) for image in scans)

    @torch.no_grad()
    def _drawn_codes(self, x: Tensor) -> list[Seen]:
        """Of every grid codes drawn from the posteriors of scans, and the states that these codes meet."""
        found: list[Seen] = []
        features = self.features(x)
        z = reparametrise(*self.top_posterior(x, features))
        self.infer(x, z, features, reparametrise, watch=lambda state, grid: found.append((grid.standardised(), state)))
        return found

    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """(Weighted NLL + β · KL) / weighted number of voxels, in nats per voxel, and its parts.

        Logged: ``nll``, the KL of every level in nats per scan (``kl_level0`` is the top code), ``rmse`` in the
        foreground.
        """
        if phase == _FLOW:
            seen = blocks.pad_to_multiple(batch.foreground, self._factor)
            weight = seen + self.settings.background * (1 - seen)
            return {"loss": self.code_models.error(self._drawn_codes(batch.image), weight)}
        settings, x = self.settings, batch.image
        features = self.features(x)
        mean, logvar = self.top_posterior(x, features)
        decoded, grids = self.infer(x, reparametrise(mean, logvar), features, reparametrise)
        weight = batch.foreground + settings.background * (1 - batch.foreground)
        nll = losses.weighted_mean(losses.gaussian_nll(x, decoded.mean, decoded.logvar), weight)
        nats = [losses.kl_standard_normal(mean, logvar), *(grid.kl().flatten(1) for grid in grids)]
        cost = torch.stack([losses.free_bits(kl, settings.free_bits) for kl in nats]).sum()
        voxels = (weight.sum() * settings.in_channels / len(weight)).clamp_min(1)
        with torch.no_grad():
            rmse = losses.weighted_mean((decoded.mean - x).square(), batch.foreground).sqrt()
        levels = {f"kl_level{number}": kl.sum(1).mean().detach() for number, kl in enumerate(nats)}
        penalty = settings.beta * settings.ramp(batch.progress) * cost
        return {"loss": nll + penalty / voxels, "nll": nll.detach(), "rmse": rmse, **levels}

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Decoder mean at the posterior means, (b, c, i, j, k); grids keep within ``typical`` of their prior.

        Deterministic.
        """
        return self._at_means(x, self.settings.typical)[0].mean

    @torch.no_grad()
    def locate(self, batch: Batch) -> ScanCode:
        """The codes of scans by their posterior means, those that :meth:`reconstruct` decodes."""
        z = self.encode(batch.image)[0]
        return self.standardised(z, [grid.code for grid in self._at_means(batch.image, self.settings.typical)[1]])

    @torch.no_grad()
    def voxel_nll(self, x: Tensor) -> Tensor:
        """How unlikely every voxel is, in nats, (b, c, i, j, k): a surrogate, the mean of two for −log p(x).

        One is −log p(x | z₀) at the posterior mean, by the anatomy at large; the other :meth:`voxel_bound`, by what is
        around. A lesion that grids could rebuild is unlike the first, and a texture that fits in is unlike the second.
        """
        features = self.features(x)
        decoded = self.decode(self.top_posterior(x, features)[0])
        return 0.5 * (losses.gaussian_nll(x, decoded.mean, decoded.logvar) + self.voxel_bound(x))

    @torch.no_grad()
    def voxel_bound(self, x: Tensor) -> Tensor:
        """The negative evidence lower bound where it arises, in nats per voxel, (b, c, i, j, k).

        −log N(x; μ, exp s) at the posterior means, plus the KL of the grids, spread over the voxels of each position
        (and over channels): what a code explains well is unlikely all the same if the code is.
        """
        decoded, grids = self._at_means(x)
        nll = losses.gaussian_nll(x, decoded.mean, decoded.logvar)
        return nll + self.voxel_kl(grids) / self.settings.in_channels

    @torch.no_grad()
    def voxel_maps(self, x: Tensor) -> dict[str, Tensor]:
        """``code_kl``, (b, 1, i, j, k), at the posterior means."""
        return {"code_kl": self.voxel_kl(self._at_means(x)[1])}

    @once
    def _at_means(self, x: Tensor, typical: float = 0.0) -> tuple[Decoded, list[Codes]]:
        """The prediction of scans by the posterior means, and the grids."""
        features = self.features(x)
        return self.infer(x, self.top_posterior(x, features)[0], features, means, typical)

    def voxel_kl(self, grids: list[Codes]) -> Tensor:
        """KL of the grids in nats per voxel, (b, 1, i, j, k): each position's, interpolated over its voxels."""
        maps = []
        for (side, _), grid in zip(self.settings.codes, grids, strict=True):
            share = grid.kl().sum(1, keepdim=True) / side**3
            maps.append(functional.interpolate(share, scale_factor=side, mode="trilinear", align_corners=False))
        return blocks.crop_to(torch.stack(maps).sum(0), self.settings.shape)

    def facts(self) -> tuple[Fact, ...]:
        """What every level of codes holds of the training scans, and what new scans are drawn by."""
        said = ("gaussian", "with the spread that training scans have (no model.code_flow was asked for)")
        if self.settings.code_flow is not None:
            said = ("flow", "as model.code_flow asked; the likelihood is under the priors, as without it")
        drawn = "New scans draw their grids of codes by a {value} model of what their priors leave, "
        levels = ["top code", *(f"grid of codes at every {side} voxels" for side, _ in self.settings.codes)]
        return (
            *super().facts(),
            Fact("code_model", said[0], "", f"{drawn}{said[1]}."),
            *(
                Fact(
                    f"nats_level{n}", nats, "nats per scan", f"The {name} holds {{value:.1f}} nats of a training scan."
                )
                for n, (name, nats) in enumerate(zip(levels, self.level_nats.tolist(), strict=True))
            ),
        )

    def likelihood(self) -> Likelihood:
        """A bound, see :meth:`log_likelihood`."""
        return Likelihood("bound", "the importance-weighted lower bound on log p(x)")

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, mask: Tensor | None = None, samples: int = 64, generator: Generator | None = None
    ) -> Tensor:
        """Lower bound on log p(x) in nats per scan, (b,): the importance-weighted bound with ``samples`` draws.

        With ``mask`` (b, 1, i, j, k) only the voxels inside count as observed; codes are still inferred from the whole
        scan, which keeps it a bound (:func:`medgen.models.losses.iwae_bound`).
        """
        log_p_x, log_ratio, _ = self._importance(x, mask, samples, generator)
        return losses.iwae_bound(log_p_x, log_ratio, torch.zeros_like(log_ratio))

    @torch.no_grad()
    def elbo(
        self, x: Tensor, mask: Tensor | None = None, samples: int = 8, generator: Generator | None = None
    ) -> Tensor:
        """Evidence lower bound on log p(x) in nats per scan, (b,), each KL in closed form given the codes above it."""
        log_p_x, _, kl = self._importance(x, mask, samples, generator)
        return (log_p_x - kl).mean(0)

    def _importance(
        self, x: Tensor, mask: Tensor | None, samples: int, generator: Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log p(x | z), log p(z) − log q(z | x) and KL, (samples, b) each, for draws of all codes."""
        settings = self.settings
        shape = blocks.padded_shape(settings.shape, self._factor)
        sizes = [(settings.latent,), *((codes, *(size // side for size in shape)) for side, codes in settings.codes)]
        finest = [size // 2 for size in shape]
        at_once = min(_CHUNK, scans_at_once(settings.widths[0], finest, x.device))
        weight = torch.ones_like(x) if mask is None else mask.float().expand_as(x)
        columns = []
        # One scan at a time, and few draws, so that memory stays at a few volumes.
        for scan, counted in zip(x.split(1), weight.split(1), strict=True):
            seen: list[Tensor] = self.features(scan)
            mean, logvar = self.top_posterior(scan, seen)
            rows: list[Tensor] = []
            for several in torch.arange(samples).split(_CHUNK):
                # Drawn together, so that draws do not depend on how many are decoded together.
                noise = [randn_beside((len(several), *size), generator, mean) for size in sizes]
                for part in zip(*(own.split(at_once) for own in noise), strict=True):
                    rows.append(self._weighed(scan, counted, seen, (mean, logvar), part))
            columns.append(torch.cat(rows, dim=1))
        log_p_x, ratio, kl = torch.stack(columns, dim=2)
        return log_p_x, ratio, kl

    def _weighed(
        self,
        scan: Tensor,
        counted: Tensor,
        seen: list[Tensor],
        top: tuple[Tensor, Tensor],
        noise: Sequence[Tensor],
    ) -> Tensor:
        """As :meth:`_importance`, (3, n), for n draws of one scan by standard normal numbers of every level."""
        mean, logvar = (own.expand(len(noise[0]), -1) for own in top)
        left = iter(noise)

        def draw(mean: Tensor, logvar: Tensor) -> Tensor:
            return mean + torch.exp(0.5 * logvar) * next(left)

        z = draw(mean, logvar)
        decoded, grids = self.infer(scan, z, seen, draw)
        zero = torch.zeros_like(z)
        codes = [Codes(z, mean, logvar, zero, zero), *grids]
        nll = (losses.gaussian_nll(scan, decoded.mean, decoded.logvar) * counted).flatten(1).sum(1)
        ratio = torch.stack([level.log_ratio() for level in codes]).sum(0)
        kl = torch.stack([level.kl().flatten(1).sum(1) for level in codes]).sum(0)
        return torch.stack([-nll, ratio, kl])

    @torch.no_grad()
    def finalize(self, dataset: Dataset) -> None:
        """Fit the top code's :func:`~medgen.models.latent.aggregated_posterior`, and measure what each level holds."""
        tops, nats = [], torch.zeros_like(self.level_nats)
        for number in range(len(dataset)):
            x = dataset.batch([number]).to(self.latent_mean.device).image
            features = self.features(x)
            mean, logvar = self.top_posterior(x, features)
            tops.append((mean, logvar))
            grids = self.infer(x, mean, features, means)[1]
            levels = [losses.kl_standard_normal(mean, logvar), *(grid.kl() for grid in grids)]
            nats += torch.stack([kl.sum() for kl in levels])
        mean, factor = aggregated_posterior(torch.cat([top[0] for top in tops]), torch.cat([top[1] for top in tops]))
        self.latent_mean.copy_(mean)
        self.latent_factor.copy_(factor)
        self.level_nats.copy_(nats / len(dataset))
        self.measure_grids(dataset)
        if self.settings.code_flow is None:
            # A flow has been trained on the spread that was measured before it.
            self.begin_stage("training", dataset)
        for number, value in enumerate(self.level_nats.tolist()):
            if value < _COLLAPSED:
                logger.warning(
                    "level %d of the codes holds %.2f nats per scan: it has collapsed, and says nothing; lower "
                    "model.beta or raise model.free_bits",
                    number,
                    value,
                )

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Images (n, c, i, j, k): decoder means, top codes from the aggregated posterior.

        Grids are drawn by the flow, where there is one, else from their priors; with the spread that codes of training
        scans have at each place.
        """
        shaped, levels = self.sampling.shaped, self.code_models.levels()
        draws = shaped(randn_beside((n, len(self.latent_mean)), generator, self.latent_mean))
        z = self.latent_mean + draws @ self.latent_factor.T

        def drawn(number: int, level: CodeGrid, state: Tensor, made: Tensor) -> Tensor:
            shape = (len(state), level.codes, *state.shape[2:])
            noise = shaped(randn_beside(shape, generator, self.latent_mean))
            return level.draw(state, levels[number].draw(noise, state, self.sampling.solver_steps))

        return torch.cat([self._descend(part, drawn).mean for part in z.split(_CHUNK)])
