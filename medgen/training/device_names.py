"""What devices are called, known without torch; which of them are there is asked of torch later."""

from __future__ import annotations

import re

from medgen.config import nearest
from medgen.errors import ConfigError

_NAME = re.compile(r"auto|cpu|cuda(:\d+)?")


def check_device_name(name: str) -> str:
    """Refuse what is no name of a device.

    >>> check_device_name("cuda:1")
    'cuda:1'

    Raises:
        ConfigError: If it is not ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """
    if _NAME.fullmatch(name):
        return name
    if name.partition(":")[0] == "mps":
        raise ConfigError(
            f"device: found {name!r}, the GPU of a Mac, which medgen does not compute on: nothing was measured or "
            "tested there; use cpu (auto chooses it on a Mac)"
        )
    raise ConfigError(f"device: expected auto, cpu or cuda[:N], found {name!r}{nearest(name, ('auto', 'cpu', 'cuda'))}")
