"""Scored scans as a BIDS derivative (BIDS 1.10): heat, masks and the pseudo-healthy scan, with what they mean.

A scan that comes from a BIDS data set keeps its entities; another one is a subject of its own, named after its case.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import medgen
from medgen import io
from medgen.anomaly.export.scan import NOT_SCORED, USE, ExportedScan
from medgen.data.layouts.bids import entities
from medgen.data.layouts.bids_files import (
    bids_suffix,
    participant,
    stripped,
    write_description,
    write_ignored,
    write_tsv,
)
from medgen.system.files import read_json, write_json
from medgen.volume import Volume

# Entities that derived anatomical images may have, in the order of BIDS.
_ORDER = ("sub", "ses", "task", "acq", "ce", "rec", "run", "chunk", "space", "res")
_ROOT = "dataset_description.json"


@dataclass(frozen=True)
class BidsName:
    """What the files of a scan are called.

    Attributes:
        entities: Of its name, without ``desc``.
        suffix: Of its first contrast.
        source: The scan's file within its own BIDS data set; "" where it is from none.
        root: That data set; None likewise.
        link: What sidecars call that data set.
    """

    entities: Mapping[str, str]
    suffix: str
    source: str = ""
    root: Path | None = None
    link: str = "raw"

    @property
    def folder(self) -> Path:
        """Where its files are, relative to the data set."""
        session = [f"ses-{self.entities['ses']}"] if "ses" in self.entities else []
        return Path(f"sub-{self.entities['sub']}", *session, "anat")

    def file(self, what: str, suffix: str = "", end: str = "nii.gz") -> str:
        """A file name with the entity ``desc`` and the scan's suffix or another one."""
        parts = [f"{key}-{self.entities[key]}" for key in _ORDER if key in self.entities]
        return f"{'_'.join([*parts, f'desc-{what}', suffix or self.suffix])}.{end}"


def bids_names(scans: Mapping[str, Path], contrasts: Sequence[str]) -> dict[str, BidsName]:
    """A name for every scan; no two are the same.

    Args:
        scans: Case → first file of its scan.
        contrasts: Names of the model's channels.

    >>> names = bids_names({"a": Path("sub-01_ses-2_T1w.nii.gz"), "b": Path("x/b_1.nii"), "b1": Path("b1.nii")}, ["T2"])
    >>> [names[case].file("heat") for case in ("a", "b", "b1")]
    ['sub-01_ses-2_desc-heat_T1w.nii.gz', 'sub-b_desc-heat_T2w.nii.gz', 'sub-b1_desc-heat_T2w.nii.gz']
    """
    found: dict[str, BidsName] = {}
    used: set[str] = set()
    links: dict[Path, str] = {}
    for case, path in scans.items():
        name = _name(case, path, contrasts)
        own, number = dict(name.entities), 2
        while (key := BidsName(own, "").file("").lower()) in used:
            # Of several files that differ in what derivatives have no entity for, such as the echo.
            own, number = {**name.entities, "acq" if "run" in name.entities else "run": str(number)}, number + 1
        used.add(key)
        link = links.setdefault(name.root, "raw" if not links else f"raw{len(links) + 1}") if name.root else "raw"
        found[case] = BidsName(own, name.suffix, name.source, name.root, link)
    return found


def _name(case: str, path: Path, contrasts: Sequence[str]) -> BidsName:
    stem = io.stem(path)
    own = entities(stem)
    if own.get("sub", "").isalnum() and stem.isascii() and stem.startswith("sub-"):
        kept = {key: value for key, value in own.items() if key in _ORDER and value.isalnum()}
        root = next((folder for folder in path.resolve().parents if (folder / _ROOT).is_file()), None)
        source = "" if root is None else path.resolve().relative_to(root).as_posix()
        return BidsName(kept, stem.rpartition("_")[2], source, root)
    # A case of the name alone may have no letter or digit that BIDS takes.
    subject = participant(case).removeprefix("sub-") or "scan"
    return BidsName({"sub": subject}, bids_suffix(contrasts[0] if contrasts else ""))


def write_bids(out: Path, name: BidsName, scan: ExportedScan) -> list[Path]:
    """Write the files of one scan.

    Args:
        out: The data set.
        name: What they are called.
        scan: The scan.

    Returns:
        The files: the heat, the masks of what was scored and of findings, the findings by number with a table of them,
        and the pseudo-healthy scan where there is one, each image with a sidecar.

    Raises:
        DataError: If a file cannot be written.
    """
    folder, empty = out / name.folder, stripped(scan.scan)
    source = {"Sources": [f"bids:{name.link}:{name.source}"]} if name.source else {}
    common = {**source, "Use": USE, "GeneratedBy": f"medgen {medgen.__version__}", "ModelSHA256": scan.model}
    kind = "hot places of a scan of which nothing is claimed" if scan.doubt else "findings"
    heat = {
        "Description": "Heat: standard deviations from healthy scans (z)",
        "Units": "z",
        "NotScored": NOT_SCORED,
        "SkullStripped": empty,
        "Threshold": scan.threshold,
        "Doubt": scan.doubt,
        "Findings": [finding.to_plain(scan.doubt) for finding in scan.findings],
    }
    mask = (scan.regions.data > 0).astype(np.uint8)
    images: list[tuple[str, str, Volume, dict[str, Any]]] = [
        ("heat", name.suffix, scan.heatmap, heat),
        ("scored", "mask", scan.scored, {"Description": "Where heat was judged", "Type": "ROI"}),
        ("findings", "mask", scan.regions.with_data(mask), {"Description": f"Outlines of {kind}", "Type": "ROI"}),
        (
            "findings",
            "dseg",
            scan.regions.with_data(scan.regions.data.astype(np.uint16)),
            {
                "Description": f"Outlines of {kind}, by number",
                "Manual": False,
                "region": {"Description": "Where its peak lies"},
            },
        ),
    ]
    if scan.pseudo is not None:
        taken: list[str] = []
        for number, data in enumerate(scan.pseudo.data):
            suffix = name.suffix if number == 0 else bids_suffix(scan.contrasts[number])
            what = "pseudohealthy" if suffix not in taken else f"pseudohealthy{number + 1}"
            taken.append(suffix)
            said = {"Description": "What a model of healthy anatomy makes of the scan", "SkullStripped": empty}
            images.append((what, suffix, scan.pseudo.with_data(data[None]), said))
    written = []
    for what, suffix, volume, said in images:
        path = folder / name.file(what, suffix)
        io.write(volume, path, description=f"medgen {what}, research only")
        write_json(folder / name.file(what, suffix, "json"), {**said, **common})
        written += [path, folder / name.file(what, suffix, "json")]
    rows = [(str(item.id), scan.called(item), item.region or "n/a") for item in scan.findings]
    table = folder / name.file("findings", "dseg", "tsv")
    return [*written, write_tsv(table, ("index", "name", "region"), [("0", "background", "n/a"), *rows])]


def describe_bids(out: Path, names: Iterable[BidsName], title: str) -> list[Path]:
    """Write the files that describe the data set.

    Args:
        out: The data set.
        names: Of the scans that are in it.
        title: Its name.
    """
    sentence = f"Anomaly heatmaps and findings of single scans. {USE}."
    path = write_description(out, title, sentence)
    links = {name.link: os.path.relpath(name.root, out.resolve()) for name in names if name.root is not None}
    if links:
        write_json(path, read_json(path) | {"DatasetLinks": {link: Path(to).as_posix() for link, to in links.items()}})
    suffixes = [file.name.split(".")[0].rpartition("_")[2] for file in out.glob("sub-*/**/*.nii.gz")]
    unknown = sorted({*suffixes} - {"mask", "dseg"})
    return [path, write_ignored(out, (), unknown)]
