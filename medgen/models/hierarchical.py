"""A hierarchy of codes: one of the whole scan, grids of codes below it, and the networks that lead down to voxels."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from medgen.models.base import Drawn, GenerativeModel, ModelConfig, ScanCode, Widths
from medgen.models.networks import blocks
from medgen.models.networks.block_codes import BlockCodes
from medgen.models.networks.code_grid import CodeGrid, Codes
from medgen.models.networks.ladder import Climb, Descent
from medgen.models.networks.linear import LinearModel
from medgen.models.passes import once

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Dataset

# Limits of the predicted log-variance: standard deviations of 0.02 to 4.5 in model intensities.
LOGVAR_RANGE = (-7.8, 3.0)
# Limits of the top code's log-variance, and its value before the first step.
_TOP_RANGE, _START_LOGVAR = (-12.0, 6.0), -4.0
# Share of the mean variance of the grids that every voxel has at least.
_FLOOR = 0.1

# Makes the codes of a grid: number, level, state of the decoder, and what is made so far, all on the padded grid.
Chooser = Callable[[int, CodeGrid, Tensor, Tensor], Tensor]
Draw = Callable[[Tensor, Tensor], Tensor]
# Looks on: the state of the decoder that a grid meets, and its codes.
Watch = Callable[[Tensor, Codes], None]


class HierarchicalSettings(ModelConfig):
    """Settings of a model with a hierarchy of codes.

    Attributes:
        widths: Channels per resolution, multiples of 16; the first is at half the resolution, each next at half again.
        blocks: Residual blocks per resolution, in the encoder and in the decoder.
        latent: Length of the top code: principal components of the training scans.
        codes: Grids of codes, coarse to fine: voxels along an axis that share a position (2, 4 or 8), and numbers at
            each position.
        background: Weight of voxels outside the foreground, relative to those inside.
    """

    widths: Widths = (32, 64)
    blocks: int = Field(default=1, ge=1, le=8)
    latent: int = Field(default=24, ge=1, le=4096)
    codes: tuple[tuple[int, int], ...] = Field(default=((4, 16),), min_length=1)
    background: float = Field(default=0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _grids_fit(self) -> HierarchicalSettings:
        sides = [side for side, _ in self.codes]
        if any(side not in (2, 4, 8) or side > 2 ** len(self.widths) for side in sides) or sides != sorted(sides)[::-1]:
            raise ValueError(
                f"codes: expected blocks of 8, 4 or 2 voxels, coarse to fine, at most {2 ** len(self.widths)} with "
                f"{len(self.widths)} widths, found {sides}"
            )
        for side, number in self.codes:
            if not 1 <= number < self.in_channels * side**3:
                raise ValueError(f"codes: expected 1 to {self.in_channels * side**3 - 1} numbers for {side}³ voxels")
        return self


class Decoded(NamedTuple):
    """A prediction of a scan: mean and log-variance per voxel, (b, c, i, j, k) each."""

    mean: Tensor
    logvar: Tensor


class HierarchicalModel(GenerativeModel, ABC):
    """p(x) = ∫ p(x | z₀, z₁, ...) ... p(z₁ | z₀) p(z₀) dz with Gaussians throughout (Sønderby et al., NeurIPS 2016).

    The top code z₀ ~ N(0, I) is that of probabilistic principal components of whole scans, the anatomy at large. Each
    grid z₁, z₂, ... starts as principal components of blocks of voxels, the same at every place, with a prior that is
    their regression on neighbours (:class:`~medgen.models.networks.code_grid.CodeGrid`). Networks learn what is not
    linear: priors and posteriors given the levels above (a ladder, as in Vahdat and Kautz, "NVAE", 2020, and Child,
    "Very deep VAEs", 2021), mean and variance of every voxel. No layer is as large as the scan but the principal
    components, so that the same networks serve any grid. Starting linear is also what keeps codes from being ignored.

    ``encode`` is the top code, and ``decode`` what it says of a scan without the grids: p(x | z₀), with the grids as
    they are expected and their variance added to the voxels'.
    """

    settings: HierarchicalSettings

    def __init__(self, settings: HierarchicalSettings) -> None:
        super().__init__(settings)
        c, widths = settings.in_channels, settings.widths
        self.linear = LinearModel(settings.latent, c, 0, settings.shape)
        self.block_codes = nn.ModuleList(BlockCodes(side, number, c) for side, number in settings.codes)
        self.encoder = Climb(2 * c, widths, settings.blocks)
        places = [(side.bit_length() - 2, number) for side, number in settings.codes]
        self.decoder = Descent(2 * c, settings.latent, widths, settings.blocks, places, 2 * c)
        # What the encoder's features, averaged over the scan, add to the linear scores, and the posterior's variance.
        self.top = nn.Linear(widths[-1], 2 * settings.latent)
        with torch.no_grad():
            self.top.weight.mul_(0.01)
            self.top.bias.zero_()
            self.top.bias[settings.latent :] = _START_LOGVAR

        # Variance per voxel that the grids hold: what of a scan its top code does not say.
        self.grid_variance: Tensor
        self.register_buffer("grid_variance", torch.zeros(c, *settings.shape))

    def phases(self) -> dict[str, list[nn.Parameter]]:
        """One phase with everything."""
        return {"all": list(self.parameters())}

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the top code, (b, d) each, for images (b, c, i, j, k)."""
        return self.top_posterior(x, self.features(x))

    @once
    def top_posterior(self, x: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """As :meth:`encode`, where the scans' :meth:`features` are known."""
        shift, logvar = self.top(features[-1].mean((2, 3, 4))).float().chunk(2, dim=1)
        return self.linear.scores(x) + shift, logvar.clamp(*_TOP_RANGE)

    @once
    def decode(self, z: Tensor) -> Decoded:
        """p(x | z₀) for top codes (b, d), with the grids at their prior means; deterministic.

        To the voxels' variance that is added by which training scans differed from this (:meth:`measure_grids`).
        """
        decoded = self._descend(z, lambda number, level, state, made: level.draw(state))
        return Decoded(decoded.mean, torch.logaddexp(decoded.logvar, self.grid_variance.clamp_min(1e-9).log()))

    def infer(
        self,
        x: Tensor,
        z: Tensor,
        features: list[Tensor],
        draw: Draw,
        typical: float = 0.0,
        watch: Watch | None = None,
    ) -> tuple[Decoded, list[Codes]]:
        """The prediction of scans (b, c, i, j, k) by their codes, and the grids, coarse to fine.

        Args:
            x: The scans; one may serve several top codes.
            z: Their top codes (b, d).
            features: The scans' :meth:`features`.
            draw: Makes a code of mean and log-variance of its posterior.
            typical: Standard deviations of the prior that codes are kept within before decoding; 0 is no limit.
            watch: Shown every grid on the way.
        """
        scan = blocks.pad_to_multiple(x.float(), self._factor)
        grids: list[Codes] = []

        def inferred(number: int, level: CodeGrid, state: Tensor, made: Tensor) -> Tensor:
            block = self._block(number)
            map_ = features[self.decoder.places[number]]
            guess, logvar = block.scores(scan - made), block.logvar[:, None, None, None]
            posterior = level.posterior(state, map_.expand(len(state), *map_.shape[1:]), guess, logvar)
            code = draw(*posterior)
            prior = level.prior(state, code)
            if typical:
                reach = typical * torch.exp(0.5 * prior[1])
                code = prior[0] + torch.clamp(code - prior[0], -reach, reach)
            grids.append(Codes(code, *posterior, *prior))
            if watch is not None:
                watch(state, grids[-1])
            return code

        return self._descend(z, inferred), grids

    @torch.no_grad()
    def standardised(self, z: Tensor, grids: list[Tensor]) -> ScanCode:
        """Top codes (b, d) and grids as a place that scans can be drawn at.

        Grids are kept as standard deviations from what their prior expects given all above and before, so that they
        still make sense below another top code.
        """
        noise: list[Tensor] = []

        def given(number: int, level: CodeGrid, state: Tensor, made: Tensor) -> Tensor:
            mean, logvar = level.prior(state, grids[number])
            noise.append((grids[number] - mean) * torch.exp(-0.5 * logvar))
            return grids[number]

        self._descend(z, given)
        return ScanCode(z, tuple(noise))

    @torch.no_grad()
    def draw_at(self, place: ScanCode) -> Drawn:
        """The decoder's means; without noise the grids are those expected."""
        noise = place.noise or (None,) * len(self.settings.codes)
        return Drawn(
            self._descend(place.code, lambda number, level, state, made: level.draw(state, noise[number])).mean
        )

    @once
    def features(self, x: Tensor) -> list[Tensor]:
        """What the encoder sees in scans (b, c, i, j, k) and in what principal components leave, fine to coarse."""
        coarse = self.linear(self.linear.scores(x))[0]
        found: list[Tensor] = self.encoder(blocks.pad_to_multiple(torch.cat([x - coarse, coarse], dim=1), self._factor))
        return found

    def carried_buffers(self) -> list[Tensor]:
        """The codes of blocks: priors and posteriors are about these codes, and blocks are alike in other scans."""
        return list(self.block_codes.buffers())

    @torch.no_grad()
    def initialize(self, dataset: Dataset) -> None:
        """Start as probabilistic PCA of whole scans, and below as that of blocks of what is left."""
        self.linear.fit(dataset.images, self._trust(dataset.foregrounds), dataset.images[:, :0])
        device = self.linear.mean.device
        seen = blocks.pad_to_multiple(dataset.foregrounds.float(), self._factor)
        # Scan by scan into one tensor: nothing else of the cohort's size is made beside it.
        rest = torch.empty((len(dataset), dataset.channels, *seen.shape[2:]), device=device)
        for own, image in zip(rest, dataset.images.split(1), strict=True):
            x = image.to(device)
            own.copy_(blocks.pad_to_multiple(x - self.linear(self.linear.scores(x))[0], self._factor)[0])
        for number, (side, _) in enumerate(self.settings.codes):
            block, level = self._block(number), self.decoder.grids()[number]
            block.fit(rest, seen)
            scores = torch.cat([block.scores(x) for x in rest.split(1)])
            level.fit(scores, block.logvar, functional.avg_pool3d(seen, side).to(device))
            for own, z in zip(rest, scores.split(1), strict=True):
                own.sub_(block(z)[0])
        squares, total = torch.zeros_like(self.linear.spread), torch.zeros_like(self.linear.weight)
        for own, shown in zip(rest.split(1), dataset.foregrounds, strict=True):
            near = self._trust(shown.to(device))
            squares += near * blocks.crop_to(own, self.settings.shape)[0].square()
            total += near
        variance = squares / total
        low, high = LOGVAR_RANGE
        # Half of the mean variance everywhere, so that few scans which happen to agree are no certainty.
        logvar = (variance + 0.5 * variance.mean() + 1e-6).log()
        self.linear.spread.copy_(torch.logit(((logvar - low) / (high - low)).clamp(0.02, 0.98)))

    @torch.no_grad()
    def measure_grids(self, dataset: Dataset) -> None:
        """Measure by how much training scans differ from what their top codes say, beyond the predicted variance.

        Mean square per voxel of the foreground over degrees of freedom, plus a tenth of its mean, so that few scans
        which happen to agree are no certainty.
        """
        self.grid_variance.zero_()
        squares, predicted = torch.zeros_like(self.grid_variance), torch.zeros_like(self.grid_variance)
        count = torch.zeros_like(self.grid_variance[:1])
        for number in range(len(dataset)):
            batch = dataset.batch([number]).to(count.device)
            decoded, seen = self.decode(self.encode(batch.image)[0]), batch.foreground[0]
            squares += seen * (batch.image - decoded.mean)[0].square()
            predicted += seen * decoded.logvar[0].exp()
            count += seen
        freedom = len(dataset) / max(1, len(dataset) - 1 - min(self.settings.latent, len(dataset) // 2))
        known = count.clamp_min(1)
        usual = freedom * squares.sum() / (count.sum() * len(squares)).clamp_min(1)
        left = torch.where(count > 0, freedom * squares / known, usual)
        self.grid_variance.copy_((left - predicted / known).clamp_min(0) + _FLOOR * usual)

    def _trust(self, shown: Tensor) -> Tensor:
        """The weight of voxels in the likelihood, by whether they show the patient."""
        return torch.where(shown, 1.0, self.settings.background)

    @property
    def _factor(self) -> int:
        return 2 ** len(self.settings.widths)

    def _block(self, number: int) -> BlockCodes:
        block: Any = self.block_codes[number]
        found: BlockCodes = block
        return found

    def _descend(self, z: Tensor, choose: Chooser) -> Decoded:
        """From top codes (b, d) down to the voxels; ``choose`` makes the codes of every grid on the way."""
        settings = self.settings
        c = settings.in_channels
        coarse = blocks.pad_to_multiple(self.linear(z)[0], self._factor)
        usual = blocks.pad_to_multiple(self.linear.mean[None], self._factor)
        made = [coarse]

        def code(number: int, level: CodeGrid, state: Tensor) -> Tensor:
            chosen = choose(number, level, state, made[-1])
            made.append(made[-1] + self._block(number)(chosen))
            return chosen

        maps = self.decoder(torch.cat([coarse, usual.expand_as(coarse)], dim=1), z, code)
        whole = blocks.crop_to(made[-1] + maps[:, :c].float(), settings.shape)
        raw = blocks.crop_to(maps[:, c:].float(), settings.shape) + self.linear.spread
        low, high = LOGVAR_RANGE
        return Decoded(whole, low + (high - low) * torch.sigmoid(raw))


def means(mean: Tensor, logvar: Tensor) -> Tensor:
    """The mean of a posterior: what is drawn where nothing is random."""
    return mean
