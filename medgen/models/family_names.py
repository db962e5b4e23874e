"""Names of the model families, by their files, without importing them or torch."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "families"
# A family's class says ``family: ClassVar[str] = "<name of its file>"``.
_DECLARED = re.compile(r"""^    family: ClassVar\[str\] = ["'](\w+)["']""", re.MULTILINE)


def families() -> list[str]:
    """Names of all families, sorted: the files in ``medgen/models/families`` whose class declares their own name.

    >>> "vae" in families()
    True
    """
    # Once the package is imported it says itself where its modules lie: a family of one's own may lie elsewhere.
    folders = getattr(sys.modules.get("medgen.models.families"), "__path__", [str(_FOLDER)])
    files = [path for folder in folders for path in Path(folder).glob("*.py")]
    return sorted(path.stem for path in files if path.stem in _DECLARED.findall(path.read_text("utf-8")))


def check_family(model: Mapping[str, Any]) -> None:
    """Refuse a family that does not exist, in the words of :func:`medgen.models.family_class`.

    Raises:
        ValueError: Naming the known families.
    """
    known, family = families(), model.get("family")
    if family not in known:
        near = difflib.get_close_matches(str(family), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"model.family: expected one of {', '.join(known)}, found {family!r}{hint}")
