"""What is done to a scan on its own grid before it is brought to the model's: padding, skull and shading.

The grid stays as it is, so a map of the model comes back to the scan's own voxels with or without these steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medgen.data.faces import may_show_face
from medgen.errors import DataError
from medgen.io.hounsfield import is_hounsfield, measured
from medgen.preprocessing.bias_field import n4
from medgen.preprocessing.brain_extraction import extract_brain, is_stripped, surroundings_words
from medgen.preprocessing.coregistration import coregister as coregistered
from medgen.preprocessing.intensity_landmarks import standardised
from medgen.volume import Volume

# What a recipe is for scans that these steps have been done to.
DONE = {"brain": "keep", "bias_field": "none", "coregister": False, "intensity": "percentiles", "landmarks": None}


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A scan after the steps.

    Attributes:
        scan: (c, i, j, k), on the grid it had.
        steps: What was done, a sentence for each step.
        changed: The scan again where a step changed what is anatomy or how bright it is, else None.
    """

    scan: Volume
    steps: tuple[str, ...]
    changed: Volume | None


def clean(
    scan: Volume,
    modality: str,
    brain: str,
    bias_field: str,
    coregister: bool = False,
    landmarks: Sequence[float] | None = None,
) -> Cleaned:
    """Do what a recipe says on the scan's own grid.

    Args:
        scan: As it was read, (c, i, j, k).
        modality: As in :class:`medgen.preprocessing.recipe.Preprocess`; so are the others.
        brain: Whether brains are extracted.
        bias_field: Whether shading is divided out.
        coregister: Whether further channels are brought onto the first.
        landmarks: Of the training scans' intensities; None leaves intensities as they are.

    Raises:
        DataError: If a brain was to be extracted and none was found that can be believed, channels do not lie on each
            other, or the scan is a CT and the recipe one for MR.
    """
    if modality == "MR" and all(is_hounsfield(channel) for channel in scan.data):
        raise DataError("the scan holds Hounsfield units (CT), and the recipe is one for MR; use a model of CT scans")
    scan = measured(scan)
    steps: list[str] = []
    mask: Volume | None = None
    moved = False
    if coregister:
        scan, movements = coregistered(scan)
        steps += [
            f"Channel {number} lay {movement.millimetres:.1f} mm and {movement.degrees:.1f} degrees beside the first "
            f"({'brought onto it' if movement.corrected else 'left as it was'})."
            for number, movement in enumerate(movements, start=2)
        ]
        moved = any(movement.corrected for movement in movements)
    if brain == "extract" or (brain == "auto" and may_show_face(scan)):
        if is_stripped(scan):
            steps.append(f"The scan was left as it was: {surroundings_words(scan)}.")
        else:
            found = extract_brain(scan)
            mask = found.mask
            steps.append(
                f"The brain was extracted from the whole head: {found.volume_ml:.0f} ml, correlation with the MNI "
                f"brain {found.similarity:.2f}, symmetry {found.symmetry:.2f}; the rest was set to 0."
            )
            scan = scan.with_data(np.where(mask.data, scan.data, scan.data.dtype.type(0)))
    if bias_field == "n4":
        scan, low, high = n4(scan)
        steps.append(f"N4: the bias field was divided out, {low:.2f} to {high:.2f} times the mean brightness.")
    if landmarks is not None:
        scan = standardised(scan, landmarks)
        steps.append("Intensities were brought to the training scans' scale by landmarks of their histogram (Nyúl).")
    changed = moved or mask is not None or bias_field == "n4" or landmarks is not None
    return Cleaned(scan, tuple(steps), scan if changed else None)


def is_to_be_stripped(scan: Volume, brain: str) -> bool:
    """Whether :func:`clean` would look for a brain in a scan, (c, i, j, k)."""
    return (brain == "extract" or (brain == "auto" and may_show_face(scan))) and not is_stripped(scan)


def check_steps(modality: str, brain: str, bias_field: str, intensity: str) -> None:
    """Refuse steps that are made for MR where the scans are not.

    Raises:
        ValueError: Naming the key.
    """
    if modality in ("CT", "PET"):
        defaults = (
            ("brain", brain, "keep"),
            ("bias_field", bias_field, "none"),
            ("intensity", intensity, "percentiles"),
        )
        for key, value, none in defaults:
            if value != none:
                raise ValueError(f"{key}: {value} is for MR, and the modality is {modality}; set {key}={none}")
