"""Who can read what medgen writes: nobody but its owner, unless ``MEDGEN_UMASK`` says otherwise.

Heatmaps, tables, models and journals come from patients. The permissions are set where files and folders are made, and
for programs below them (MLflow, SQLite, ITK) by the process' umask, which the command line sets and a library must not.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from medgen.errors import ConfigError

VARIABLE = "MEDGEN_UMASK"
_OWNER_ALONE = 0o077


def umask() -> int:
    """The permissions that are taken away: those of group and others, or what ``MEDGEN_UMASK`` says in octal digits.

    Raises:
        ConfigError: If it says something else, or would take from the owner what medgen itself needs.
    """
    told = os.environ.get(VARIABLE, "").strip()
    if not told:
        return _OWNER_ALONE
    if not told.isascii() or not told.isdigit() or set(told) & {"8", "9"} or int(told, 8) > 0o077:
        raise ConfigError(
            f"{VARIABLE}={told[:20]}: expected 077 (the owner alone), 027 (the group reads), 007 (the group writes) or "
            "another octal number up to 077; correct it, or unset it for 077"
        )
    return int(told, 8)


def file_mode() -> int:
    """Permissions of a file that medgen writes: 0600."""
    return 0o666 & ~umask()


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it, 0700 each; those that are there already keep their permissions.

    Returns:
        What was made, the outermost last.

    Raises:
        OSError: If one cannot be made.
    """
    mode = 0o777 & ~umask()
    missing = [own for own in (folder, *folder.parents) if not own.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for own in missing:
        # One that another user has made at this very moment is theirs.
        with suppress(PermissionError):
            own.chmod(mode)
    return missing
