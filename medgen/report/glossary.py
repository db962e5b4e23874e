"""Words of reports that need a sentence: shown where they head a column or a fact, and listed at the end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

GLOSSARY: Mapping[str, str] = {
    "AP": "Average precision, the area under precision against recall. Chance is the prevalence, 1 is perfect.",
    "arm": "One way of training the segmenter; arms differ in augmentation and in synthetic scans.",
    "AUROC": "How often an anomalous voxel or scan ranks above a healthy one: 0.5 is guessing, 1 is perfect.",
    "calibration": "Scores of healthy scans by models that did not see them, which new scans are compared with.",
    "conformal": "A p-value that counts healthy scans at least as unusual; it holds for scans drawn like these.",
    "contrast": "Of an implant its strength in standard deviations of the tissue; of a scan an image such as T1.",
    "Dice": "Overlap of two masks: twice the shared volume over the sum of both, 0 to 1.",
    "expected false": "How many findings as strong as this a healthy scan has on average.",
    "family-wise": "The stricter level: so many per cent of healthy scans have a voxel above it anywhere.",
    "fold": "A part of the development subjects that is left out of training and scored by the rest.",
    "FPR": "False-positive rate: the share of healthy scans that are flagged.",
    "HD95": "95th percentile of the distances between two surfaces, in mm: 0 is perfect.",
    "heat": "The value of the heatmap: how unusual a place is, in standard deviations of healthy scans there (z).",
    "Holm": "A correction of p-values for the number of comparisons made.",
    "implant": "A change with known place and shape that was put into a healthy scan for testing.",
    "interval": "95 % interval from drawing the subjects again, if nothing else is said.",
    "likeness": "How alike two scans are, block by block, allowing small shifts and mirroring: 1 is a copy.",
    "max": "Score of a whole scan: its hottest voxel.",
    "NSD": "Share of two surfaces that lie within a tolerance of each other: 1 is perfect.",
    "p": "The share of healthy scans with at least that score, this one included; small is unusual.",
    "prevalence": "Share of voxels or scans that are anomalous: the average precision of guessing.",
    "pseudo-healthy": "The scan as a model that knows healthy scans only rebuilds it.",
    "top": "Score of a whole scan: the mean of its hottest voxels.",
    "z": "How far a value is from healthy ones at the same place, in their standard deviations.",
}

_WORDS = re.compile("|".join(rf"\b{re.escape(term)}\b" for term in sorted(GLOSSARY, key=len, reverse=True)))


def explained(heading: str) -> str:
    """What the terms of a heading mean, in sentences; empty if it has none.

    >>> explained("max"), explained("scan")
    ('Score of a whole scan: its hottest voxel.', '')
    """
    found = terms_in([heading])
    return " ".join(f"{term}: {GLOSSARY[term]}" if len(found) > 1 else GLOSSARY[term] for term in found)


def terms_in(texts: Iterable[str]) -> list[str]:
    """The terms that are used in texts, in the order of the alphabet."""
    return sorted({found for text in texts for found in _WORDS.findall(text)}, key=str.lower)
