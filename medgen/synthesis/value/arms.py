"""Names of the training conditions of a value study, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

from medgen.segmentation.ordinary import available

STANDARD, SYNTHETIC = "standard", "synthetic"


@dataclass(frozen=True)
class Arm:
    """One training condition.

    Attributes:
        name: As in the configuration.
        ordinary: The ordinary arm it trains by; None for generated scans alone.
        source: Pool whose scans are mixed in, ``""`` for all pools together, None for none.
    """

    name: str
    ordinary: str | None
    source: str | None

    @classmethod
    def parse(cls, name: str) -> Arm:
        """The arm of a name: ``<ordinary>``, ``<ordinary>+synthetic``, ``<ordinary>+<pool>`` or ``synthetic``.

        >>> Arm.parse("standard+deform")
        Arm(name='standard+deform', ordinary='standard', source='deform')
        """
        if name == SYNTHETIC:
            return cls(name, None, "")
        ordinary, plus, source = name.partition("+")
        if not plus:
            return cls(name, ordinary, None)
        return cls(name, ordinary, "" if source == SYNTHETIC else source)


def checked(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if each is an arm, none occurs twice, and one is ordinary.

    Raises:
        ValueError: Otherwise; which pools there are is checked where they are known.
    """
    if len(set(names)) != len(names):
        raise ValueError("expected every arm once")
    known = available()
    arms = [Arm.parse(name) for name in names]
    for arm in arms:
        if arm.ordinary is not None and arm.ordinary not in known:
            raise ValueError(
                f"unknown arm {arm.name!r}; expected an ordinary arm ({', '.join(known)}), synthetic, or an ordinary "
                "arm with +synthetic or +<backend> behind it"
            )
        if arm.name.endswith("+"):
            raise ValueError(f"arm {arm.name!r} names no backend behind '+'")
    if all(arm.source is not None for arm in arms):
        raise ValueError("expected at least one ordinary arm (such as standard) to compare with")
    return names
