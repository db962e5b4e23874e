"""A DICOM Comprehensive SR (PS3.3 A.35.3) after TID 1500 (PS3.16): the numbers of every outlined place."""

from __future__ import annotations

from highdicom import UID
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from medgen.io.dicom.objects import codes as own
from medgen.io.dicom.objects.common import NAME, inherit, opened
from medgen.io.dicom.objects.scored import Place, ScoredScan
from medgen.io.dicom.objects.source import SourceSeries


def structured_report(source: SourceSeries, scored: ScoredScan, segments: Dataset) -> Dataset:
    """Volume, peak, expected false findings and p-value of every place, each with the segment that outlines it.

    A first group says of the whole scan how many findings there are and above which heat: a report without findings
    says so, too. Places of a doubtful scan have neither p-value nor expected false findings, and the group says that
    nothing is claimed.

    Args:
        source: The series.
        scored: The places.
        segments: Their segmentation, by :func:`medgen.io.dicom.objects.segmentation.segmentation`.

    Returns:
        The report, not verified and not final.
    """
    groups = [
        VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
            referenced_segment=ReferencedSegment.from_segmentation(segments, segment.SegmentNumber),
            finding_type=own.UNUSUAL,
            finding_category=own.ABNORMAL,
            algorithm_id=_algorithm(scored),
            measurements=_measurements(place),
        )
        for place, segment in zip(scored.places, segments.SegmentSequence, strict=False)
    ]
    device = DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[NAME, scored.model]),
        name=NAME,
        manufacturer_name=NAME,
        model_name=NAME,
        serial_number=scored.model,
    )
    observer = ObserverContext(CodedConcept.from_code(codes.DCM.Device), device)
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=own.PROCEDURE,
        imaging_measurements=[_whole_scan(scored), *groups],
    )
    arguments = opened(source, scored, 4, "measurements")
    item = ComprehensiveSR(
        evidence=[segments, *source.datasets],
        content=report[0],
        is_complete=False,
        is_final=False,
        is_verified=False,
        coding_schemes=[own.own_scheme()],
        **arguments,
    )
    return inherit(item, source)


def _whole_scan(scored: ScoredScan) -> MeasurementsAndQualitativeEvaluations:
    claims = [QualitativeEvaluation(own.USE, own.RESEARCH)]
    if scored.doubt:
        claims.append(QualitativeEvaluation(own.CLAIM, own.NOTHING))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=UID(), identifier="Whole scan"),
        algorithm_id=_algorithm(scored),
        measurements=[
            Measurement(own.FINDINGS, 0 if scored.doubt else len(scored.places), own.NUMBER),
            Measurement(own.THRESHOLD, scored.threshold, own.NUMBER),
        ],
        qualitative_evaluations=claims,
    )


def _measurements(place: Place) -> list[Measurement]:
    numbers = [Measurement(own.VOLUME, place.volume_ml, own.MILLILITRE), Measurement(own.HEAT, place.peak, own.NUMBER)]
    if place.expected_false is not None:
        numbers.append(Measurement(own.EXPECTED_FALSE, place.expected_false, own.NUMBER))
    if place.p is not None:
        numbers.append(Measurement(own.FAMILY_WISE_P, place.p, own.NUMBER))
    return numbers


def _algorithm(scored: ScoredScan) -> AlgorithmIdentification:
    parameters = [f"model family={scored.family}", f"model SHA-256={scored.model}"]
    return AlgorithmIdentification(NAME, scored.version, parameters=parameters, family=own.LEARNT, manufacturer=NAME)
