"""Names and describing files of BIDS derivatives (BIDS 1.10), for what medgen writes in that layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import medgen
from medgen.system import files
from medgen.volume import Volume

VERSION = "1.10.0"
# Words of a free-text modality → suffix.
_SUFFIXES = {"flair": "FLAIR", "t1": "T1w", "t2": "T2w", "pd": "PDw", "ct": "ct", "pet": "pet"}
# Suffixes that BIDS has for anatomical images of a derivative; files with others are named in .bidsignore.
_KNOWN = frozenset({
    "T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio", "T2star", "FLASH", "PD",
    "T1map", "T2map", "T2starmap", "R1map", "R2map", "R2starmap", "PDmap", "MTRmap", "MTsat", "UNIT1", "T1rho",
    "MWFmap", "MTVmap", "Chimap", "S0map", "M0map",
})  # fmt: skip
# From this share of voxels that are exactly zero on, all but the organ counts as set to zero.
_EMPTY = 0.1


def participant(name: str) -> str:
    """BIDS subject of a scan: labels are letters and digits only.

    >>> participant("syn-0001")
    'sub-syn0001'
    """
    return "sub-" + "".join(sign for sign in name if sign.isascii() and sign.isalnum())


def bids_suffix(modality: str) -> str:
    """BIDS suffix of a free-text modality; ``anat`` where it names none that BIDS knows.

    >>> bids_suffix("MR T1-weighted (simulated)"), bids_suffix("MR")
    ('T1w', 'anat')
    """
    words = modality.lower().replace("-", " ").replace("(", " ").split()
    found = [suffix for start, suffix in _SUFFIXES.items() if any(word.startswith(start) for word in words)]
    return found[0] if found else "anat"


def in_bids(suffix: str) -> bool:
    """Whether BIDS has this suffix for anatomical images; it has none for CT, nor for what is of no known kind."""
    return suffix in _KNOWN


def stripped(scan: Volume) -> bool:
    """What BIDS calls ``SkullStripped``, which each image must say: whether a tenth of its voxels are exactly zero.

    Args:
        scan: (c, i, j, k); its first channel is looked at, voxels that are NaN count as zero.
    """
    first = scan.data[0]
    return bool(np.mean((first == 0) | np.isnan(first)) >= _EMPTY)


def write_description(out: Path, name: str, sentence: str, sources: Sequence[Mapping[str, str]] = ()) -> Path:
    """Write ``dataset_description.json`` of a derivative.

    Args:
        out: Folder of the data set.
        name: Its name.
        sentence: What made it, and what for.
        sources: Entries of ``SourceDatasets``, where it is known what was read.
    """
    content: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medgen", "Version": medgen.__version__, "Description": sentence}],
    }
    if sources:
        content["SourceDatasets"] = [dict(source) for source in sources]
    files.write_json(out / "dataset_description.json", content)
    return out / "dataset_description.json"


def write_ignored(out: Path, patterns: Sequence[str], suffixes: Sequence[str]) -> Path:
    """Write ``.bidsignore``: files that BIDS does not know, and images of kinds that it has no suffix for."""
    unknown = [
        f"*_{suffix}.{end}" for suffix in sorted({*suffixes}) if not in_bids(suffix) for end in ("nii.gz", "json")
    ]
    files.write_text(out / ".bidsignore", "".join(f"{line}\n" for line in (*patterns, *unknown)))
    return out / ".bidsignore"


def write_tsv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    """Write a table as BIDS wants it: tabs between the cells, in none of which there is one."""
    clean = ["\t".join(cell.replace("\t", " ") for cell in row) for row in (columns, *rows)]
    files.write_text(path, "\n".join(clean) + "\n")
    return path
