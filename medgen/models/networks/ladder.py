"""The two networks of a hierarchical autoencoder: a climb from voxels to coarse features, and the way down again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from medgen.models.networks.blocks import (
    ChannelNorm,
    Conv3,
    Finer,
    ResBlock,
    channels_last,
    depth_to_space,
    finished,
    smooth_start,
    space_to_depth,
)
from medgen.models.networks.code_grid import CodeGrid
from medgen.models.passes import in_slabs


class Climb(nn.Module):
    """Features of a scan at half the resolution, a quarter, and so on, one width each.

    Args:
        channels: Input channels.
        widths: Channels per level, multiples of 16.
        blocks: Residual blocks per level.
    """

    def __init__(self, channels: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.stem = Conv3(8 * channels, widths[0])
        self.stages = nn.ModuleList(nn.Sequential(*(ResBlock(width) for _ in range(blocks))) for width in widths)
        self.narrower = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(b, channels, i, j, k), multiples of 2 to the number of widths, to features, fine to coarse."""
        y = self.stem(channels_last(space_to_depth(x)))
        found = []
        for level, stage in enumerate(self.stages):
            if level:
                y = self.narrower[level - 1](y)
            y = stage(y)
            found.append(y)
        return found


class Descent(nn.Module):
    """From a coarse picture of the scan down to maps of its voxels, with a level of codes wherever there is one.

    Args:
        channels: Channels of the picture that every resolution is shown.
        top: Length of the code of the whole scan, which the coarsest resolution gets at every position.
        widths: Channels per resolution, fine to coarse, as of :class:`Climb`.
        blocks: Residual blocks per resolution.
        codes: Per level of codes, coarse to fine: index of its resolution in ``widths`` and number of codes.
        out: Maps made.
    """

    def __init__(
        self, channels: int, top: int, widths: Sequence[int], blocks: int, codes: Sequence[tuple[int, int]], out: int
    ) -> None:
        super().__init__()
        self.top = nn.Linear(top, widths[-1])
        self.places = [place for place, _ in codes]
        self.levels = nn.ModuleList(CodeGrid(widths[place], number) for place, number in codes)
        self.shown = nn.ModuleList(Conv3(channels, width) for width in widths)
        self.stages = nn.ModuleList(nn.Sequential(*(ResBlock(width) for _ in range(blocks))) for width in widths)
        ups = [Finer(b, a) for a, b in itertools.pairwise(widths)]
        for up in ups:
            smooth_start(up)
        self.wider = nn.ModuleList(ups)
        self.norm = ChannelNorm(widths[0])
        self.head = Conv3(widths[0], 8 * out)
        smooth_start(self.head, scale=0.1)

    def grids(self) -> list[CodeGrid]:
        """The levels of codes, coarse to fine."""
        return [level for level in self.levels if isinstance(level, CodeGrid)]

    def forward(self, picture: Tensor, z: Tensor, code: Callable[[int, CodeGrid, Tensor], Tensor]) -> Tensor:
        """Maps (b, out, i, j, k).

        Args:
            picture: (b, channels, i, j, k), shown to every resolution as means over its blocks.
            z: Codes of the whole scans, (b, top).
            code: Called with number, level and state from coarse to fine; returns that level's codes.
        """
        means = []
        for _ in self.stages:
            picture = functional.avg_pool3d(picture, 2)
            means.append(picture)
        y = self.top(z)[:, :, None, None, None]
        for place in reversed(range(len(means))):
            shown, given = partial(self._shown, place), (means[place], y)
            # Where it begins there is one code for all positions: nothing to cut.
            y = in_slabs(shown, given, 2) if place + 1 < len(means) else shown(*given)
            y = self.stages[place](y)
            for number, level in enumerate(self.grids()):
                if self.places[number] == place:
                    y = level.block(y)
                    y = y + level.embed(code(number, level, y))
        return depth_to_space(finished(self.norm, self.head, y))

    def _shown(self, place: int, mean: Tensor, y: Tensor) -> Tensor:
        """What a resolution starts from: the state of the one below, and the picture."""
        if place + 1 < len(self.stages):
            y = self.wider[place](y)
        return channels_last(self.shown[place](channels_last(mean)) + y)
