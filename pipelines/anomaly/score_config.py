"""What a scoring of new scans is told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medgen.config import Config
from medgen.data.layouts.cohort_config import Fill, Slices


class ScoreConfig(Config):
    """One scoring of new scans, as it is kept in ``config.yaml``.

    Attributes:
        scans: NIfTI, NRRD or MetaImage files, DICOM folders; or ``NAME=FILE`` for each channel, parted by commas.
        model: Artifact folder of an anomaly run, for the channels that the scans have.
        model_sha256: Its digest.
        out: Folder of the results.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        ungated: Whether scans that the gate refuses are scored.
        covariates: What is known of the people, see :func:`medgen.pipelines.anomaly.people.people_of`.
        unadjusted: Whether scans are scored of whose people a covariate of the model is not known.
        false_findings: Expected false findings per healthy scan up to which findings are listed; None: as calibrated.
        fill: Value for voxels that are NaN or infinite; None refuses such scans.
        unscaled: Whether values are as stored where the scale of a NIfTI header is 0 or NaN; else it is refused.
        slices: How many slices every DICOM series should have.
        viewers: Which scans get a page to look through them: ``all``, those with ``findings`` or a doubt, ``none``;
            ``auto`` is all of up to 20 scans, else those with findings.
        dicom: Objects to write of scans from DICOM: ``seg``, ``pmap``, ``sc`` and ``sr``, which brings ``seg``.
        export: For which other programs results are written: ``bids``, ``slicer``, ``itksnap``.
    """

    scans: tuple[Path, ...]
    model: Path
    model_sha256: str
    out: Path
    device: str = "auto"
    ungated: bool = False
    covariates: str | None = None
    unadjusted: bool = False
    false_findings: float | None = Field(default=None, gt=0, le=20)
    fill: Fill | None = None
    unscaled: bool = False
    slices: Slices | None = None
    viewers: Literal["auto", "all", "findings", "none"] = "auto"
    dicom: tuple[Literal["seg", "pmap", "sc", "sr"], ...] = ()
    export: tuple[Literal["bids", "slicer", "itksnap"], ...] = ()
