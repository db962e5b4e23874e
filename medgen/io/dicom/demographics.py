"""What a DICOM header says of the scan and the person, as far as it names nobody: modality, sex, age."""

from __future__ import annotations

import re
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from medgen.io.dicom.files import list_files

_AGE = re.compile(r"(\d{3})([DWMY])")
_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}


def demographics(folder: Path) -> dict[str, str]:
    """``modality``, ``sex`` (F, M or O) and ``age`` in years of the first readable DICOM file of a folder.

    Returns:
        What is stated; ages above 89 are not.
    """
    for path in list_files(folder).files:
        try:
            header = pydicom.dcmread(
                path, stop_before_pixels=True, specific_tags=["Modality", "PatientSex", "PatientAge"]
            )
            stated = {
                "modality": str(header.get("Modality") or ""),
                "sex": str(header.get("PatientSex") or ""),
                "age": age_in_years(str(header.get("PatientAge") or "")),
            }
        except (InvalidDicomError, OSError, ValueError, AttributeError, TypeError):
            continue
        return {name: value for name, value in stated.items() if value}
    return {}


def age_in_years(text: str) -> str:
    """A DICOM age in whole years; empty where there is none, or it is above 89.

    >>> age_in_years("061Y"), age_in_years("018M"), age_in_years("095Y"), age_in_years("?")
    ('61', '1', '', '')
    """
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return ""
    years = int(int(match[1]) * _DAYS[match[2]] / _DAYS["Y"])
    return str(years) if years < 90 else ""
