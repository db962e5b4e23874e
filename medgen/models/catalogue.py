"""The families of models: one file each, found by file name, imported only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from medgen.config import parse_config
from medgen.errors import ConfigError
from medgen.models import families
from medgen.models.base import ModelConfig, ScanModel
from medgen.models.families import available
from medgen.models.sampling import SamplingConfig
from medgen.seeds import derive
from medgen.system import members

__all__ = ["available", "build", "check_settings", "family_class", "parse_sampling", "parse_settings", "settings_for"]


def family_class(family: str) -> type[ScanModel]:
    """The model class of a family; only that family's module is imported.

    Raises:
        ConfigError: If there is no such family, the message lists the known ones; or if its file holds no concrete
            model whose ``family`` is the file's name.
    """
    if family not in available():
        raise ConfigError(f"model.family: expected one of {', '.join(available())}, found {family!r}")
    found: type[ScanModel] = members.named_class(families, family, ScanModel, "model of the family", "family")
    return found


def parse_settings(data: Mapping[str, Any], where: str = "") -> ModelConfig:
    """Validate plain data with a ``family`` key into that family's settings.

    Args:
        data: The settings.
        where: The key of a configuration that holds them, for messages.

    Raises:
        ConfigError: If the family is missing or unknown, or one of its settings is wrong.
    """
    family = data.get("family")
    if not isinstance(family, str):
        raise ConfigError(f"model.family: expected one of {', '.join(available())}, found {family!r}")
    cls = family_class(family)
    if old := next((key for key in cls.Sampling.formerly if key in data), None):
        raise ConfigError(
            f"model {family}: {old} is no setting of the model but an option of sampling; take it out, and give "
            f"sampling.{cls.Sampling.formerly[old]} to medgen train, or {cls.Sampling.formerly[old]} to a generator"
        )
    return parse_config(cls.Settings, data, source=where or f"model {family}")


def parse_sampling(family: str, data: Mapping[str, Any]) -> SamplingConfig:
    """Validate plain data into a family's options of sampling; those that are not given have their defaults.

    Raises:
        ConfigError: If there is no such family or option, or a value is wrong.
    """
    return parse_config(family_class(family).Sampling, data, source=f"sampling of {family}")


def settings_for(
    model: Mapping[str, Any], shape: tuple[int, int, int], channels: int, labels: int, where: str = ""
) -> ModelConfig:
    """Settings of a configuration's ``model`` group, completed with what follows from the data.

    Args:
        model: Plain data with a ``family`` key; ``in_channels`` and ``n_labels`` given here win over the data's.
        shape: Voxels (i, j, k) of the model grid.
        channels: Image channels.
        labels: Largest label number, for families that model labels; they get at least one.
        where: The key of a configuration that holds the group, for messages.

    Raises:
        ConfigError: As :func:`parse_settings`.
    """
    given: dict[str, Any] = {"in_channels": channels, **model, "shape": shape}
    family = given.get("family")
    if isinstance(family, str) and "n_labels" in family_class(family).Settings.model_fields:
        given.setdefault("n_labels", max(labels, 1))
    return parse_settings(given, where)


def check_settings(model: Mapping[str, Any], shape: tuple[int, int, int], sampling: Mapping[str, Any] = {}) -> None:
    """Refuse settings and options of sampling of a family that cannot be, while the file they come from is known.

    Raises:
        ValueError: As :class:`medgen.errors.ConfigError` says it.
    """
    try:
        parse_sampling(settings_for(model, shape, channels=1, labels=1).family, sampling)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def build(settings: Mapping[str, Any] | ModelConfig, seed: int | None = None) -> ScanModel:
    """A model with freshly initialised weights.

    Args:
        settings: Settings, or plain data for :func:`parse_settings`.
        seed: Seed of the initial weights, which then depend on nothing else; None uses torch's global generator.

    Raises:
        ConfigError: As :func:`parse_settings`.
    """
    config = settings if isinstance(settings, ModelConfig) else parse_settings(settings)
    cls = family_class(config.family)
    if seed is None:
        return cls(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        return cls(config)
