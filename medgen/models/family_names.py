"""Names of the model families, by their files, without importing them or torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from medgen.models import families
from medgen.system import members


def available() -> list[str]:
    """Names of all families, sorted: the files in ``medgen/models/families``.

    >>> "vae" in available()
    True
    """
    return members.names(families)


def check_family(model: Mapping[str, Any]) -> None:
    """Refuse a family that does not exist, in the words of :func:`medgen.models.catalogue.family_class`.

    Raises:
        ValueError: Naming the known families.
    """
    known, family = available(), model.get("family")
    if family not in known:
        near = difflib.get_close_matches(str(family), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"model.family: expected one of {', '.join(known)}, found {family!r}{hint}")
