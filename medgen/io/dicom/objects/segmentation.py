"""A DICOM Segmentation (PS3.3 A.51): a segment for each outlined place, and one for all that was scored."""

from __future__ import annotations

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from medgen.io.dicom.objects.codes import ABNORMAL, SCORED, SPATIAL, UNUSUAL, own_scheme, region_of
from medgen.io.dicom.objects.common import NOTICE, algorithm, inherit, opened
from medgen.io.dicom.objects.scored import ScoredScan
from medgen.io.dicom.objects.source import SourceSeries

# CIELab as the standard counts it: orange for places, grey for what was scored.
_PLACE = highdicom.color.CIELabColor(70.0, 35.0, 70.0)
_SCORED = highdicom.color.CIELabColor(65.0, 0.0, 0.0)


def segmentation(source: SourceSeries, scored: ScoredScan) -> Dataset:
    """Binary segments, each frame on a frame of the source series.

    Segment ``n`` is place ``n``. The last segment, "Scored", is where the heatmap has a value: outside it nothing was
    judged, which no empty segment could say.

    Args:
        source: The series.
        scored: Places and heatmap.

    Returns:
        The object; frames that are empty in a segment are left out, as is usual.
    """
    regions, heat = source.framed(scored.regions.data[0]), source.framed(scored.heatmap.data[0])
    layers = [*(regions == place.number for place in scored.places), ~np.isnan(heat)]
    names: list[tuple[str, Code, highdicom.sr.CodedConcept, highdicom.color.CIELabColor]] = [
        *((place.label, ABNORMAL, UNUSUAL, _PLACE) for place in scored.places),
        ("Scored", SPATIAL, SCORED, _SCORED),
    ]
    region = region_of(str(source.first.get("BodyPartExamined") or ""))
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm(scored),
            tracking_uid=highdicom.UID(),
            tracking_id=label,
            anatomic_regions=[region],
            display_color=colour,
        )
        for number, (label, category, kind, colour) in enumerate(names, start=1)
    ]
    for description, place in zip(descriptions, scored.places, strict=False):
        if place.region:
            description.SegmentDescription = place.region
    item = highdicom.seg.Segmentation(
        source_images=source.datasets,
        pixel_array=np.stack(layers, axis=-1),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        content_label="MEDGEN_FINDINGS",
        content_description=NOTICE,
        coding_schemes=[own_scheme()],
        **opened(source, scored, 1, "findings"),
    )
    return inherit(item, source)
