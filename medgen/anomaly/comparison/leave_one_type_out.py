"""Leave one type out: the self-supervised score refitted without the corruptions that are like a kind of implant.

The score learns from corruptions that resemble implants, so its place in a table of implants says little. Refitted
without a group of corruptions, on implants like that group, it shows what it finds without having been told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, State
from medgen.anomaly.scores.catalogue import get
from medgen.anomaly.scores.corrupted_copies import forget_copies
from medgen.anomaly.scores.settings.corruptions import DEFAULT
from medgen.preprocessing.dataset import Dataset
from medgen.progress import Progress
from medgen.transforms.masked_smoothing import smooth

# Corruptions → the implants of medgen.implants.kinds that are like them.
GROUPS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("noise", "jittered"): ("noise", "shuffle"),
    ("offset",): ("uniform", "hypointense", "hyperintense", "multifocal", "lesion"),
    ("blurred",): ("blur",),
    ("radial", "warped"): ("sink", "source"),
    ("moved",): ("shift", "reflection"),
    ("foreign", "seamless"): ("foreign", "poisson"),
}
ZSCORE = "zscore, all development scans"


def label(group: Sequence[str] = ()) -> str:
    """Row name of the score refitted without a group; of the one that learned all corruptions without one."""
    return f"selfsup without {', '.join(group)}" if group else "selfsup, all corruptions"


@dataclass(frozen=True, eq=False)
class Refitted:
    """The self-supervised score in all its versions, and ``zscore``, fitted on all development scans.

    Attributes:
        selfsup: Row name → what that version learned.
        descriptors: What all versions share.
        zscore: What ``zscore`` learned.
        smoothing: Standard deviation in voxels.
    """

    selfsup: Mapping[str, State]
    descriptors: State
    zscore: State
    smoothing: float

    def maps(
        self, image: torch.Tensor, foreground: torch.Tensor, region: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.float32]]:
        """Smoothed score maps (i, j, k) by row name, 0 outside the region.

        Args:
            image: One test scan, (c, i, j, k) float32.
            foreground: (1, i, j, k) boolean.
            region: (i, j, k), where it is scored.
        """
        inputs = Inputs(image[None].float(), foreground[None].bool())
        maps = {name: get("selfsup")(inputs, {**self.descriptors, **own})[0] for name, own in self.selfsup.items()}
        maps[ZSCORE] = get("zscore")(inputs, self.zscore)[0]
        return {name: smooth(values, region, self.smoothing) for name, values in maps.items()}


def refit(
    development: Dataset,
    smoothing: float,
    kinds: Sequence[str] = DEFAULT,
    progress: Progress | None = None,
) -> Refitted:
    """Fit the score with all corruptions and without each group; no model is trained.

    Args:
        development: All development scans; test subjects are held out, so nothing has to be cross-fitted.
        smoothing: Standard deviation in voxels of the smoothing of the maps.
        kinds: Corruptions that the score learns from.
        progress: Called with (versions fitted, all).
    """
    memo: tuple[dict[str, Any], ...] = tuple({} for _ in range(len(development)))
    versions = [(), *(group for group in GROUPS if set(group) & set(kinds) and set(kinds) - set(group))]
    states: dict[str, State] = {}
    for number, group in enumerate(versions, start=1):
        left = tuple(kind for kind in kinds if kind not in group)
        inputs = Inputs(development.images, development.foregrounds.bool(), (), {"corruptions": left}, memo)
        states[label(group)] = get("selfsup").fit(inputs)
        # Corrupted copies belong to one version; descriptors are shared by all.
        for entry in memo:
            forget_copies(entry)
        if progress is not None:
            progress(number, len(versions))
    return Refitted(states, get("descriptors").fit(inputs), get("zscore").fit(inputs), smoothing)
