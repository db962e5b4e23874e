"""What a user is told to type: settings, quoted so that a shell hands them on as they are meant.

Faults name settings as runs take them (``'cohort.images=*_T1w.nii.gz'``); :func:`as_options` turns them into the
options of the ``medgen data`` commands (``--images '*_T1w.nii.gz'``), which print the same faults.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

# A setting as `setting` writes it: quoted where the shell would change it. Inside of single quotes, shlex writes '"'"'.
_QUOTED = r"""'cohort\.(?P<quoted>\w+)=(?P<inside>(?:[^']|'"'"')*)'"""
_BARE = r"""(?<![\w.'])cohort\.(?P<bare>\w+)=(?P<value>[\w@%+=:,./-]+)"""
_SETTING = re.compile(f"{_QUOTED}|{_BARE}")
# Settings that commands take as a flag.
_FLAGS = frozenset({"unscaled", "resample_masks", "resample_channels", "empty_masks"})


def setting(name: str, value: str | Path) -> str:
    """A setting of the cohort as a run takes it on its command line.

    >>> setting("images", "*_T1w.nii.gz"), setting("layout", "dicom")
    ("'cohort.images=*_T1w.nii.gz'", 'cohort.layout=dicom')
    """
    return shlex.quote(f"cohort.{name}={value}")


def glob_like(name: str) -> str:
    """A glob for a file that is there and those named like it: its first number, else its beginning, varies.

    >>> glob_like("p07_mask.nii.gz"), glob_like("anna_seg.nii"), glob_like("drawn.nii")
    ('p*_mask.nii.gz', '*_seg.nii', 'drawn.nii')
    """
    stem, dot, ending = name.partition(".")
    if any(sign.isdigit() for sign in stem):
        return re.sub(r"\d+", "*", stem, count=1) + dot + ending
    _, separator, last = stem.rpartition("_")
    return f"*_{last}{dot}{ending}" if separator else name


def quoted(path: str | Path) -> str:
    """A path or pattern as it is typed in a shell.

    >>> quoted("my scans/a.nii")
    "'my scans/a.nii'"
    """
    return shlex.quote(str(path))


def as_options(text: str) -> str:
    """A sentence whose settings are those of a run, with the options of the ``medgen data`` commands instead.

    >>> as_options("say which, for example 'cohort.images=*_T2w.nii.gz'")
    "say which, for example --images '*_T2w.nii.gz'"
    """
    return _SETTING.sub(_option, text)


def _option(match: re.Match[str]) -> str:
    name = match["quoted"] or match["bare"]
    inside = match["inside"]
    value = match["value"] if inside is None else inside.replace("'\"'\"'", "'")
    if name == "roots":
        return f"--root {shlex.quote(json.loads(value)[0])}"
    option = name.replace("_", "-")
    return f"--{option}" if name in _FLAGS else f"--{option} {shlex.quote(value)}"


def apart(path: Path, other: Path) -> tuple[str, str]:
    """Two paths by as few of their last parts as tell them apart.

    >>> apart(Path("/d/images/a.nii"), Path("/d/masks/a.nii")), apart(Path("x/a.nii"), Path("x/b.nii"))
    (('images/a.nii', 'masks/a.nii'), ('a.nii', 'b.nii'))
    """
    first, second = path.parts, other.parts
    for count in range(1, max(len(first), len(second)) + 1):
        if first[-count:] != second[-count:]:
            return "/".join(first[-count:]), "/".join(second[-count:])
    return str(path), str(other)


def shown(names: Iterable[str], most: int = 3) -> str:
    """Some names of many, for a sentence.

    >>> shown(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
