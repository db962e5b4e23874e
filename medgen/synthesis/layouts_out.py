"""How a synthetic cohort lies on disk: nnU-Net, Medical Segmentation Decathlon or BIDS derivative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import medgen
from medgen import files, io
from medgen.errors import ConfigError
from medgen.synthesis.base import Synthetic
from medgen.synthesis.usefulness import NOT_MEASURED, Usefulness
from medgen.volume import Grid, Volume

Layout = Literal["nnunet", "msd", "bids"]
DESCRIPTION = "SYNTHETIC medgen"
# Words of a free-text modality → BIDS suffix.
_SUFFIXES = {"flair": "FLAIR", "t1": "T1w", "t2": "T2w", "pd": "PDw", "ct": "ct", "pet": "pet"}


@dataclass(frozen=True)
class About:
    """What the describing files say of a cohort.

    Attributes:
        name: Of the cohort.
        modality: Free text.
        labels: Label → name.
        channels: Of each image.
        stamp: Of the cohort as a whole.
        backends: What made it.
        scans: (id, backend, stamp) of every scan.
        original_labels: Label → its number in the cohort's own masks, where a run had to renumber.
        verdict: Of the value study.
    """

    name: str
    modality: str
    labels: Mapping[int, str]
    channels: int
    stamp: str
    backends: tuple[str, ...]
    scans: tuple[tuple[str, str, str], ...]
    original_labels: Mapping[int, int] = field(default_factory=dict)
    verdict: Usefulness = NOT_MEASURED

    @property
    def sentence(self) -> str:
        """For a field of free text."""
        made = ", ".join(self.backends)
        return (
            f"SYNTHETIC labelled scans made by medgen ({made}); {self.stamp}; value study: {self.verdict.word}; "
            "not for clinical use"
        )


def check_layout(layout: str, channels: int) -> None:
    """Refuse an unknown layout, or one that cannot hold the scans.

    Raises:
        ConfigError: Naming what can be used.
    """
    if layout not in get_args(Layout):
        raise ConfigError(f"layout: expected one of {', '.join(get_args(Layout))}, found {layout!r}")
    if channels > 1 and layout != "nnunet":
        raise ConfigError(f"layout {layout}: holds images of one channel here, found {channels}; use nnunet")


def scan_files(synthetic: Synthetic, name: str, grid: Grid, layout: str, modality: str) -> dict[str, Volume]:
    """Path below the cohort → what is written there, images in channel order and then the labels."""
    images = [Volume(data[None], grid) for data in synthetic.image]
    labels = Volume(synthetic.labels[None], grid)
    if layout == "nnunet":
        found = {f"imagesTr/{name}_{channel:04d}.nii.gz": image for channel, image in enumerate(images)}
        return {**found, f"labelsTr/{name}.nii.gz": labels}
    if layout == "msd":
        return {f"imagesTr/{name}.nii.gz": images[0], f"labelsTr/{name}.nii.gz": labels}
    base = f"{participant(name)}/anat/{participant(name)}"
    return {f"{base}_{bids_suffix(modality)}.nii.gz": images[0], f"{base}_dseg.nii.gz": labels}


def write_scan(content: Mapping[str, Volume], out: Path, backend: str, stamp: str) -> dict[str, str]:
    """Write the files of one scan, marked in their headers; path below ``out`` → SHA-256.

    Equal scans give equal bytes: there is no time and no file name in a file.
    """
    hashes = {}
    for name, volume in content.items():
        io.write(volume, out / name, description=f"{DESCRIPTION} {backend}; {stamp}")
        hashes[name] = files.sha256_file(out / name)
    return hashes


def describe(out: Path, layout: str, about: About) -> list[Path]:
    """Write the files that describe the cohort as its layout wants them; the paths written."""
    if layout == "bids":
        return _bids(out, about)
    labels = {"background": 0, **{name: value for value, name in sorted(about.labels.items())}}
    common = {"name": f"{about.name} synthetic", "description": about.sentence, "numTraining": len(about.scans)}
    if layout == "nnunet":
        names = {str(channel): about.modality for channel in range(about.channels)}
        content: dict[str, Any] = {**common, "channel_names": names, "labels": labels, "file_ending": ".nii.gz"}
    else:
        listed = [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name, _, _ in about.scans
        ]
        content = {
            **common,
            "tensorImageSize": "3D",
            "modality": {"0": about.modality},
            "labels": {str(value): name for name, value in labels.items()},
            "numTest": 0,
            "training": listed,
            "test": [],
        }
    content["original_labels"] = {str(label): number for label, number in about.original_labels.items()}
    content["medgen"] = {"synthetic": True, "stamp": about.stamp, "version": medgen.__version__}
    content["medgen"]["verdict"] = asdict(about.verdict)
    files.write_json(out / "dataset.json", content)
    return [out / "dataset.json"]


def participant(name: str) -> str:
    """BIDS subject of a scan: labels are letters and digits only.

    >>> participant("syn-0001")
    'sub-syn0001'
    """
    return "sub-" + "".join(sign for sign in name if sign.isalnum())


def bids_suffix(modality: str) -> str:
    """BIDS suffix of a free-text modality; ``anat`` where it names none that BIDS knows.

    >>> bids_suffix("MR T1-weighted (simulated)"), bids_suffix("MR")
    ('T1w', 'anat')
    """
    words = modality.lower().replace("-", " ").replace("(", " ").split()
    found = [suffix for start, suffix in _SUFFIXES.items() if any(word.startswith(start) for word in words)]
    return found[0] if found else "anat"


def _bids(out: Path, about: About) -> list[Path]:
    description = {
        "Name": f"{about.name} synthetic",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medgen", "Version": medgen.__version__, "Description": about.sentence}],
    }
    files.write_json(out / "dataset_description.json", description)
    columns = ("participant_id", "synthetic", "scan", "backend", "stamp")
    rows = [(participant(name), "true", name, backend, stamp) for name, backend, stamp in about.scans]
    _tsv(out / "participants.tsv", columns, rows)
    _tsv(out / "dseg.tsv", ("index", "name"), [("0", "background"), *((str(v), n) for v, n in about.labels.items())])
    files.write_text(out / ".bidsignore", "provenance/\ncard.md\n")
    suffix = bids_suffix(about.modality)
    written = [out / "dataset_description.json", out / "participants.tsv", out / "dseg.tsv", out / ".bidsignore"]
    for name, backend, stamp in about.scans:
        path = out / participant(name) / "anat" / f"{participant(name)}_{suffix}.json"
        files.write_json(path, {"Synthetic": True, "Generator": f"medgen {backend}", "Use": stamp})
        written.append(path)
    return written


def _tsv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    clean = ["\t".join(cell.replace("\t", " ") for cell in row) for row in (columns, *rows)]
    files.write_text(path, "\n".join(clean) + "\n")
