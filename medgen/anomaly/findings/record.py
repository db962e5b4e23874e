"""The form of ``findings.json``: what other programs may rely on, as a JSON Schema that the package ships.

A reader checks ``format`` and ``version`` first: whatever changes in the keys makes a new version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import medgen

SCHEMA = "findings.schema.json"
_FORMAT, _VERSION = "medgen-findings", 1


class FindingRecord(BaseModel):
    """A finding, or a hot place of a doubtful scan, of which nothing is claimed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    id: int = Field(ge=1, description="1 for the one with the highest peak, and so on.")
    above_threshold_ml: float = Field(ge=0, description="Volume of its outlined part in ml; no lesion's volume.")
    half_peak_extent_ml: float = Field(ge=0, description="Volume around the peak at half its height, in ml.")
    peak: float = Field(description="Heat at the peak, in standard deviations of healthy scans (z).")
    mean: float = Field(description="Mean heat (z) of the outlined part.")
    p_max: float | None = Field(gt=0, le=1, description="Family-wise p-value of the peak; null with a doubt.")
    expected_false: float | None = Field(
        ge=0, description="Expected false findings per healthy scan; null with a doubt."
    )
    family_wise: bool | None = Field(
        description="Whether p_max is at or below the family-wise target; null with a doubt."
    )
    peak_voxel: tuple[int, int, int] = Field(description="(i, j, k) of the peak in the scan's file, from 0.")
    peak_ras: tuple[float, float, float] = Field(
        description="The peak in mm to the right, front and top of the scan's origin."
    )
    peak_template: tuple[float, float, float] | None = Field(
        description="The peak in mm from the middle of the cohort's template; null where the scan was not registered."
    )
    channel: str = Field(description="The score that is surprised most at the peak.")
    channels: str = Field(description="All scores that are surprised there, with -log10 p, strongest first.")
    region: str = Field(description="Where the peak lies, in words.")
    brightness: list[float | None] = Field(description="Brightness in healthy standard deviations, one per contrast.")
    detail: list[float | None] = Field(description="Detail in healthy standard deviations, one per contrast.")
    contrasts: list[str] = Field(description="What the contrasts are called.")
    unusual: str = Field(description="What is unusual about it, in words.")
    doubt: str = Field(description='Why nothing is claimed of the scan; "" for most.')


class FindingsFile(BaseModel):
    """Findings of all scans of a run. Research use only, not for clinical use."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["medgen-findings"]
    version: Literal[1] = Field(description="Of this form.")
    medgen: str = Field(description="The version of medgen that wrote the file.")
    use: Literal["research use only, not for clinical use"]
    scans: dict[str, list[FindingRecord]] = Field(description="Name of a scan: its findings, strongest first.")


def findings_content(scans: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What ``findings.json`` holds.

    Args:
        scans: Name of each scan → its findings by :meth:`medgen.anomaly.findings.listing.Finding.to_plain`.

    >>> findings_content({"a": []})["scans"]
    {'a': []}
    """
    use = "research use only, not for clinical use"
    said = {"format": _FORMAT, "version": _VERSION, "medgen": medgen.__version__, "use": use}
    return {**said, "scans": {name: [dict(found) for found in own] for name, own in scans.items()}}


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of the file, as made from the code."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:medgen:findings:{_VERSION}"}
    return json.dumps({**head, **FindingsFile.model_json_schema()}, indent=2) + "\n"


def shipped_schema() -> dict[str, Any]:
    """The JSON Schema of ``findings.json`` that the package holds, for readers in other programs.

    >>> shipped_schema()["$id"]
    'urn:medgen:findings:1'
    """
    found: dict[str, Any] = json.loads((files("medgen.anomaly.findings") / SCHEMA).read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    Path(__file__).with_name(SCHEMA).write_text(schema_text(), encoding="utf-8")
