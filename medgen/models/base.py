"""What every model family is: settings, phases, losses, samples; and what a family may offer beyond that."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

from pydantic import AfterValidator, Field, field_validator
from torch import Generator, Tensor, nn

from medgen.config import Config
from medgen.models.facts import Estimate, Fact, Likelihood
from medgen.models.sampling import SamplingConfig
from medgen.models.stages import Phase, Stage

if TYPE_CHECKING:
    from medgen.preprocessing.dataset import Batch, Dataset


def _multiples_of_16(widths: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= len(widths) <= 6 or any(width < 16 or width % 16 for width in widths):
        raise ValueError("expected 1 to 6 widths, each a multiple of 16")
    return widths


# Channels per level of a network: matrix units want multiples of 16.
Widths = Annotated[tuple[int, ...], AfterValidator(_multiples_of_16)]


class ModelConfig(Config):
    """Settings that every family has.

    Attributes:
        family: Name of the family, which is the name of its file in ``medgen/models/``.
        in_channels: Image channels.
        shape: Voxels (i, j, k) the model works on; pipelines fill it in from the preprocessing recipe.
    """

    family: str
    in_channels: int = Field(default=1, ge=1)
    shape: tuple[int, int, int]

    @field_validator("shape")
    @classmethod
    def _large_enough(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(shape) < 8:
            raise ValueError("expected at least 8 voxels along every axis")
        return shape


class VoxelMap(NamedTuple):
    """One of a model's own maps, as configurations, tables and the fusion know it before any model is built.

    Attributes:
        meaning: What it says of a voxel, and "Source: ..." with a year.
        fused: Whether it is one of the channels of the heatmap where a configuration names none.
        costly: Whether it takes many passes through the model: computed only where a configuration names it.
    """

    meaning: str
    fused: bool = True
    costly: bool = False


class ScanModel(nn.Module, ABC):
    """A trainable model of scans. Subclasses are final, one per file, and never touch optimisers.

    Attributes:
        family: The family's name, equal to its file name.
        Settings: Class of its settings.
        Sampling: Class of the options that it can sample by, which no training depends on.
        maps: What its own :class:`HasVoxelMaps` are, by name.
        tiny: Settings that make it small enough for a test of a second.
        settings: The settings it was built with.
        sampling: The options that it samples by; kept with the weights.
    """

    family: ClassVar[str]
    Settings: ClassVar[type[ModelConfig]]
    Sampling: ClassVar[type[SamplingConfig]] = SamplingConfig
    maps: ClassVar[Mapping[str, VoxelMap]] = {}
    tiny: ClassVar[Mapping[str, Any]] = {}
    settings: ModelConfig
    sampling: SamplingConfig

    def __init__(self, settings: ModelConfig) -> None:
        super().__init__()
        self.settings = settings
        self.sampling = self.Sampling()

    def sampled_by(self, sampling: SamplingConfig) -> Self:
        """The same model, weights and all, that samples by other options of its ``Sampling``."""
        other = copy.copy(self)
        other.sampling = sampling
        return other

    @property
    def parameter_count(self) -> int:
        """Number of weights that training can change."""
        return sum(parameter.numel() for parameter in self.parameters())

    def phases(self) -> Mapping[str, Phase | Sequence[nn.Parameter]]:
        """What each step of a training with one stage updates, in order; every parameter in exactly one phase.

        Parameters alone stand for a :class:`~medgen.models.stages.Phase` of them without anything special. A model
        with several stages gives :meth:`stages` instead.
        """
        raise NotImplementedError(f"{type(self).__name__} gives neither phases() nor stages()")

    def stages(self) -> Sequence[Stage]:
        """The parts of a training, one after the other; by default one with all :meth:`phases`.

        Each parameter is in some stage. A stage ends with its share of the steps, or early by its own ``patience``;
        the averaged, or best, weights of its parts are then the model's own, before the next one begins.
        """
        phases = {
            name: given if isinstance(given, Phase) else Phase(list(given)) for name, given in self.phases().items()
        }
        return (Stage("training", phases),)

    @abstractmethod
    def loss(self, phase: str, batch: Batch) -> dict[str, Tensor]:
        """Scalars of one phase: ``"loss"`` is minimised, the rest is logged.

        ``"monitor"``, where present, is what validation looks at instead of ``"loss"`` (an adversarial loss says
        nothing about progress). Randomness comes from torch's global generator, which the loop seeds.
        """

    def shared_buffers(self) -> Sequence[Tensor]:
        """Buffers that training adapts to the scans at hand, so that processes have to average them; mostly none."""
        return ()

    def averaged_buffers(self) -> Sequence[Tensor]:
        """Floating-point buffers that belong to the weights, such as a code book that training moves by itself.

        They are averaged over the steps as the weights are; all other buffers stay as the last step leaves them. They
        are changed in place, and mostly there are none.
        """
        return ()

    def carried_buffers(self) -> Sequence[Tensor]:
        """Buffers that a training which starts from this model takes with the weights, since these are fitted to them.

        All others describe the scans at hand, and are measured anew (:mod:`medgen.training.transfer.start`).
        """
        return self.averaged_buffers()

    def fitted(self, name: str, tensor: Tensor, source: ModelConfig) -> Tensor | None:
        """A tensor of a model with these settings, made to fit this one's of that name; None where there is no way.

        For tensors whose shape differs since the source has other channels or labels.
        """
        return None

    def initialize(self, dataset: Dataset) -> None:
        """Called once before the first step with the training cases; must be deterministic."""

    def begin_stage(self, name: str, dataset: Dataset) -> None:
        """Called once before each stage but the first, in evaluation mode, with the weights that the last one leaves.

        For what the stage needs of finished parts, such as the spread of their codes. What it finds is kept in buffers,
        which the checkpoint has; must be deterministic.
        """

    def finalize(self, dataset: Dataset) -> None:
        """Called once after training with the training cases, in evaluation mode; must be deterministic."""

    def facts(self) -> Sequence[Fact]:
        """What a trained model says about itself in ``metrics.json``, the report and the artifact, in order.

        By default the kind of its likelihood, where it has one; families add to it.
        """
        return (self.likelihood().fact(),) if isinstance(self, HasLikelihood | HasConditionalLikelihood) else ()


class GenerativeModel(ScanModel, ABC):
    """A model that makes new scans."""

    @abstractmethod
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Draw ``n`` images of shape (n, c, i, j, k), float32, without gradients; equal generators, equal images."""


@runtime_checkable
class Reconstructs(Protocol):
    """A model that maps a scan to the nearest scan it knows."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """Deterministic reconstruction of (b, c, i, j, k), in model intensities."""
        ...


@runtime_checkable
class HasLikelihood(Protocol):
    """A model with a scan-level likelihood."""

    def likelihood(self) -> Likelihood:
        """Whether it is exact, a bound or a surrogate, of what, and in which unit reports give it."""
        ...

    def log_likelihood(
        self, x: Tensor, mask: Tensor | None = None, samples: int = 64, generator: Generator | None = None
    ) -> Tensor:
        """Log-likelihood in nats per scan, (b,); over the voxels of ``mask`` (b, 1, i, j, k) if given."""
        ...


@runtime_checkable
class HasConditionalLikelihood(Protocol):
    """A model that knows how likely a scan is given its labels: nothing to tell healthy scans from others by."""

    def likelihood(self) -> Likelihood:
        """Whether it is exact, a bound or a surrogate, of what, and in which unit reports give it."""
        ...

    def conditional_log_likelihood(
        self, batch: Batch, samples: int = 4, generator: Generator | None = None
    ) -> Estimate:
        """Log p(scan | labels, field of view) in nats per scan, of the voxels in view, with its standard error.

        From so many draws, two at least; equal generators, equal estimates.
        """
        ...


@runtime_checkable
class HasVoxelLikelihood(Protocol):
    """A model with a likelihood for every voxel."""

    def voxel_nll(self, x: Tensor) -> Tensor:
        """Negative log-likelihood in nats per voxel, (b, c, i, j, k)."""
        ...


@runtime_checkable
class HasCodes(Protocol):
    """A model that turns a scan into a grid of discrete codes and knows how likely these are."""

    def codes(self, x: Tensor) -> Tensor:
        """Numbers of code vectors, (b, i', j', k') int64, for scans (b, c, i, j, k); deterministic."""
        ...

    def code_log_likelihood(self, codes: Tensor) -> Tensor:
        """Exact log-probability in nats of grids of codes (b, i', j', k'), (b,): over all grids they sum to 1."""
        ...


@runtime_checkable
class HasVoxelMaps(Protocol):
    """A model with maps of its own of what is unusual in a scan: each is an anomaly channel by its name.

    Its class names them in ``maps``. A name means the same in all families that have it.
    """

    def voxel_maps(self, x: Tensor) -> Mapping[str, Tensor]:
        """All of ``maps`` for scans (b, c, i, j, k), (b, 1, i, j, k) each; higher is more anomalous; deterministic."""
        ...


@runtime_checkable
class HasLatent(Protocol):
    """A model with a vector-valued Gaussian code."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code, (b, d) each."""
        ...


class VoxelGaussian(Protocol):
    """A decoder's prediction of a scan: mean and log-variance per voxel, (b, c, i, j, k) each."""

    @property
    def mean(self) -> Tensor:
        """Expected intensities."""
        ...

    @property
    def logvar(self) -> Tensor:
        """Natural logarithm of the variance."""
        ...


@runtime_checkable
class HasDecoder(HasLatent, Protocol):
    """A model with a Gaussian code that it decodes into a Gaussian per voxel; both differentiable in their input."""

    def decode(self, z: Tensor) -> VoxelGaussian:
        """Distribution of the scan given codes (b, d); deterministic."""
        ...


@runtime_checkable
class Discriminates(Reconstructs, Protocol):
    """A model that reconstructs, with a network that learned to tell its images from real ones."""

    def discriminator_distance(self, x: Tensor, other: Tensor) -> Tensor:
        """Squared difference of the discriminator's features of two batches (b, c, i, j, k), at the voxels.

        Averaged over the features of a layer, brought to the scan's voxels, averaged over layers: (b, 1, i, j, k).
        """
        ...


@runtime_checkable
class DrawsLabels(Protocol):
    """A model that makes new label maps."""

    def sample_labels(self, n: int, generator: Generator | None = None) -> Tensor:
        """Label maps (n, 1, i, j, k) int64 with 0 as background; equal generators, equal maps."""
        ...


@runtime_checkable
class PaintsLabels(Protocol):
    """A model that makes scans for given label maps."""

    def paint(self, labels: Tensor, style: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """Images (b, c, i, j, k) for labels (b, 1, i, j, k) and style codes (b, d); deterministic without noise."""
        ...

    def encode_style(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the style code of images (b, c, i, j, k), (b, d) each."""
        ...


@runtime_checkable
class Denoises(Protocol):
    """A model that removes what it takes for noise: what it has not seen in healthy scans."""

    def denoise(self, x: Tensor) -> Tensor:
        """The scan without it, (b, c, i, j, k), in model intensities; deterministic."""
        ...


@runtime_checkable
class LabelsScans(Protocol):
    """A model that says which label each voxel of a scan has."""

    def label_probabilities(self, x: Tensor) -> Tensor:
        """Probability of background and of each label number, (b, labels + 1, i, j, k) float32; they sum to 1."""
        ...


class ScanCode(NamedTuple):
    """All that a model draws a scan from.

    Attributes:
        code: The code that distances and directions are measured in, (b, d) float32.
        noise: What the code leaves open, standard normal under the model; (b, ...) each.
        maps: Further conditions that can be averaged, such as distance maps of labels; (b, ...) each.
    """

    code: Tensor
    noise: tuple[Tensor, ...] = ()
    maps: tuple[Tensor, ...] = ()


class Drawn(NamedTuple):
    """What a model draws from codes: an image, labels, or both.

    Attributes:
        image: Model intensities, (b, c, i, j, k) float32.
        labels: Label numbers with 0 as background, (b, 1, i, j, k) int64.
    """

    image: Tensor | None
    labels: Tensor | None = None


@runtime_checkable
class Interpolates(Protocol):
    """A model that can draw what lies between real scans; both methods are deterministic and without gradients."""

    def locate(self, batch: Batch) -> ScanCode:
        """The codes of real scans, from which :meth:`draw_at` draws their reconstructions."""
        ...

    def draw_at(self, place: ScanCode) -> Drawn:
        """What the model draws from codes; without ``noise`` what it expects where the code leaves it open."""
        ...
