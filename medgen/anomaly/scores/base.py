"""Scores by name: a score is one function from a scan (and a model, where it needs one) to "how unusual is this"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgen.errors import ConfigError
from medgen.models.base import HasLatent, HasVoxelMaps, Reconstructs, ScanModel
from medgen.preprocessing.dataset import Dataset
from medgen.system.precision import Precision

# Voxels that pass through a model at a time: bounds memory, whatever the numbers of scans and of their voxels.
_CHUNK_VOXELS = 1 << 22
# The place of scores that ask for none: behind all that do, by name.
_LAST = 1000

Level = Literal["voxel", "scan"]
# What a score learned from the training scans: named arrays, kept in the artifact as they are.
State = Mapping[str, NDArray[Any]]
Scorer = Callable[["Inputs", State], NDArray[np.float32]]
Fitter = Callable[["Inputs"], dict[str, NDArray[Any]]]
FitSeconds = Callable[[int, torch.device, Mapping[str, Any]], float]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Prepared scans on the model grid, with what a model says about them computed once for all scores.

    Attributes:
        image: (b, c, i, j, k) float32, on any device.
        foreground: (b, 1, i, j, k) boolean, True where the scan shows the patient.
        models: Trained models, in evaluation mode; a score uses the first, or all, that offer what it needs.
        settings: What scores read by name, such as ``likelihood_samples``.
        memo: One dictionary per scan for what costs time and depends on the scan alone, so that the folds share it.
        bf16: Whether models compute in bfloat16 under autocast, as in training; see :attr:`Score.float32`.
        learned: What scores have learned from exactly these scans, by name, so that it is learned once.
        shared: What several scores make of these scans and of what one of them has learned, so that it is made once.
    """

    image: Tensor
    foreground: Tensor
    models: tuple[ScanModel, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    memo: tuple[dict[str, Any], ...] = ()
    bf16: bool = False
    learned: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.memo:
            object.__setattr__(self, "memo", tuple({} for _ in range(len(self))))

    @classmethod
    def of(cls, dataset: Dataset, *models: ScanModel, **settings: Any) -> Inputs:
        """All scans of a data set as one batch."""
        return cls(dataset.images, dataset.foregrounds.bool(), models, settings)

    def __len__(self) -> int:
        return int(self.image.shape[0])

    @cached_property
    def voxels(self) -> NDArray[np.float32]:
        """The image as a NumPy array (b, c, i, j, k), 0 outside the foreground."""
        return np.asarray((self.image * self.foreground).cpu().numpy(), dtype=np.float32)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """The foreground as a NumPy array (b, i, j, k)."""
        return np.asarray(self.foreground[:, 0].cpu().numpy(), dtype=bool)

    @property
    def chunks(self) -> Sequence[Tensor]:
        """The image in parts that pass through a model one by one: 4 million voxels each, but a scan at least."""
        return self.image.split(max(1, _CHUNK_VOXELS // math.prod(self.image.shape[2:])))

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which models compute as in training."""
        return Precision(self.image.device, self.bf16).autocast()

    @cached_property
    def reconstruction(self) -> Tensor:
        """Posterior-mean reconstruction (b, c, i, j, k) of a model that reconstructs."""
        with torch.inference_mode(), self.autocast():
            network = self.network(Reconstructs)
            return torch.cat([network.reconstruct(part).float() for part in self.chunks])

    @cached_property
    def latent(self) -> NDArray[np.float64]:
        """Posterior means (b, d) of a latent space, in float32: codes may vary by less than bfloat16 rounds."""
        with torch.inference_mode(), Precision(self.image.device, bf16=False).autocast():
            network = self.network(HasLatent)
            means = torch.cat([network.encode(part)[0].flatten(1) for part in self.chunks])
        return np.asarray(means.double().cpu().numpy())

    @cached_property
    def voxel_maps(self) -> Mapping[str, NDArray[np.float32]]:
        """The models' own maps by name, (b, i, j, k) each; of two models with one name it is the first one's."""
        found: dict[str, NDArray[np.float32]] = {}
        with torch.inference_mode(), self.autocast():
            for network in self.networks(HasVoxelMaps):
                parts = [network.voxel_maps(part) for part in self.chunks]
                for name in type(network).maps.keys() - found.keys():
                    found[name] = voxel_map(torch.cat([part[name] for part in parts]))
        return found

    def network(self, protocol: type) -> Any:
        """The first model that offers a protocol.

        Raises:
            ConfigError: If there is none.
        """
        for model in self.models:
            if isinstance(model, protocol):
                return model
        raise ConfigError(f"this score needs a trained model that offers {protocol.__name__} and none was given")

    def networks(self, protocol: type) -> list[Any]:
        """All models that offer a protocol, in the order of the configuration."""
        return [model for model in self.models if isinstance(model, protocol)]


@dataclass(frozen=True)
class Score:
    """One registered score: how unusual each voxel, or each scan, is.

    The voxel-wise z of a scan against four others; a bright voxel is the most unusual one:

    >>> from medgen.anomaly.scores.catalogue import get
    >>> images = torch.rand(5, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> images[4, 0, 1, 2, 3] = 5
    >>> healthy, new = (Inputs(part, torch.ones_like(part, dtype=torch.bool)) for part in (images[:4], images[4:]))
    >>> zscore = get("zscore")
    >>> heat = zscore(new, zscore.fit(healthy))
    >>> heat.shape, [int(index) for index in np.unravel_index(heat.argmax(), heat.shape)]
    ((1, 6, 6, 6), [0, 1, 2, 3])

    Attributes:
        name: Name in configurations, tables and file names, its own file's among them.
        level: ``"voxel"`` returns (b, i, j, k) maps, ``"scan"`` returns (b,) numbers; higher is more anomalous.
        needs: Protocol of :mod:`medgen.models` that the model must satisfy; None for scores without a model.
        fitter: Learns arrays from the training scans of a fold; None if there is nothing to learn.
        baseline: Whether it is a simple method that the deep channels have to beat.
        local: Whether a contrast at one place raises the score at that place (controls such as ``random`` do not).
        fit_seconds: From image channels, device and settings to about how many seconds the score learns in one fold,
            for the plan of a run; None where that is nothing beside the training of a model.
        shares: A score whose learned arrays this one reads as well, so that they are kept once.
        from_corruptions: Whether it has learned from corrupted copies of the training scans: an idea that it shares
            with implanted anomalies, so what makes the heatmap without it is a candidate of its own.
        costly: Whether it takes many passes through a model: computed only where a configuration names it.
        float32: Whether models compute in float32 for it whatever they were trained in: for optimisations and for
            distances between codes, whose small steps drown in rounding.
        order: Place among the scores in lists and tables; scores of one place stand there by name.
        function: ``(inputs, state) -> array``.
        own: Whether it is the map of its name among those that models have of their own.
    """

    name: str
    level: Level
    needs: type | None
    fitter: Fitter | None
    fit_seconds: FitSeconds | None
    baseline: bool
    local: bool
    costly: bool
    float32: bool
    shares: str | None
    from_corruptions: bool
    order: int
    function: Scorer
    own: bool = False

    @property
    def source(self) -> str:
        """First line and source of the score, from its docstring."""
        return (self.function.__doc__ or "").strip()

    @property
    def fixed(self) -> bool:
        """Whether the score is the same whatever the training scans were."""
        return self.needs is None and self.fitter is None and self.shares is None

    def supports(self, models: Sequence[ScanModel]) -> bool:
        """Whether one of the models offers what this score needs."""
        return self.served_by([type(model) for model in models])

    def served_by(self, classes: Sequence[type[ScanModel]]) -> bool:
        """Whether models of one of these classes offer what this score needs; known before any is built."""
        needs = self.needs
        return needs is None or any(
            issubclass(cls, needs) and (not self.own or self.name in cls.maps) for cls in classes
        )

    def fit(self, training: Inputs) -> dict[str, NDArray[Any]]:
        """Learn from the training scans of one fold; an empty state if the score learns nothing.

        A score that needs what another has learned asks for it in the same way, ``SCORES[...].fit(training)``.
        """
        if self.fitter is None:
            return {}
        if self.name not in training.learned:
            with self._precision(training):
                training.learned[self.name] = self.fitter(training)
        return training.learned[self.name]

    def state(self, states: Mapping[str, State]) -> State:
        """What this score reads of all that the scores of a fold have learned."""
        return states[self.name] if self.shares is None else {**states[self.shares], **states[self.name]}

    def __call__(self, inputs: Inputs, state: State) -> NDArray[np.float32]:
        """Score a batch; voxel maps (b, i, j, k) or scan scores (b,), float32."""
        with self._precision(inputs):
            return np.asarray(self.function(inputs, state), dtype=np.float32)

    def _precision(self, inputs: Inputs) -> AbstractContextManager[object]:
        # Scores without a model have their own arithmetic.
        return nullcontext() if self.needs is None or self.float32 else inputs.autocast()


SCORES: dict[str, Score] = {}


def score(
    name: str,
    level: Level = "voxel",
    *,
    needs: type | None = None,
    fit: Fitter | None = None,
    fit_seconds: FitSeconds | None = None,
    baseline: bool = False,
    local: bool = True,
    costly: bool = False,
    float32: bool = False,
    shares: str | None = None,
    from_corruptions: bool = False,
    order: int = _LAST,
) -> Callable[[Scorer], Scorer]:
    """Register a function as a score; its docstring must name the source ("Source: ...").

    Raises:
        ValueError: If the name is taken (a bug, not a user error).
    """

    def register(function: Scorer) -> Scorer:
        if name in SCORES:
            raise ValueError(f"a score named {name!r} is registered already")
        here = local and level == "voxel"
        SCORES[name] = Score(
            name=name,
            level=level,
            needs=needs,
            fitter=fit,
            fit_seconds=fit_seconds,
            baseline=baseline,
            local=here,
            costly=costly,
            float32=float32,
            shares=shares,
            from_corruptions=from_corruptions,
            order=order,
            function=function,
        )
        return function

    return register


def voxel_map(values: Tensor) -> NDArray[np.float32]:
    """Mean over channels of (b, c, i, j, k) as a NumPy array (b, i, j, k)."""
    return np.asarray(values.float().mean(dim=1).cpu().numpy())
