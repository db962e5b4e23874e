"""Which model families learn from masks, asked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from medgen.data.cases import Manifest
from medgen.errors import DataError
from medgen.models.base import DrawsLabels, LabelsScans, PaintsLabels
from medgen.models.catalogue import family_class


class HasModel(Protocol):
    """Settings with a ``model`` group."""

    @property
    def model(self) -> Mapping[str, Any]:
        """Settings of a model family."""
        ...


def check_labelled(settings: Iterable[HasModel], manifest: Manifest) -> None:
    """Refuse a family that learns from masks where a scan has none.

    Raises:
        DataError: Naming the family and the first scan without a mask.
    """
    without = [case.id for case in manifest if case.mask is None]
    for own in settings:
        cls = family_class(own.model["family"])
        if without and issubclass(cls, DrawsLabels | LabelsScans | PaintsLabels):
            raise DataError(
                f"model.family: {cls.family} learns from masks, and {len(without)} of {len(manifest)} scans have none "
                f"({without[0]} is the first); add the masks, or use vae or vaegan"
            )
