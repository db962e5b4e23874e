"""What a model says about itself in reports: facts with their sentences, of which kind its likelihood is, how sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

LikelihoodKind = Literal["exact", "bound", "surrogate"]


@dataclass(frozen=True)
class Fact:
    """One thing that a trained model says about itself: to metrics, report and artifact.

    >>> Fact("passes", 15, "passes", "A scan takes {value} passes through the network.").text
    'A scan takes 15 passes through the network.'

    Attributes:
        name: Of letters, digits and underscores, as in ``metrics.json``.
        value: A number, a word, or yes or no.
        unit: Of the value; empty where it has none.
        sentence: A sentence with ``{value}`` in it, with a format if need be: ``{value:.2f}``.

    Raises:
        ValueError: If the name is none, or the sentence does not hold the value.
    """

    name: str
    value: float | int | str | bool
    unit: str
    sentence: str

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"expected a name of letters, digits and underscores, found {self.name!r}")
        if "{value" not in self.sentence:
            raise ValueError(f"fact {self.name}: expected {{value}} in its sentence, found {self.sentence!r}")

    @property
    def text(self) -> str:
        """The sentence with the value in it."""
        return self.sentence.format(value=self.value)

    def record(self) -> dict[str, float | int | str | bool]:
        """As plain data."""
        return {"name": self.name, "value": self.value, "unit": self.unit, "sentence": self.text}


@dataclass(frozen=True)
class Likelihood:
    """What the numbers of :class:`~medgen.models.base.HasLikelihood` are.

    >>> Likelihood("bound", "the evidence lower bound on log p(x)").fact().text
    'Its likelihood is a bound, in nats per voxel: the evidence lower bound on log p(x).'

    Attributes:
        kind: ``exact`` for log p(x) itself, ``bound`` for what is never above it in expectation, ``surrogate`` for what
            is neither, such as a pseudo-likelihood.
        sentence: Of what, without a full stop.
        unit: In which it is compared.
    """

    kind: LikelihoodKind
    sentence: str
    unit: str = "nats per voxel"

    def fact(self) -> Fact:
        """The same as one of the model's facts."""
        article = "" if self.kind == "exact" else "a "
        return Fact(
            "likelihood",
            self.kind,
            self.unit,
            f"Its likelihood is {article}{{value}}, in {self.unit}: {self.sentence}.",
        )


class Estimate(NamedTuple):
    """A number per scan that is estimated from independent draws.

    Attributes:
        value: The mean of the draws, (b,) float64.
        error: Its standard error, (b,) float64.
    """

    value: Tensor
    error: Tensor

    @classmethod
    def of(cls, draws: Tensor) -> Estimate:
        """From draws (n, b), two at least."""
        return cls(draws.mean(0), draws.std(0) / len(draws) ** 0.5)
