"""Answers about scans that are named by their paths; knows nothing of servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgen import io
from medgen.api.detection import Detector, load
from medgen.data.layouts.by_file_name import safe_id
from medgen.errors import ConfigError, MedgenError, OutOfDistribution
from medgen.system.files import sha256_file

# Enough of a file's digest that scans of the same name do not share a heatmap.
_DIGEST = 12


@dataclass(frozen=True, eq=False)
class ScanService:
    """A detector that scores files below one folder and writes heatmaps into another.

    Attributes:
        detector: The detector.
        scans: Where scans lie; a path that leads out of it is refused.
        heatmaps: Where heatmaps are written.
    """

    detector: Detector
    scans: Path
    heatmaps: Path

    @classmethod
    def of(cls, model: str | Path, scans: str | Path, heatmaps: str | Path) -> ScanService:
        """Load the detector of an artifact folder; nothing in it is run.

        Raises:
            ArtifactError: If the artifact is damaged or of another kind.
        """
        return cls(load(model), Path(scans).resolve(), Path(heatmaps).resolve())

    def answer(self, scan: str) -> dict[str, Any]:
        """What the detector says of one scan; a scan that cannot be scored has a reason instead.

        Args:
            scan: Path of an image file, relative to :attr:`scans` or absolute.

        Returns:
            ``scan`` as it was named, ``score`` (of the whole scan), ``p`` (None where nothing is claimed), ``findings``
            (how many), ``heatmap`` (path), ``doubt`` (why nothing is claimed), ``error`` (why there is no score).
        """
        said: dict[str, Any] = dict.fromkeys(("score", "p", "findings", "heatmap"))
        try:
            path = self._inside(scan)
            found = self.detector.score(path)
            heatmap = self.heatmaps / f"{safe_id(io.stem(path))}-{sha256_file(path)[:_DIGEST]}_heat.nii.gz"
            io.write(found.result.heatmap, heatmap, description="medgen heat (z), research only")
        except OutOfDistribution as error:
            return {"scan": scan, **said, "doubt": "", "error": f"abstained: {error}"}
        except MedgenError as error:
            return {"scan": scan, **said, "doubt": "", "error": str(error)}
        said = {
            "score": float(found.result.scores[found.result.scan_score]),
            "p": found.p,
            "findings": len(found.findings),
            "heatmap": heatmap.as_posix(),
        }
        return {"scan": scan, **said, "doubt": found.result.doubts.why, "error": ""}

    def _inside(self, scan: str) -> Path:
        """The file meant.

        Raises:
            ConfigError: If it is no file below the folder that may be read.
        """
        path = (self.scans / scan).resolve()
        if not path.is_relative_to(self.scans) or not path.is_file():
            raise ConfigError(f"{scan}: expected a file below the folder of scans that this model was packaged with")
        return path
