"""How a synthetic cohort lies on disk: nnU-Net, Medical Segmentation Decathlon or BIDS derivative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import medgen
from medgen import io
from medgen.data.layouts.bids_files import (
    bids_suffix,
    participant,
    stripped,
    write_description,
    write_ignored,
    write_tsv,
)
from medgen.errors import ConfigError
from medgen.runs.outputs import RECORDS
from medgen.synthesis.backend import Synthetic
from medgen.synthesis.usefulness import NOT_MEASURED, Usefulness
from medgen.system import files
from medgen.volume import Grid, Volume

Layout = Literal["nnunet", "msd", "bids"]
DESCRIPTION = "SYNTHETIC medgen"


@dataclass(frozen=True)
class About:
    """What the describing files say of a cohort.

    Attributes:
        name: Name of the cohort.
        modality: Free text.
        labels: Label → name.
        channels: Number of channels of each image.
        stamp: Whether the cohort as a whole may be shared: ``share`` or ``internal use only``.
        backends: What made it.
        scans: (id, backend, stamp) of every scan.
        original_labels: Label → its number in the cohort's own masks, where a run had to renumber.
        channel_names: Channel names of the cohort that was learnt from; empty where it does not say.
        regions: Name → labels of every region, where the cohort's labels are regions; empty where they are not.
        class_order: Label that each region is drawn with, in the order of ``regions``.
        verdict: What the value study found about the scans.
    """

    name: str
    modality: str
    labels: Mapping[int, str]
    channels: int
    stamp: str
    backends: tuple[str, ...]
    scans: tuple[tuple[str, str, str], ...]
    original_labels: Mapping[int, int] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    class_order: tuple[int, ...] = ()
    verdict: Usefulness = NOT_MEASURED

    @property
    def sentence(self) -> str:
        """One sentence on what the scans are, for the free-text field of a describing file."""
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
        known = len(about.channel_names) == about.channels
        named = about.channel_names if known else (about.modality,) * about.channels
        content: dict[str, Any] = {
            **common,
            "channel_names": {str(channel): name for channel, name in enumerate(named)},
            **labels_or_regions(about.labels, about.regions, about.class_order),
            "file_ending": ".nii.gz",
        }
    else:
        listed = [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name, _, _ in about.scans
        ]
        content = {
            **common,
            # Keys that every Decathlon task has, and that its readers look up.
            "reference": "made by medgen",
            "licence": "as the scans that the generators learnt from",
            "release": medgen.__version__,
            "tensorImageSize": "3D",
            "modality": {"0": about.channel_names[0] if len(about.channel_names) == 1 else about.modality},
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


def labels_or_regions(
    labels: Mapping[int, str], regions: Mapping[str, tuple[int, ...]], class_order: Sequence[int]
) -> dict[str, Any]:
    """``labels`` of an nnU-Net ``dataset.json``; with ``regions_class_order`` where labels are regions.

    >>> labels_or_regions({1: "a"}, {}, ())
    {'labels': {'background': 0, 'a': 1}}
    >>> labels_or_regions({1: "rest of a", 2: "b"}, {"a": (1, 2), "b": (2,)}, (1, 2))
    {'labels': {'background': 0, 'a': [1, 2], 'b': 2}, 'regions_class_order': [1, 2]}
    """
    if not regions:
        return {"labels": {"background": 0, **{name: value for value, name in sorted(labels.items())}}}
    named = {name: numbers[0] if len(numbers) == 1 else list(numbers) for name, numbers in regions.items()}
    order = {"regions_class_order": list(class_order)} if class_order else {}
    return {"labels": {"background": 0, **named}, **order}


def renumbered_regions(
    regions: Mapping[str, tuple[int, ...]], class_order: Sequence[int], numbers: Mapping[int, int]
) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """Regions and their order of drawing in other numbers; what has no number is dropped, and regions of nothing, too.

    Args:
        regions: Name → numbers in the cohort's masks.
        class_order: Number that each region is drawn with.
        numbers: Number in the cohort's masks → number in use.

    >>> renumbered_regions({"a": (1, 2), "b": (2,), "c": (9,)}, (1, 2, 9), {1: 5, 2: 6})
    ({'a': (5, 6), 'b': (6,)}, (5, 6))
    """
    kept = {name: tuple(numbers[n] for n in own if n in numbers) for name, own in regions.items()}
    order = [
        numbers.get(drawn, kept[name][0] if kept[name] else 0)
        for name, drawn in zip(regions, class_order, strict=False)
    ]
    used = [name for name in kept if kept[name]]
    drawn = tuple(number for name, number in zip(regions, order, strict=False) if kept[name])
    return {name: kept[name] for name in used}, drawn


def _bids(out: Path, about: About) -> list[Path]:
    columns = ("participant_id", "synthetic", "scan", "backend", "stamp")
    rows = [(participant(name), "true", name, backend, stamp) for name, backend, stamp in about.scans]
    labels = [("0", "background"), *((str(value), name) for value, name in sorted(about.labels.items()))]
    suffix = bids_suffix(about.modality)
    columns_said = {
        "synthetic": {"Description": "Whether there is no patient: true of every scan here"},
        "scan": {"Description": "Name of the scan in medgen, as in provenance/"},
        "backend": {"Description": "What made it"},
        "stamp": {"Description": "Whether it may be shared, by the memorisation audit"},
    }
    files.write_json(out / "participants.json", columns_said)
    written = [
        write_description(out, f"{about.name} synthetic", about.sentence),
        write_tsv(out / "participants.tsv", columns, rows),
        out / "participants.json",
        write_tsv(out / "dseg.tsv", ("index", "name"), labels),
        write_ignored(out, ("/provenance", "card.md", *(f"/{name}" for name in RECORDS)), (suffix,)),
    ]
    for name, backend, stamp in about.scans:
        base = out / participant(name) / "anat" / f"{participant(name)}_{suffix}"
        empty = stripped(io.read(base.with_name(f"{base.name}.nii.gz")))
        said = {"Synthetic": True, "Generator": f"medgen {backend}", "Use": stamp, "SkullStripped": empty}
        files.write_json(base.with_name(f"{base.name}.json"), said)
        written.append(base.with_name(f"{base.name}.json"))
    return written


def original_labels(folder: Path) -> dict[int, int]:
    """Label number in an exported cohort → number in the real masks, as its ``dataset.json`` says; else empty."""
    path = folder / "dataset.json"
    found = files.read_json(path) if path.is_file() else {}
    declared = found.get("original_labels") if isinstance(found, dict) else None
    if not isinstance(declared, Mapping):
        return {}
    return {int(mine): int(file) for mine, file in declared.items()}
