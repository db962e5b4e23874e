"""The viewer of a scored scan: the scan, its pseudo-healthy version and the difference, with the heat over them."""

from __future__ import annotations

import numpy as np

from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.doubts import rank_words
from medgen.anomaly.findings.candidates import LOWEST_PEAK
from medgen.anomaly.findings.listing import Finding, number
from medgen.anomaly.pseudo_healthy import as_seen
from medgen.report.anomaly.pictures import Scored, marks_of, peak_of
from medgen.report.anomaly.words import scan_words
from medgen.report.figures.mosaic import LIMITS, grey_scale, mosaic
from medgen.report.html import png
from medgen.report.viewer.layers import Layer, steps_of
from medgen.report.viewer.page import Place, Threshold, Viewer
from medgen.volume import Volume

# Heats at which the slider knows the number of false findings.
_STEP = 0.05


def scored_viewer(entry: Scored, detector: AnomalyDetector, back: str = "", known: Place | None = None) -> Viewer:
    """The viewer of a scan that a detector has scored.

    Args:
        entry: The scan and its result.
        detector: What scored it.
        back: Relative path of the report or page that leads to it.
        known: A place that is known to be unusual, listed first.
    """
    result, doubts = entry.result, entry.result.doubts
    if doubts:
        verdict = f"{doubts.why}: no p-values and no findings. It is {rank_words(result.ranks, result.scan_score)}."
        verdict = verdict[0].upper() + verdict[1:]
    else:
        verdict = scan_words(result, detector.config, detector.calibration)[0].replace("**", "")
    found = result.findings or result.unlisted
    hottest = max(float(np.nanmax(result.heatmap.data)), detector.findings_threshold)
    point = peak_of(result)
    places = [_place(finding, listed=not doubts) for finding in found]
    if not found:
        x, y, z = (float(value) for value in point)
        places = [Place("Hottest place", f"z = {result.scores['max']:.2f}; not a finding", (x, y, z))]
    if known is not None:
        places = [known, *places]
    picture = mosaic(entry.scan, heatmap=result.heatmap, contour=marks_of(result) if found else None, slices=point)
    notes = ["A voxel without a score is outside of what could be judged; it is not proven healthy."]
    if (steps := steps_of(entry.scan.grid)) != (1, 1, 1):
        left = " x ".join(map(str, steps))
        notes.append(f"One voxel here stands for {left} of the scan, its heat for the hottest of them.")
    return Viewer(
        title=entry.name,
        verdict=verdict,
        scans=_scans(entry, detector),
        overlays=[Layer("heat", result.heatmap, "heat", LIMITS)],
        places=places,
        picture=png(picture),
        threshold=Threshold(
            start=detector.findings_threshold,
            lowest=LOWEST_PEAK,
            highest=hottest,
            steps=() if doubts else _steps(detector, hottest),
        ),
        notes=notes,
        back=back,
    )


def _scans(entry: Scored, detector: AnomalyDetector) -> list[Layer]:
    count = len(entry.scan.data)
    names = list(entry.result.contrasts) if count > 1 else ["scan"]
    layers = []
    for channel, name in enumerate(names):
        own = Volume(entry.scan.data[channel : channel + 1], entry.scan.grid)
        layers.append(Layer(name, own, "scan", grey_scale(entry.scan, channel)))
    if entry.pseudo is None:
        return layers
    seen = as_seen(entry.result.prepared, detector.preprocess)
    span = entry.result.prepared.scale[0][1] / 2
    first = Volume(entry.pseudo.data[:1], entry.pseudo.grid)
    difference = first.with_data(seen.data[:1] - first.data)
    what = "" if count == 1 else f" {names[0]}"
    return [
        *layers,
        Layer(f"pseudo-healthy{what}", first, "scan", layers[0].window),
        Layer(f"difference{what}", difference, "difference", (-span, span)),
    ]


def _place(finding: Finding, *, listed: bool) -> Place:
    x, y, z = (float(value) for value in finding.peak_ras)
    text = f"{finding.region}; {finding.unusual}; z = {finding.peak:.2f}"
    if not listed:
        return Place(f"Hot place {finding.id}", text, (x, y, z))
    text += f"; {number(finding.expected_false)} false findings as strong expected in a healthy scan"
    return Place(f"Finding {finding.id}{', family-wise' if finding.family_wise else ''}", text, (x, y, z))


def _steps(detector: AnomalyDetector, highest: float) -> list[tuple[float, float]]:
    """(z, expected false findings of a strongest candidate of that heat), by falling z."""
    healthy = detector.calibration.healthy
    heats = np.arange(LOWEST_PEAK, max(highest, float(detector.calibration.threshold)) + _STEP, _STEP)[::-1]
    expected = (healthy.sum_of_means(heats) + 1) / (healthy.n + 1)
    return [(round(float(heat), 2), round(float(value), 4)) for heat, value in zip(heats, expected, strict=True)]
