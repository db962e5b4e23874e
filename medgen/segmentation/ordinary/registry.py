"""Ordinary arms by name."""

from __future__ import annotations

from typing import Protocol, cast

from medgen.errors import ConfigError, DataError
from medgen.segmentation.ordinary import arms
from medgen.segmentation.ordinary.setting import Setting
from medgen.segmentation.recipe import Recipe
from medgen.system import members


class ArmModule(Protocol):
    """What a file in :mod:`medgen.segmentation.ordinary.arms` holds."""

    SOURCE: str
    NEEDS_UNLABELLED: bool

    def recipe(self, setting: Setting) -> Recipe:
        """How a segmenter is trained in this arm."""
        ...


def available() -> list[str]:
    """Names of all ordinary arms, ``real`` and ``standard`` first.

    >>> available()[:2]
    ['real', 'standard']
    """
    return sorted(members.names(arms), key=lambda name: {"real": 0, "standard": 1}.get(name, 2))


def needs_unlabelled(name: str) -> bool:
    """Whether an arm cannot do without unlabelled scans."""
    return _module(name).NEEDS_UNLABELLED


def describe(name: str) -> str:
    """What an arm does and where it was published, one sentence."""
    return _module(name).SOURCE


def recipe(name: str, setting: Setting) -> Recipe:
    """How a segmenter is trained in an arm.

    Teachers and registrations that the arm needs are computed here and kept in ``setting.memo``.

    Args:
        name: One of :func:`available`.
        setting: Scans and shared settings.

    Raises:
        ConfigError: If there is no such arm, or a package that it needs is not installed.
        DataError: If it needs unlabelled scans and there are none.
    """
    module = _module(name)
    if module.NEEDS_UNLABELLED and (setting.unlabelled is None or not len(setting.unlabelled)):
        raise DataError(f"the arm {name!r} learns from unlabelled scans, and the training part has none; leave it out")
    return module.recipe(setting)


def _module(name: str) -> ArmModule:
    if name not in available():
        raise ConfigError(f"ordinary arms: expected one of {', '.join(available())}, found {name!r}")
    return cast(ArmModule, members.module(arms, name))
