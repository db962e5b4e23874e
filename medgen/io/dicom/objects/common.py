"""What all objects share: who made them, the series that they open, and that they are for research only."""

from __future__ import annotations

from typing import Any

import highdicom
from pydicom.dataset import Dataset

from medgen.io.dicom.objects.codes import LEARNT
from medgen.io.dicom.objects.scored import ScoredScan
from medgen.io.dicom.objects.source import SourceSeries

NAME = "medgen"
# ContentDescription and the like hold 64 characters.
NOTICE = "Research use only, not for clinical use"


def opened(source: SourceSeries, scored: ScoredScan, number: int, what: str) -> dict[str, Any]:
    """Arguments of highdicom's classes: a new series and instance, with its maker.

    Args:
        source: The series.
        scored: For the model, whose digest stands where a machine has its serial number.
        number: Of the kind of object, from 1.
        what: What the series shows, for SeriesDescription.
    """
    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": source.series_number(number),
        "series_description": f"{NAME} {what}, {NOTICE.partition(',')[0].lower()}",
        "sop_instance_uid": highdicom.UID(),
        "instance_number": 1,
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": scored.version,
        "device_serial_number": scored.model,
    }


def algorithm(scored: ScoredScan) -> highdicom.AlgorithmIdentificationSequence:
    """medgen, its version, the family of its models, and the model itself by its digest."""
    parameters = {"model family": scored.family, "model SHA-256": scored.model}
    return highdicom.AlgorithmIdentificationSequence(NAME, LEARNT, scored.version, source=NAME, parameters=parameters)


def inherit(item: Dataset, source: SourceSeries) -> Dataset:
    """Repeat what highdicom does not: the body part, and that the source has been de-identified.

    No person created the content, which objects with content must say by an empty name.
    """
    keys = (
        "BodyPartExamined",
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "DeidentificationMethodCodeSequence",
    )
    for key in keys:
        if key in source.first and source.first.get(key) not in (None, ""):
            setattr(item, key, source.first.get(key))
    if "ContentLabel" in item:
        item.ContentCreatorName = ""
    return item
