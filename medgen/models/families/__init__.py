"""The families of models, one file each, found by file name; their names are known without importing them or torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from medgen.config import nearest
from medgen.system import members

_FOLDER = sys.modules[__name__]


def available() -> list[str]:
    """Names of all families, sorted: the files in ``medgen/models/families``.

    >>> "vae" in available()
    True
    """
    return members.names(_FOLDER)


def check_family(model: Mapping[str, Any]) -> None:
    """Refuse a family that does not exist, in the words of :func:`medgen.models.catalogue.family_class`.

    Raises:
        ValueError: Naming the known families.
    """
    known, family = available(), model.get("family")
    if family not in known:
        hint = nearest(str(family), known)
        raise ValueError(f"model.family: expected one of {', '.join(known)}, found {family!r}{hint}")
