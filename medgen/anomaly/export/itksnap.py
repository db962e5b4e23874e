"""A workspace for ITK-SNAP: the scan, the heat above the threshold over it, findings as labels.

A workspace is a registry in XML: folders and entries by key. It names files by absolute paths, and finds them beside
itself where it lies elsewhere than ``SaveLocation`` says: so paths start at a made-up folder here, and the folder of
a workspace can be moved and tells no one's folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from medgen import io
from medgen.anomaly.export.scan import COOL, HOT, ExportedScan
from medgen.system.files import write_text

_PLACE = "/medgen"
_HEAD = """<?xml version="1.0" encoding="UTF-8" ?>
<!--ITK-SNAP (itksnap.org) Project File-->
<!DOCTYPE registry [
<!ELEMENT registry (entry*,folder*)>
<!ELEMENT folder (entry*,folder*)>
<!ELEMENT entry EMPTY>
<!ATTLIST folder key CDATA #REQUIRED>
<!ATTLIST entry key CDATA #REQUIRED>
<!ATTLIST entry value CDATA #REQUIRED>
]>
"""


def write_itksnap(folder: Path, scan: ExportedScan) -> list[Path]:
    """Write a workspace with everything that it shows, in one folder that can be moved.

    Args:
        folder: New files go here: ``<name>.itksnap``, ``scan.nii.gz``, ``heat.nii.gz`` and ``findings.nii.gz``. Of a
            scan with several contrasts ``scan.nii.gz`` is the first.
        scan: The scan.

    Returns:
        The files, the workspace last.

    Raises:
        DataError: If a file cannot be written.
    """
    io.write(scan.scan.with_data(scan.scan.data[:1]), folder / "scan.nii.gz", description="medgen input")
    io.write(scan.shown_heat, folder / "heat.nii.gz", description="medgen heat (z), research only")
    io.write(
        scan.regions.with_data(scan.regions.data.astype(np.uint16)),
        folder / "findings.nii.gz",
        description="medgen findings, research only",
    )
    write_text(folder / f"{scan.name}.itksnap", f"{_HEAD}<registry>\n{_entries(_registry(scan), 1)}</registry>\n")
    return [folder / name for name in ("scan.nii.gz", "heat.nii.gz", "findings.nii.gz", f"{scan.name}.itksnap")]


def _registry(scan: ExportedScan) -> dict[str, Any]:
    first, heat = scan.scan.data[0], scan.shown_heat.data
    shown = _curve(float(np.nanmin(first)), float(np.nanmax(first)), *scan.window[0])
    low, high = float(heat.min()), float(heat.max())
    # Colours cannot end outside of the image's range, as they do elsewhere; without heat above the threshold there are
    # none.
    colours = _curve(low, high, min(scan.threshold, high - 1e-3 * (high - low)), high)
    some = high > scan.threshold
    labels = {"LabelTable": _labels(scan)}
    return {
        "SaveLocation": _PLACE,
        "Version": "20190612",
        "Layers": {
            "Layer[000]": _layer("scan.nii.gz", "MainRole", "255", scan.name, _mapping("Grayscale", shown))
            | {"ProjectMetaData": {"IRIS": labels}},
            "Layer[001]": _layer(
                "heat.nii.gz", "OverlayRole", "0.6" if some else "0", "heat (z)", {"ColorMap": _hot(), "Curve": colours}
            ),
            "Layer[002]": _layer("findings.nii.gz", "SegmentationRole", "0", "findings", None),
        },
    }


def _layer(file: str, role: str, alpha: str, name: str, mapping: Mapping[str, Any] | None) -> dict[str, Any]:
    about: dict[str, Any] = {"Alpha": alpha, "CustomNickName": name, "Sticky": "0" if role == "MainRole" else "1"}
    about |= {"Tags": ""} | ({"DisplayMapping": mapping} if mapping else {})
    return {"AbsolutePath": f"{_PLACE}/{file}", "Role": role, "Tags": "", "LayerMetaData": about}


def _mapping(preset: str, curve: Mapping[str, Any]) -> dict[str, Any]:
    return {"ColorMap": {"Preset": preset}, "Curve": curve}


def _curve(low: float, high: float, black: float, white: float) -> dict[str, Any]:
    """Which values are the first and the last colour, as shares of the image's own range."""
    span = max(high - low, 1e-12)
    begin, end = (black - low) / span, (white - low) / span
    points = {
        f"ControlPoint[{at}]": {"tValue": f"{begin + at * (end - begin) / 2:.9g}", "xValue": f"{at / 2:g}"}
        for at in range(3)
    }
    return {"NumberOfControlPoints": "3", **points}


def _hot() -> dict[str, Any]:
    """Nothing at and below the first colour, then vermilion to yellow."""
    points = [(0.0, "Discontinuous", (*COOL, 0), (*COOL, 255)), (1.0, "Continuous", (*HOT, 255), (*HOT, 255))]
    return {
        "Preset": "Custom",
        "NumberOfControlPoints": str(len(points)),
        **{
            f"ControlPoint[{at:04d}]": {
                "Index": f"{index:g}",
                "Type": kind,
                # A dot parts a folder from what lies in it.
                "Left": dict(zip("RGBA", map(str, left), strict=True)),
                "Right": dict(zip("RGBA", map(str, right), strict=True)),
            }
            for at, (index, kind, left, right) in enumerate(points)
        },
    }


def _labels(scan: ExportedScan) -> dict[str, Any]:
    listed = {
        f"Element[{at}]": {
            "Alpha": "255",
            "Color": " ".join(map(str, COOL)),
            "Flags": "1 1",
            "Index": str(finding.id),
            "Label": scan.called(finding),
        }
        for at, finding in enumerate(scan.findings)
    }
    return {"NumberOfElements": str(len(listed)), **listed}


def _entries(content: Mapping[str, Any], depth: int) -> str:
    """Entries first and then folders, as the document type wants them."""
    pad = "  " * depth
    flat = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    text = "".join(
        f"{pad}<entry key={quoteattr(key)} value={quoteattr(str(value))} />\n" for key, value in flat.items()
    )
    for key, value in content.items():
        if isinstance(value, Mapping):
            text += f"{pad}<folder key={quoteattr(key)} >\n{_entries(value, depth + 1)}{pad}</folder>\n"
    return text
