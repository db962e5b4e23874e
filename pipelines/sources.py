"""Trained models that a run starts from: whether they are there and sound, and have not seen whom the run holds out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel

from medgen.training.config import InitConfig

if TYPE_CHECKING:
    from medgen.data.cases import Manifest


def inits(config: object, key: str = "", family: str = "") -> Iterator[tuple[str, InitConfig, str]]:
    """Every ``init`` in a configuration with its key, and the family of its model where that is configured beside it.

    Torch is not needed.
    """
    if isinstance(config, InitConfig):
        yield key, config, family
        return
    if isinstance(config, BaseModel):
        model = getattr(config, "model", None)
        family = str(model.get("family", "")) if isinstance(model, Mapping) else family
        items = [(name, getattr(config, name)) for name in type(config).model_fields]
    elif isinstance(config, Mapping):
        items = [(str(name), own) for name, own in config.items()]
    else:
        return
    for name, own in items:
        yield from inits(own, f"{key}.{name}" if key else name, family)


def check_sources(
    config: BaseModel, manifest: Manifest, held_out: Mapping[str, Manifest], workers: int, family: str = ""
) -> None:
    """Refuse a source that is not sound, or that has learnt from whom the run holds out, before anything is trained.

    Args:
        config: The configuration of the run.
        manifest: Its cohort; hashed here if it is not yet, and if there is a source at all.
        held_out: Cases of that cohort that are held out, by what for.
        workers: Threads.
        family: What sources have to hold a model of, where the configuration does not say it.

    Raises:
        ArtifactError: If an artifact is missing or altered.
        ConfigError: If it holds no model of the family that is to be trained.
        AuditError: As :func:`medgen.training.transfer.source.refuse_held_out`.
    """
    found = list(inits(config, family=family))
    if not found:
        return
    from medgen.training.transfer.source import read_lineage, refuse_held_out

    if not all(case.sha256 for case in manifest):
        manifest = manifest.with_hashes(workers)
    for _, init, wanted in found:
        lineage = read_lineage(init, wanted)
        for where, part in held_out.items():
            refuse_held_out(lineage, init, manifest.subset([case.id for case in part]), where)
