"""Scans as they are given to be scored: a file each, or the files of a scan's channels by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from medgen.errors import DataError
from medgen.faults import fail
from medgen.system.files import exists

if TYPE_CHECKING:
    from medgen.volume import Volume

_WORD = re.compile(r"[^._ -]+")
_PART = re.compile(r"([^=,]+)=([^=]*)")


@dataclass(frozen=True)
class GivenScan:
    """A scan to score.

    Attributes:
        path: Its only file or DICOM folder, or the first one.
        channels: Channel name → file, where files are given by channel; else empty.
        called: What it is named after: its file, the name of the first of several up to its channel, or their folder.
    """

    path: Path
    channels: Mapping[str, Path]
    called: Path

    @classmethod
    def parse(cls, given: Path) -> GivenScan:
        """``scan.nii.gz``, or ``T1=a_t1.nii.gz,FLAIR=a_flair.nii.gz``: a file for each channel that there is.

        >>> scan = GivenScan.parse(Path("T1=anna/t1.nii.gz,FLAIR=anna/flair.nii.gz"))
        >>> list(scan.channels), scan.called.as_posix(), GivenScan.parse(Path("b.nii")).channels
        (['T1', 'FLAIR'], 'anna', {})

        Raises:
            DataError: If a channel is named twice or has no file of its own.
        """
        text = str(given)
        if exists(given) or "=" not in text:
            return cls(given, {}, given)
        channels: dict[str, Path] = {}
        for part in text.split(","):
            match = _PART.fullmatch(part.strip())
            if match is None or not match[2].strip():
                raise DataError(f"{text}: expected NAME=FILE for each contrast, found {part!r}; part them by commas")
            if match[1].strip() in channels:
                raise DataError(f"{text}: the contrast {match[1].strip()} is there twice; keep one file for it")
            file = Path(match[2].strip())
            if file.absolute() in (other.absolute() for other in channels.values()):
                raise DataError(f"{text}: {file} is given for two contrasts; expected a file for each")
            channels[match[1].strip()] = file
        return cls(next(iter(channels.values())), channels, _called(channels))

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files or folders."""
        return tuple(self.channels.values()) or (self.path,)

    @property
    def dicom(self) -> bool:
        """Whether a file is a DICOM series, whose folder may be named after its patient."""
        return any(exists(path) and self.is_series(path) for path in self.files)

    @staticmethod
    def is_series(path: Path) -> bool:
        """Whether a file that is there is a DICOM series: its folder, or a file of it."""
        from medgen import io

        return path.is_dir() or io.is_dicom(path)

    def order(self, names: Sequence[str]) -> list[Path]:
        """Its files in the order of a model's channels; the scan lies on the grid of the first."""
        return [self.channels[name] for name in names if name in self.channels] or [self.path]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files that are there, by what they are; those of manifests, so that scans are known."""
        from medgen.data.cases import sha256_of

        parts = self.channels or {"": self.path}
        return {f"image {name}".strip(): sha256_of(path) for name, path in parts.items() if exists(path)}

    def read(
        self, names: Sequence[str], *, fill: float | None = None, unscaled: bool = False, slices: int | None = None
    ) -> Volume:
        """The scan, (c, i, j, k), with its channels in the order of ``names``.

        Channels on another grid than the first are interpolated on its grid, where their headers say they lie.

        Args:
            names: The channels that the model expects; empty where it does not say.
            fill: As for :func:`medgen.io.read`.
            unscaled: Likewise.
            slices: Likewise.

        Raises:
            DataError: If a file cannot be used.
        """
        from medgen import io
        from medgen.io.channels import stacked

        several = len(names) > 1 and not self.channels
        order = self.order(names)
        volumes = [
            (path, io.read(path, multichannel=several, fill=fill, unscaled=unscaled, slices=slices)) for path in order
        ]
        scan = stacked(volumes, self.called.name, move=True)
        expected = len(order) if self.channels else len(names)
        if names and len(scan.data) != expected:
            raise fail(
                self.path, f"{len(scan.data)} channels", f"{expected}: {', '.join(names)}", "give NAME=FILE for each"
            )
        return scan


def missing_channels(scans: Iterable[GivenScan], names: Sequence[str]) -> tuple[str, ...]:
    """The channels that the scans lack, in the model's order.

    Args:
        scans: Scans to be scored together.
        names: The channels of the model; empty where it does not say.

    Raises:
        DataError: If a channel is none of the model's, or scans do not have the same channels: each combination has
            p-values of its own.
    """
    found: dict[tuple[str, ...], GivenScan] = {}
    for scan in scans:
        if strange := [name for name in scan.channels if name not in names]:
            expected = (
                ", ".join(names) or "one file without a name: the model does not say what its contrasts are called"
            )
            raise DataError(f"{scan.path}: the model has no contrast {strange[0]}; expected {expected}")
        found.setdefault(tuple(n for n in names if scan.channels and n not in scan.channels), scan)
    if len(found) > 1:
        said = [
            f"{scan.called.name} " + (f"lacks {', '.join(lost)}" if lost else "has all contrasts")
            for lost, scan in list(found.items())[:2]
        ]
        raise DataError(f"{' and '.join(said)}; expected scans with the same contrasts; score them in two calls")
    return next(iter(found), ())


def _called(channels: Mapping[str, Path]) -> Path:
    """The first file's name up to its channel: what files begin and end with alike is no channel.

    >>> files = [("p1_T1.nii", "p1_T2.nii"), ("p1_x_T1_n4.nii", "p2_x_T2_n4.nii"), ("T1.nii", "T2.nii")]
    >>> [_called({"T1": Path("anna", one), "T2": Path("anna", two)}).name for one, two in files]
    ['p1', 'p1_x', 'anna']
    """
    from medgen import io

    files = list(channels.values())
    if len(files) == 1:
        return files[0]
    words = [[match[0] for match in _WORD.finditer(io.stem(file))] for file in files]
    before, after = _alike(words), _alike([own[::-1] for own in words])
    own = words[0]
    # Of what is this file's alone, the channel comes last, unless it is found by its name.
    end = max(before, len(own) - after - 1)
    name = next(iter(channels)).lower()
    end = next((at for at in range(before, end) if own[at].lower().startswith(name)), end)
    if end:
        matches = list(_WORD.finditer(io.stem(files[0])))
        return files[0].with_name(io.stem(files[0])[: matches[end - 1].end()])
    parents = {file.parent for file in files}
    return files[0].parent if len(parents) == 1 and files[0].parent.name else files[0]


def _alike(lists: Sequence[Sequence[str]]) -> int:
    """How many entries all lists begin with."""
    return len(list(takewhile(lambda same: len(set(same)) == 1, zip(*lists, strict=False))))
