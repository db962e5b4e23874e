"""What DICOM objects say of a scored scan, as plain data: heat, outlined places and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medgen.errors import GeometryError
from medgen.volume import Volume


@dataclass(frozen=True)
class Place:
    """A finding, or a hot place of a doubtful scan.

    Attributes:
        number: Its value in ``regions`` and the number of its segment, from 1.
        label: Such as ``"Finding 1"``, at most 64 characters.
        region: Where its peak lies, in words; "" where that is not known.
        peak: Heat (z) at the peak.
        volume_ml: Volume of its outlined part in ml.
        expected_false: Expected false findings per healthy scan at its strength; None where nothing is claimed.
        p: Family-wise p-value of its peak; None where nothing is claimed.
    """

    number: int
    label: str
    region: str
    peak: float
    volume_ml: float
    expected_false: float | None
    p: float | None


@dataclass(frozen=True, eq=False)
class ScoredScan:
    """A scan with what was found in it; all volumes on the grid of its series.

    Attributes:
        scan: The scan as it was read, (c, i, j, k); its first channel is shown.
        window: The values of the first channel that are shown black and white.
        heatmap: Heat (z), (1, i, j, k); NaN is "not scored".
        regions: The outlined part of place ``number``, 0 elsewhere, (1, i, j, k), integers.
        places: From 1 upwards without gaps.
        threshold: Heat (z) of findings.
        doubt: Why nothing is claimed of the scan, in a sentence; "" for most.
        model: SHA-256 of the model that scored it.
        family: Families of its generative models, such as ``"vae"``.
        version: Of medgen.

    Raises:
        GeometryError: If volumes are not on one grid, or places are not numbered 1, 2, ...
    """

    scan: Volume
    window: tuple[float, float]
    heatmap: Volume
    regions: Volume
    places: Sequence[Place]
    threshold: float
    doubt: str
    model: str
    family: str
    version: str

    def __post_init__(self) -> None:
        for name, volume in (("heatmap", self.heatmap), ("regions", self.regions)):
            if not volume.grid.same_as(self.scan.grid):
                raise GeometryError(f"expected the {name} on the grid of the scan, found another")
        numbers = [place.number for place in self.places]
        if numbers != list(range(1, len(numbers) + 1)):
            raise GeometryError(f"expected places numbered from 1, found {numbers}")
