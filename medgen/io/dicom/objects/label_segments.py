"""A DICOM Segmentation (PS3.3 A.51) of the labels of a synthetic scan: a segment for each label."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from medgen.io.dicom.objects.codes import LEARNT, OWN, SPATIAL, own_scheme
from medgen.io.dicom.objects.common import NAME, NOTICE
from medgen.io.dicom.objects.synthetic import SyntheticScan
from medgen.io.dicom.objects.synthetic_series import MARK

# CIELab colours that follow each other around the circle of hues.
_LIGHT, _CHROMA, _TURN = 65.0, 55.0, 137.5


def label_segments(scan: SyntheticScan, series: Sequence[Dataset]) -> Dataset:
    """Binary segments, each frame on a slice of the scan's series; segment numbers ascend with the labels.

    What a label stands for is said by medgen's own codes: its number is in ``code``, its name is the code's meaning.

    Args:
        scan: The scan.
        series: Its first series, slice by slice, by :func:`medgen.io.dicom.objects.synthetic_series.synthetic_series`.

    Returns:
        The object; a label that is nowhere in the scan has a segment without frames.
    """
    labels = np.moveaxis(scan.labels.data[0], (0, 1, 2), (2, 1, 0))
    values = sorted(scan.label_names)
    parameters = {"backend": scan.backend, "generator SHA-256": scan.generator}
    algorithm = highdicom.AlgorithmIdentificationSequence(
        NAME, LEARNT, scan.version, source=NAME, parameters=parameters
    )
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=scan.label_names[value][:64],
            segmented_property_category=SPATIAL,
            segmented_property_type=CodedConcept(f"LABEL_{value}", OWN, scan.label_names[value][:64]),
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=highdicom.UID(),
            tracking_id=f"{MARK} {scan.name} label {value}"[:64],
            display_color=_colour(number),
        )
        for number, value in enumerate(values, start=1)
    ]
    item = highdicom.seg.Segmentation(
        source_images=series,
        pixel_array=np.stack([labels == value for value in values], axis=-1),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        content_label=f"MEDGEN_{MARK}",
        content_description=f"{MARK}, {NOTICE.lower()}",
        coding_schemes=[own_scheme()],
        series_instance_uid=highdicom.UID(),
        series_number=100,
        series_description=f"{MARK} {NAME} labels, {NOTICE.partition(',')[0].lower()}",
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=scan.backend,
        software_versions=scan.version,
        device_serial_number=scan.generator,
    )
    item.SyntheticData = "YES"
    item.ContentCreatorName = ""
    item.PatientComments = series[0].PatientComments
    item.StudyDescription = series[0].StudyDescription
    return item


def _colour(number: int) -> highdicom.color.CIELabColor:
    angle = np.radians(_TURN * number)
    return highdicom.color.CIELabColor(_LIGHT, float(_CHROMA * np.cos(angle)), float(_CHROMA * np.sin(angle)))
