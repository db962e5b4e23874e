"""What the records of a run prove about a study, for scores: yes, no, or None where only its authors can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from medgen.report.cards.facts import data, limits, results
from medgen.report.cards.records import ARTIFACT, METRICS, Reader
from medgen.runs.outputs import RECORD

Judgement = Callable[[Reader], bool | None]


def segments(read: Reader) -> bool | None:
    """Whether segmenters were trained and judged: yes where there is a value study."""
    return True if read(METRICS, "value") else None


def segmentation_measured(read: Reader) -> bool | None:
    """Whether segmentations were compared with masks."""
    return True if results.segmentation_performance(read) else None


def settings_kept(read: Reader) -> bool | None:
    """Whether all settings are on record, with their digest."""
    return True if read(RECORD, "config_sha256") else None


def perturbed(read: Reader) -> bool | None:
    """Whether the model was asked about perturbed copies of its test scans."""
    return True if limits.artefacts(read) else None


def divided_by_subject(read: Reader) -> bool | None:
    """Whether parts are disjoint by subject: no where a subject is in two."""
    shared = data.overlap(read)
    return None if shared is None else shared == 0


def intervals(read: Reader) -> bool | None:
    """Whether what was measured has intervals: no where a number of the test has none."""
    found = results.measured(read)
    # Losses of a training are no results of a test.
    if not found or not data.internal_test(read):
        return None
    return all(value.get("low") is not None and value.get("high") is not None for value in found.values())


def calibration_measured(read: Reader) -> bool | None:
    """Whether the promised rate of false positives was measured on scans that calibrate nothing."""
    return True if read(METRICS, "target_fpr") is not None and read(METRICS, "any_hot") else None


def one_channel(read: Reader) -> bool | None:
    """Whether there is one image for each person."""
    channels = read(ARTIFACT, "meta", "channels")
    return True if channels is not None and len(channels) == 1 else None


def baselines_measured(read: Reader) -> bool | None:
    """Whether simple baselines were measured on the same scans."""
    return True if results.baselines(read) else None


def tested_inside(read: Reader) -> bool | None:
    """Whether there was a test on subjects that nothing has learnt from."""
    return True if data.internal_test(read) and results.measures(read) else None


JUDGEMENTS: Mapping[str, Judgement] = {
    own.__name__: own
    for own in (
        segments,
        segmentation_measured,
        settings_kept,
        perturbed,
        divided_by_subject,
        intervals,
        calibration_measured,
        one_channel,
        baselines_measured,
        tested_inside,
    )
}
