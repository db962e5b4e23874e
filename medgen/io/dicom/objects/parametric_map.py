"""A DICOM Parametric Map (PS3.3 A.75) of the heat, in float32."""

from __future__ import annotations

import highdicom
import numpy as np
from highdicom.pm import RealWorldValueMapping
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from medgen.io.dicom.objects.codes import HEAT, own_scheme, region_of
from medgen.io.dicom.objects.common import NOTICE, inherit, opened
from medgen.io.dicom.objects.scored import ScoredScan
from medgen.io.dicom.objects.source import SourceSeries, heights

_PADDING = -1000.0
# Heat from 0 to 8 standard deviations: what a viewer shows at first.
_CENTER, _WIDTH = 4.0, 8.0


def parametric_map(source: SourceSeries, scored: ScoredScan) -> Dataset:
    """The heat (z), value by value as in the heatmap, on all frames of the source series.

    A parametric map cannot hold NaN in a way that every reader understands: voxels that were not scored have the value
    that FloatPixelPaddingValue names and that the mapping of values explains, far below all heat. The segment "Scored"
    of the segmentation says the same.

    Frames ascend along the normal of the slices: readers that stack frames as they come (dcmqi among them) reverse
    a map that descends.

    Args:
        source: The series.
        scored: For its heatmap.

    Returns:
        The object.
    """
    heat = source.framed(scored.heatmap.data[0]).astype(np.float32)
    known = heat[~np.isnan(heat)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    padding = _PADDING if low > _PADDING else float(np.finfo(np.float32).min)
    item = highdicom.pm.ParametricMap(
        source_images=source.datasets,
        pixel_array=np.where(np.isnan(heat), np.float32(padding), heat),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="HEAT",
                lut_explanation=f"{HEAT.meaning}; {padding:g}: not scored",
                unit=codes.UCUM.NoUnits,
                value_range=(min(padding, low), high),  # Readers refuse values outside, be they padding.
                slope=1.0,
                intercept=0.0,
                quantity_definition=HEAT,
            )
        ],
        voi_lut_transformations=[highdicom.VOILUTTransformation(window_center=_CENTER, window_width=_WIDTH)],
        content_label="MEDGEN_HEAT",
        content_description=NOTICE,
        coding_schemes=[own_scheme()],
        **opened(source, scored, 2, "heat (z)"),
    )
    # One value, as a range of one: dciodvfy expects both ends.
    item.FloatPixelPaddingValue = item.FloatPixelPaddingRangeLimit = padding
    anatomy = Dataset()
    anatomy.AnatomicRegionSequence = [
        CodedConcept.from_code(region_of(str(source.first.get("BodyPartExamined") or "")))
    ]
    anatomy.FrameLaterality = "U"
    item.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    return inherit(_ascending(item), source)


def _ascending(item: Dataset) -> Dataset:
    """The same map with its frames in ascending order along the normal."""
    count = int(item.NumberOfFrames)
    order: NDArray[np.int64] = np.argsort(heights(item, range(count)), kind="stable")
    frames = np.frombuffer(item.FloatPixelData, dtype="<f4").reshape(count, -1)
    item.FloatPixelData = frames[order].tobytes()
    groups = [item.PerFrameFunctionalGroupsSequence[index] for index in order]
    for number, group in enumerate(groups, start=1):
        group.FrameContentSequence[0].DimensionIndexValues = [number]
    item.PerFrameFunctionalGroupsSequence = groups
    return item
