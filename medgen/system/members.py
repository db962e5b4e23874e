"""Members of a folder, found by their files: how families, scores, backends, arms and implant kinds come to be known.

A member is a file ``<name>.py`` (or a folder) of a package; files that begin with ``_`` are helpers. No list has to be
edited, and a file may also lie in a folder of one's own that was added to the package's ``__path__``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

from medgen.errors import ConfigError


def names(package: ModuleType) -> list[str]:
    """Names of all members, sorted; none of them is imported.

    >>> from medgen.models import families
    >>> "vae" in names(families), "_helper" in names(families)
    (True, False)
    """
    found = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(name for name in found if not name.startswith("_"))


def module(package: ModuleType, name: str) -> ModuleType:
    """The module of one member; nothing else of the package is imported.

    Raises:
        ModuleNotFoundError: If there is none; ask :func:`names` first.
    """
    return importlib.import_module(f"{package.__name__}.{name}")


def member(package: ModuleType, name: str, wanted: Callable[[Any], bool]) -> Any:
    """The first thing in a member's file that is what the package is a folder of; None if the file holds none.

    Args:
        package: The folder.
        name: One of :func:`names`.
        wanted: Whether a thing is it, such as a class of the right base that bears the file's name.

    Raises:
        ModuleNotFoundError: If there is no such file; ask :func:`names` first.
    """
    return next(filter(wanted, vars(module(package, name)).values()), None)


def named_class(package: ModuleType, name: str, base: type, what: str, attribute: str = "name") -> Any:
    """The class in a member's file that bears the file's name; nothing else of the package is imported.

    Args:
        package: The folder.
        name: One of :func:`names`.
        base: What it is a class of.
        what: What it is called in the message.
        attribute: Where the class has its name.

    Raises:
        ConfigError: If the file holds none.
        ModuleNotFoundError: If there is no such file; ask :func:`names` first.
    """

    def wanted(item: Any) -> bool:
        return inspect.isclass(item) and issubclass(item, base) and getattr(item, attribute, None) == name

    found = member(package, name, wanted)
    if found is None:
        raise ConfigError(f"{package.__name__}.{name}: holds no {what} {name!r}")
    return found
