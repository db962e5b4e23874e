"""A scene for 3D Slicer: scan, heat above the threshold in colours, findings as segments, a point at each peak.

MRML is Slicer's XML: elements are nodes, named without their ``vtkMRML`` and ``Node``, that refer to each other by id;
data lie in files beside it, which storage nodes name relative to the scene.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from medgen import io
from medgen.anomaly.export.scan import COOL, HOT, USE, ExportedScan
from medgen.io.itk import write_itk
from medgen.system.files import write_json, write_text
from medgen.volume import Volume

_MARKUPS = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
# Slicer's terms: LPS in files, RAS in its views.
_TO_LPS = np.array([-1.0, -1.0, 1.0])
_FINDING, _SCORED = (0.84, 0.37, 0.0), (0.6, 0.6, 0.6)
_COLOURS = 256


def write_slicer(folder: Path, scan: ExportedScan) -> list[Path]:
    """Write a scene with everything that it shows, in one folder that can be moved.

    Args:
        folder: New files go here: ``<name>.mrml``, ``scan.nii.gz`` (``scan-2.nii.gz`` and on for further contrasts),
            ``heat.nii.gz``, ``heat.ctbl``, ``findings.seg.nrrd``, ``scored.seg.nrrd`` and ``peaks.mrk.json``.
        scan: The scan.

    Returns:
        The files, the scene last.

    Raises:
        DataError: If a file cannot be written.
    """
    # First, since NRRD alone refuses a grid that is not quite at right angles: then nothing is written.
    segments = [(finding.id, scan.called(finding)) for finding in scan.findings]
    _write_segments(folder / "findings.seg.nrrd", scan.regions, segments, _FINDING)
    _write_segments(folder / "scored.seg.nrrd", scan.scored, [(1, "Scored")], _SCORED)
    written = []
    for number in range(len(scan.scan.data)):
        written.append(folder / _scan_file(number))
        io.write(scan.scan.with_data(scan.scan.data[number : number + 1]), written[-1], description="medgen input")
    io.write(scan.shown_heat, folder / "heat.nii.gz", description="medgen heat (z), research only")
    write_text(folder / "heat.ctbl", _colour_table())
    write_json(folder / "peaks.mrk.json", _peaks(scan))
    root = _scene(scan)
    ElementTree.indent(root)
    write_text(
        folder / f"{scan.name}.mrml", ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
    )
    others = ("heat.nii.gz", "heat.ctbl", "findings.seg.nrrd", "scored.seg.nrrd", "peaks.mrk.json", f"{scan.name}.mrml")
    return [*written, *(folder / name for name in others)]


def _scan_file(number: int) -> str:
    return "scan.nii.gz" if number == 0 else f"scan-{number + 1}.nii.gz"


def _colour_table() -> str:
    """Lines of label, name, red, green, blue and opacity."""
    share = np.linspace(0, 1, _COLOURS)[:, None]
    colours = np.rint(np.array(COOL) * (1 - share) + np.array(HOT) * share).astype(int)
    return "".join(
        f"{at} heat{at} {red} {green} {blue} 255\n" for at, (red, green, blue) in enumerate(colours.tolist())
    )


def _write_segments(
    path: Path, labels: Volume, segments: list[tuple[int, str]], colour: tuple[float, float, float]
) -> None:
    """A label map with Slicer's names of its segments in the header (its ``.seg.nrrd``)."""
    extent = " ".join(f"0 {size - 1}" for size in labels.grid.shape)
    fields = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for at, (value, name) in enumerate(segments):
        own = {"ID": f"Segment_{value}", "Name": name, "Color": " ".join(map(str, colour)), "LabelValue": str(value)}
        own |= {"Layer": "0", "Extent": extent, "Tags": "|"}
        fields |= {f"Segment{at}_{key}": said for key, said in own.items()}
    kind = np.uint8 if labels.data.max(initial=0) < 256 else np.int16
    write_itk(labels.with_data(labels.data.astype(kind)), path, fields)


def _peaks(scan: ExportedScan) -> dict[str, Any]:
    points = [
        {
            "id": str(finding.id),
            "label": scan.called(finding),
            "description": f"{finding.region}; z {finding.peak:.2f}. {USE}",
            "associatedNodeID": "",
            "position": (scan.heatmap.grid.to_world(finding.peak_voxel) * _TO_LPS).tolist(),
            "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": True,
            "visibility": True,
            "positionStatus": "defined",
        }
        for finding in scan.findings
    ]
    about = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": True}
    return {"@schema": _MARKUPS, "markups": [{**about, "labelFormat": "%N-%d", "controlPoints": points}]}


def _scene(scan: ExportedScan) -> ElementTree.Element:
    root = ElementTree.Element("MRML", {"version": "Slicer4.4.0", "userTags": ""})
    for number, (low, high) in enumerate(scan.window):
        shown = {"window": f"{high - low:.9g}", "level": f"{(high + low) / 2:.9g}", "applyThreshold": "0"}
        name = " ".join(part for part in (scan.name, scan.contrasts[number]) if part)
        _volume(root, number + 1, name, _scan_file(number), "vtkMRMLColorTableNodeGrey", shown)
    heat = len(scan.window) + 1
    _node(root, "ColorTableStorage", "vtkMRMLColorTableStorageNode1", "heat colours", fileName="heat.ctbl")
    _node(
        root,
        "ColorTable",
        "vtkMRMLColorTableNode1",
        "heat colours",
        references="storage:vtkMRMLColorTableStorageNode1;",
        type="14",
        numcolors=str(_COLOURS),
    )
    span = {"window": f"{scan.top - scan.threshold:.9g}", "level": f"{(scan.top + scan.threshold) / 2:.9g}"}
    limits = {"applyThreshold": "1", "lowerThreshold": f"{scan.threshold:.9g}", "upperThreshold": f"{scan.top:.9g}"}
    _volume(root, heat, f"{scan.name} heat (z), {USE.lower()}", "heat.nii.gz", "vtkMRMLColorTableNode1", span | limits)
    _segmentation(root, 1, f"{scan.name} {'hot places' if scan.doubt else 'findings'}", "findings.seg.nrrd", shown=True)
    _segmentation(root, 2, f"{scan.name} scored", "scored.seg.nrrd", shown=False)
    _node(root, "MarkupsJsonStorage", "vtkMRMLMarkupsJsonStorageNode1", "peaks", fileName="peaks.mrk.json")
    _node(root, "MarkupsDisplay", "vtkMRMLMarkupsDisplayNode1", "peaks", visibility="true", glyphType="StarBurst2D")
    _node(
        root,
        "MarkupsFiducial",
        "vtkMRMLMarkupsFiducialNode1",
        f"{scan.name} peaks",
        references="display:vtkMRMLMarkupsDisplayNode1;storage:vtkMRMLMarkupsJsonStorageNode1;",
    )
    for colour in ("Red", "Yellow", "Green"):
        _node(
            root,
            "SliceComposite",
            f"vtkMRMLSliceCompositeNode{colour}",
            "SliceComposite",
            singletonTag=colour,
            layoutName=colour,
            references=f"backgroundVolume:vtkMRMLScalarVolumeNode1;foregroundVolume:vtkMRMLScalarVolumeNode{heat};",
            backgroundVolumeID="vtkMRMLScalarVolumeNode1",
            foregroundVolumeID=f"vtkMRMLScalarVolumeNode{heat}",
            foregroundOpacity="0.6",
            linkedControl="1",
        )
    return root


def _node(root: ElementTree.Element, kind: str, identifier: str, name: str, **said: str) -> None:
    ElementTree.SubElement(root, kind, {"id": identifier, "name": name, **said})


def _volume(
    root: ElementTree.Element, number: int, name: str, file: str, colours: str, shown: Mapping[str, str]
) -> None:
    storage, display = f"vtkMRMLVolumeArchetypeStorageNode{number}", f"vtkMRMLScalarVolumeDisplayNode{number}"
    _node(
        root,
        "VolumeArchetypeStorage",
        storage,
        name,
        fileName=file,
        centerImage="0",
        singleFile="1",
        UseOrientationFromFile="1",
    )
    own = {"references": f"color:{colours};", "colorNodeID": colours, "autoWindowLevel": "0", "autoThreshold": "0"}
    _node(root, "VolumeDisplay", display, name, **own, interpolate="1", **shown)
    _node(
        root,
        "Volume",
        f"vtkMRMLScalarVolumeNode{number}",
        name,
        references=f"display:{display};storage:{storage};",
    )


def _segmentation(root: ElementTree.Element, number: int, name: str, file: str, *, shown: bool) -> None:
    storage, display = f"vtkMRMLSegmentationStorageNode{number}", f"vtkMRMLSegmentationDisplayNode{number}"
    _node(root, "SegmentationStorage", storage, name, fileName=file)
    _node(root, "SegmentationDisplay", display, name, visibility=str(shown).lower(), Visibility2DFill="false")
    _node(
        root,
        "Segmentation",
        f"vtkMRMLSegmentationNode{number}",
        name,
        references=f"display:{display};storage:{storage};referenceImageGeometryRef:vtkMRMLScalarVolumeNode1;",
    )
