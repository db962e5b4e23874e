"""MR, CT or PET: what follows from it for the scale of intensities.

MR has no unit, so every scan is scaled by percentiles of its own. The Hounsfield units of CT are a unit: the same
window for every scan keeps a bleed as bright as it is. PET (SUV) has a zero that means something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from medgen.data.cases import Case
from medgen.faults import fail
from medgen.io.dicom.demographics import demographics
from medgen.io.hounsfield import is_hounsfield
from medgen.transforms.foreground import foreground_mask
from medgen.volume import Volume

Modality = Literal["MR", "CT", "PET", "auto"]
# Values that become 0 and 1, in HU: the windows that radiologists look at scans in.
WINDOWS: dict[str, tuple[float, float]] = {
    "brain": (0.0, 80.0),
    "soft tissue": (-160.0, 240.0),
    "lung": (-1000.0, 400.0),
    "bone": (-500.0, 1300.0),
}
# What a recipe says of percentiles where nobody has chosen any.
PERCENTILES = (1.0, 99.0)
# DICOM's Modality (C.7.3.1.1.1) in the words of recipes.
_DICOM: dict[str, Modality] = {"MR": "MR", "CT": "CT", "PT": "PET"}
# Upper end of a cohort's PET window, a percentile inside the body: single hot voxels do not set it.
_HOT = 99.5


def window_of(value: Any) -> Any:
    """A window's name as its two values; anything else as it is.

    >>> window_of("soft_tissue"), window_of([0, 40])
    ((-160.0, 240.0), [0, 40])

    Raises:
        ValueError: If there is no window of this name.
    """
    if not isinstance(value, str):
        return value
    name = value.strip().lower().replace("_", " ").replace("-", " ")
    if name not in WINDOWS:
        raise ValueError(f"expected two numbers or one of {', '.join(WINDOWS)}, found {value!r}")
    return WINDOWS[name]


def window_words(window: tuple[float, float], unit: str = "HU") -> str:
    """A window for people.

    >>> window_words((0, 80))
    '0 to 80 HU (brain)'
    """
    name = next((name for name, own in WINDOWS.items() if own == tuple(window)), "")
    return f"{window[0]:g} to {window[1]:g} {unit}".rstrip() + (f" ({name})" if name and unit == "HU" else "")


def check_scaling(modality: Modality, window: tuple[float, float] | None, percentiles: tuple[float, float]) -> None:
    """Refuse a scale by each scan's own percentiles where units are absolute.

    Raises:
        ValueError: Naming what to set instead.
    """
    if modality not in ("CT", "PET"):
        return
    names = (
        "one of " + ", ".join(WINDOWS) + ", or two values in HU" if modality == "CT" else "two values, such as [0, 10]"
    )
    if percentiles != PERCENTILES:
        raise ValueError(
            f"{modality} is never scaled by percentiles of a scan; leave percentiles out and set window: {names}"
        )
    if window is None:
        raise ValueError(f"{modality} is scaled by a window, the same for all scans; set window: {names}")


def check_named_window(window: Any, modality: Any) -> None:
    """Refuse a window by name, which is one in Hounsfield units, where scans have none.

    Raises:
        ValueError: Naming what to set instead.
    """
    if isinstance(window, str) and modality in ("MR", "PET"):
        raise ValueError(
            f"window: {window} is in Hounsfield units, which CT has, and the modality is {modality}; "
            + ("leave it out" if modality == "MR" else "set two values, such as [0, 10]")
        )


def check_one_modality(cases: Sequence[Case], scans: Sequence[Volume]) -> None:
    """Refuse a cohort of which some scans hold Hounsfield units in a channel where others do not.

    Raises:
        DataError: Saying how many look like what, and naming one of the fewer.
    """
    for number, channels in enumerate(zip(*(scan.data for scan in scans), strict=False)):
        tomograms = [is_hounsfield(channel) for channel in channels]
        if len(set(tomograms)) > 1:
            count = sum(tomograms)
            fewer = 2 * count <= len(tomograms)
            odd = cases[tomograms.index(fewer)].images
            raise fail(
                odd[min(number, len(odd) - 1)],
                f"{'Hounsfield units, as CT has' if fewer else 'no Hounsfield units, as MR or PET'}; of {len(scans)} "
                f"scans looked at {count} look like CT and {len(scans) - count} do not",
                "one modality in a cohort",
                "take them apart, or set preprocess.modality if all are of one",
            )


def modality_of(cases: Sequence[Case], scans: Sequence[Volume]) -> Modality:
    """What the scans of a cohort are: CT by Hounsfield units, else as DICOM headers state, else MR.

    Returns:
        ``auto`` where scans or channels disagree: no one scale holds for all of them.
    """
    tomograms = [is_hounsfield(channel) for scan in scans for channel in scan.data]
    if any(tomograms):
        return "CT" if all(tomograms) else "auto"
    stated = {_DICOM.get(_stated(case), "MR") for case in cases}
    return stated.pop() if len(stated) == 1 else "auto"


def _stated(case: Case) -> str:
    path = case.images[0]
    return demographics(path).get("modality", "") if path.is_dir() else ""


def tomogram_window(scans: Sequence[Volume]) -> tuple[float, float]:
    """The 1st to 99th percentile inside the body of a typical scan of the cohort, in whole HU; for crops and all."""
    ends = [np.percentile(scan.data[:, foreground_mask(scan.data)], (1, 99)) for scan in scans]
    low, high = np.median(ends, axis=0).round().tolist()
    return (low, high) if low < high else WINDOWS["soft tissue"]


def uptake_window(scans: Sequence[Volume]) -> tuple[float, float]:
    """From 0 to the uptake that the hottest 0.5 % inside the body of a typical scan exceed."""
    hot = float(np.median([np.percentile(scan.data[:, foreground_mask(scan.data)], _HOT) for scan in scans]))
    return 0.0, float(f"{max(hot, 1e-6):.3g}")
