"""Which generators a run trains, why, and what all its stages will cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medgen.errors import ConfigError
from medgen.synthesis.backends import available, backend_class
from medgen.synthesis.estimates import Outline
from medgen.synthesis.planning.router import Routing, check_fits, hardware, route
from medgen.training.cost import Estimate, minutes

from .config import AugmentRunConfig

Estimates = Callable[[AugmentRunConfig, Outline], Mapping[str, Estimate]]
# Labelled scans whose labels are looked at; more would not change what kind of label they are.
STUDIED = 24


@dataclass(frozen=True)
class Plan:
    """What will be done, why, and what it will cost.

    Attributes:
        config: With the backends chosen.
        routing: The choice and its reasons.
        estimates: By stage, in the order of the stages.
    """

    config: AugmentRunConfig
    routing: Routing
    estimates: Mapping[str, Estimate]

    @property
    def lines(self) -> list[str]:
        """For people."""
        kind = "chosen" if self.routing.automatic else "configured"
        lines = [f"generators ({kind}): {', '.join(self.routing.backends)}"]
        lines += [f"  {reason}" for reason in self.routing.reasons]
        lines += [line for item in self.estimates.values() for line in item.lines]
        total = sum(item.seconds for item in self.estimates.values())
        return [*lines, f"in all: about {minutes(total)}"]

    def to_plain(self) -> dict[str, object]:
        """Plain data: the choice, its reasons, and the estimates."""
        costs = {name: {"seconds": item.seconds, "bytes": item.bytes} for name, item in self.estimates.items()}
        return {**self.routing.to_plain(), "estimates": costs}


def choose(config: AugmentRunConfig, outline: Outline, estimates: Estimates) -> Plan:
    """Choose the backends of a run, estimate what it takes, and refuse what will not fit.

    Args:
        config: What to run.
        outline: The cohort.
        estimates: What the stages of a run with these backends cost.

    Raises:
        ConfigError: If an arm of the value study needs a backend that was not chosen.
        ResourceError: If memory or disk will not suffice.
    """
    machine = hardware(config.device, config.out)
    if config.generators.auto:
        routing = route(outline, machine, available())
        chosen = config.generators.chosen(routing.backends)
        config = config.model_copy(update={"generators": chosen})
        try:
            config.check_arms()
        except ValueError as error:
            raise ConfigError(f"{error} (generators: auto chose {', '.join(routing.backends)})") from None
    else:
        routing = Routing(config.generators.names, ("named in the configuration",), automatic=False)
    made = dict(estimates(config, outline))
    if config.check_resources:
        check_fits(made, outline, machine, _disk(config, outline))
    return Plan(config, routing, made)


def _disk(config: AugmentRunConfig, outline: Outline) -> float:
    """Bytes on disk: exported scans, generators that keep training scans, checkpoints and small files."""
    scans = config.scans * len(config.generators.names) * outline.voxels * (4 * outline.channels + 1)
    kept = sum(outline.cohort_bytes for name in config.generators.names if backend_class(name).derived)
    return float(scans + kept + (256 << 20))
