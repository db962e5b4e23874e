"""What was done to scans before they were scored: the recipe in a few facts, and one scan before and after."""

from __future__ import annotations

import numpy as np

from medgen.preprocessing.modality import window_words
from medgen.preprocessing.recipe import Preprocess
from medgen.report.anomaly.pictures import Scored
from medgen.report.figures.before_after import before_after
from medgen.report.html import Report

_BRAIN = {
    "keep": "left as they are",
    "auto": "extracted from whole heads, stripped scans are left as they are",
    "extract": "extracted from every scan that is not stripped yet",
}


def recipe_facts(recipe: Preprocess) -> dict[str, str]:
    """The recipe's modality and steps, in words, by what they are about.

    >>> recipe_facts(Preprocess(shape=(8, 8, 8), spacing=(2, 2, 2), modality="CT", window="brain"))["intensities"]
    'window 0 to 80 HU (brain), the same for all scans'
    """
    low, high = recipe.percentiles
    if recipe.window is not None:
        unit = "HU" if recipe.modality == "CT" else ""
        scale = f"window {window_words(recipe.window, unit)}, the same for all scans"
    else:
        scale = f"percentiles {low:g} to {high:g} of each scan"
    facts = {"modality": "not decided" if recipe.modality == "auto" else recipe.modality, "intensities": scale}
    if recipe.brain != "keep":
        facts["brains"] = _BRAIN[recipe.brain]
    if recipe.intensity == "nyul":
        facts["intensities"] = f"the training scans' scale by landmarks (Nyúl), then {scale}"
    if recipe.bias_field != "none":
        facts["bias field"] = "divided out (N4)"
    return facts


def preparation_blocks(report: Report, entry: Scored) -> None:
    """What was done to a scan, and pictures of it before and after where that changed it; nothing if nothing was."""
    prepared = entry.result.prepared
    if prepared.steps:
        report.text(" ".join(prepared.steps))
    after = prepared.cleaned
    if after is None:
        return
    outline = after.with_data((after.data[:1] != 0).astype(np.uint8))
    report.figure(
        before_after(entry.scan, after, outline, entry.name),
        "The scan as it was read and as it was scored, in its own space. Radiological convention: the patient's right "
        "is on the left.",
        f"{entry.name}: before and after its preparation",
    )
