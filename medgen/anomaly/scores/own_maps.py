"""The maps that models have of their own, as scores: each is a channel by its name, with no file here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.scores.base import Inputs, Score, State
from medgen.models.base import HasVoxelMaps, VoxelMap
from medgen.models.catalogue import available, family_class

# Behind what models are asked for by protocols, before the simple methods of one's own.
_ORDER = 31


def own_maps() -> dict[str, Score]:
    """A score for every map that some family names in its ``maps``.

    >>> own_maps()["code_surprise"].source.split(",")[0]
    'Nats that a code costs under the prior'
    """
    found: dict[str, Score] = {}
    for family in available():
        for name, said in family_class(family).maps.items():
            found.setdefault(name, _score(name, said))
    return found


def _score(name: str, said: VoxelMap) -> Score:
    def read(inputs: Inputs, state: State) -> NDArray[np.float32]:
        return inputs.voxel_maps[name]

    read.__doc__ = said.meaning
    return Score(
        name=name,
        level="voxel",
        needs=HasVoxelMaps,
        fitter=None,
        fit_seconds=None,
        baseline=False,
        local=True,
        costly=said.costly,
        float32=False,
        shares=None,
        from_corruptions=False,
        order=_ORDER,
        function=read,
        own=True,
    )
