"""What the filter's checks are called: one phrase each, in every list, table and message."""

from __future__ import annotations

from collections.abc import Mapping

# Checks of a single label bear its number after an underscore, such as volume_2.
_WORDS = {
    "usable": "an image and labels that can be judged",
    "agreement": "label agreement (Dice)",
    "volume": "volume of {label} in voxels",
    "component": "share of the largest part of {label}",
    "centroid": "centroid of {label}, voxels from the real mean",
    "intensity": "brightness of {label}, sd from the real mean",
    "bias": "volume of {label} over what auditors see, beside human labels",
    "adjacency": "pairs of labels that touch in no real scan, or never part in one",
    "looks": "feature distance to the nearest real scan",
    "visible": "change where labels were drawn, in sd",
    "copy": "memorised (r with another person's scan)",
    "identity": "memorised (r with the parent's own scans)",
    "memorised": "memorised (found by the audit)",
}


def check_name(check: str, labels: Mapping[int, str] | None = None) -> str:
    """The phrase for a check.

    Args:
        check: A key of :attr:`~medgen.synthesis.filtering.filter.FilterResult.reasons`.
        labels: Names of labels by number; without them a label is called by its number.

    >>> check_name("volume_2", {2: "posterior"}), check_name("agreement")
    ('volume of posterior in voxels', 'label agreement (Dice)')
    """
    kind, _, number = check.partition("_")
    label = "" if not number else f"label {number}" if labels is None else labels[int(number)]
    return _WORDS[kind].format(label=label)
