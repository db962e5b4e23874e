"""The concepts that objects name: public codes where the standard has them, medgen's own where it has none."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

OWN = "99MEDGEN"


def _own(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value=value, scheme_designator=OWN, meaning=meaning)


# A finding is a place that healthy scans do not have; no kind of lesion is claimed.
UNUSUAL = _own("UNUSUAL", "Unusual against healthy scans")
SCORED = _own("SCORED", "Region scored by the model")
HEAT = _own("HEAT", "Standard deviations from healthy scans (z)")
EXPECTED_FALSE = _own("EXPECTED_FALSE", "Expected false findings per healthy scan")
FAMILY_WISE_P = _own("P_MAX", "Family-wise p-value of the peak")
THRESHOLD = _own("THRESHOLD", "Threshold of findings (z)")
FINDINGS = _own("FINDINGS", "Number of findings")
USE = _own("USE", "Permitted use")
RESEARCH = _own("RESEARCH", "Research use only, not for clinical use")
CLAIM = _own("CLAIM", "What is claimed")
NOTHING = _own("NOTHING", "Nothing: these are hot places of a doubtful scan")

VOLUME: Code = codes.SCT.Volume
MILLILITRE = Code("mL", "UCUM", "milliliter")
NUMBER: Code = codes.UCUM.NoUnits
PROCEDURE: Code = codes.SCT.ImagingProcedure
ABNORMAL: Code = codes.SCT.MorphologicallyAbnormalStructure
SPATIAL: Code = codes.SCT.SpatialAndRelationalConcept
LEARNT: Code = codes.cid7162.ArtificialIntelligence

_REGIONS: dict[str, Code] = {
    "ABDOMEN": codes.SCT.Abdomen,
    "BRAIN": codes.SCT.Brain,
    "CHEST": codes.SCT.Chest,
    "HEAD": codes.SCT.Head,
    "NECK": codes.SCT.Neck,
    "PELVIS": codes.SCT.Pelvis,
    "SPINE": codes.SCT.Spine,
}


def region_of(body_part: str) -> Code:
    """The anatomic region of a BodyPartExamined; "body structure" for what is not in this small table."""
    return _REGIONS.get(body_part.strip().upper(), codes.SCT.BodyStructure)


def unpaired(body_part: str) -> bool:
    """Whether it is known of a BodyPartExamined that it has no left and right one."""
    return body_part.strip().upper() in _REGIONS


def own_scheme() -> CodingSchemeIdentificationItem:
    """What the designator of medgen's own codes stands for."""
    return CodingSchemeIdentificationItem(designator=OWN, name="medgen")
