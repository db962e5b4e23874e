"""A trained anomaly model in three lines.

>>> import medgen  # doctest: +SKIP
>>> scored = medgen.load("runs/brains").score("patient/t1.nii.gz")  # doctest: +SKIP
>>> scored.p, scored.findings, scored.heatmap  # doctest: +SKIP
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from numpy.typing import ArrayLike

from medgen import io
from medgen.anomaly.artifact import from_artifact
from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.findings.listing import Finding, number
from medgen.api.arguments import path_of, text_of
from medgen.api.given import volume_of
from medgen.errors import ConfigError
from medgen.io.nifti import to_nibabel
from medgen.models.artifact import MANIFEST, TrainedModel
from medgen.report.anomaly.pictures import Scored, marks_of, peak_of
from medgen.report.anomaly.scored.viewer import scored_viewer
from medgen.report.anomaly.words import doubt_words, scan_words
from medgen.report.figures.mosaic import comparison
from medgen.report.html import BANNER, png
from medgen.report.viewer import library
from medgen.system.files import write_bytes, write_json
from medgen.training.device_names import check_device_name
from medgen.training.trainer import device_of
from medgen.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from nibabel import Nifti1Image


@dataclass(frozen=True, eq=False)
class Detector:
    """A model of healthy scans, ready to score; made by :func:`load`.

    Attributes:
        detector: What does the work.
        contrasts: Names of the contrasts that a scan must have; empty for one.
    """

    detector: AnomalyDetector = field(repr=False)
    contrasts: tuple[str, ...] = ()

    def score(
        self,
        scan: Any,
        affine: ArrayLike | None = None,
        *,
        person: Mapping[str, object] | None = None,
        ungated: bool = False,
        name: str = "scan",
    ) -> ScoredScan:
        """Score one scan: heatmap on its own grid, findings, p-values.

        Args:
            scan: The path of an image file or DICOM folder, a nibabel image, an array, or a dictionary with one of
                these for each contrast.
            affine: Of an array: from voxel indices to RAS+ mm, (4, 4).
            person: What is known of the person where the model adjusts for it: ``{"age": 71, "sex": "F"}``.
            ungated: Score what the gate refuses too, without p-values and findings.
            name: What the scan is called in pictures and files.

        Raises:
            ConfigError: If the name is no file name, or something is told of the person that the model does not use.
            DataError: If the scan cannot be read or lacks a contrast.
            OutOfDistribution: If the model abstains: the scan is unlike its cohort.
        """
        check_name(name)
        volume = volume_of(scan, affine, self.contrasts)
        known = self._known(person)
        result = self.detector.score_scan(volume, known, ungated=ungated)
        return ScoredScan(name, volume, result, self.detector)

    def _known(self, person: Mapping[str, object] | None) -> dict[str, str]:
        if person is None:
            return {}
        if not isinstance(person, Mapping):
            raise ConfigError(f"person: found {type(person).__name__}, expected a dictionary such as {{'age': 71}}")
        used = [] if self.detector.covariates is None else [term.name for term in self.detector.covariates.terms]
        if unknown := [str(key) for key in person if key not in used]:
            raise ConfigError(
                f"person: found {', '.join(unknown)}; the model adjusts for {', '.join(used) or 'nothing'}; "
                "leave the rest out"
            )
        return {str(key): str(value) for key, value in person.items()}

    @property
    def words(self) -> str:
        """What it is, in a sentence."""
        calibration, level = self.detector.calibration, self.detector.config.findings.false_findings
        recipe = self.detector.preprocess
        sizes = " x ".join(f"{size:g}" for size in recipe.spacing)
        grid = f"{' x '.join(map(str, recipe.shape))} voxels of {sizes} mm"
        return (
            f"Anomaly detector of {len(self.detector.members)} folds on {grid}, calibrated on "
            f"{len(calibration.maxima)} healthy subjects; findings up to {number(level)} expected false ones a scan."
        )

    def __repr__(self) -> str:
        return f"<{self.words}>"

    def _repr_html_(self) -> str:
        return str(Markup("<p>{}</p><p><small>{}</small></p>").format(self.words, BANNER))


@dataclass(frozen=True, eq=False)
class ScoredScan:
    """What a model says of a scan.

    Attributes:
        name: What it is called.
        scan: The scan.
        result: Everything that was measured.
        detector: What scored it.
    """

    name: str
    scan: Volume = field(repr=False)
    result: ScanResult = field(repr=False)
    detector: AnomalyDetector = field(repr=False)

    @cached_property
    def heatmap(self) -> Nifti1Image:
        """Heat as z against healthy scans at each place, on the scan's own grid; NaN is not scored."""
        return to_nibabel(self.result.heatmap)

    @cached_property
    def pseudo_healthy(self) -> Nifti1Image | None:
        """The scan as models that know healthy scans only rebuild it, in its intensities; None if no model does."""
        return None if self._entry.pseudo is None else to_nibabel(self._entry.pseudo)

    @property
    def p(self) -> float | None:
        """The scan's conformal p by the model's scan score; None where nothing is claimed (artefact, ungated)."""
        return self.result.p_values.get(self.result.scan_score)

    @property
    def p_values(self) -> dict[str, float]:
        """The p of every scan score; empty where nothing is claimed."""
        return dict(self.result.p_values)

    @property
    def findings(self) -> list[Finding]:
        """The findings, strongest first, with place, looks, size, p and expected false findings."""
        return list(self.result.findings)

    @property
    def verdict(self) -> str:
        """What is to be said of the scan, in a few sentences."""
        return self._verdict.replace("**", "")

    def plot(self) -> Figure:
        """Scan, pseudo-healthy scan and heat beside one another, through the hottest voxel."""
        found = self.result.findings or self.result.unlisted
        return comparison(
            self.scan,
            heatmap=self.result.heatmap,
            expected=self._entry.pseudo,
            contour=marks_of(self.result) if found else None,
            point=peak_of(self.result),
            title=self.name,
        )

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``<name>_heat.nii.gz``, ``<name>.json``, ``<name>.png`` and, with NiiVue, ``<name>.html``.

        Args:
            folder: Where; made if it is not there, files of the same names are replaced.

        Returns:
            The folder.

        Raises:
            DataError: If a file cannot be written.
        """
        out = path_of("folder", folder)
        io.write(self.result.heatmap, out / f"{self.name}_heat.nii.gz", description="medgen heat (z), research only")
        doubt = self.result.doubts.why
        found = [finding.to_plain(doubt) for finding in [*self.result.findings, *self.result.unlisted]]
        write_json(
            out / f"{self.name}.json",
            {
                "name": self.name,
                "verdict": self.verdict,
                "scores": dict(self.result.scores),
                "p_values": self.p_values,
                "doubt": doubt,
                "findings": found,
                "use": BANNER,
            },
        )
        write_bytes(out / f"{self.name}.png", png(self.plot()))
        if not library.missing():
            scored_viewer(self._entry, self.detector).write(out / f"{self.name}.html")
        return out

    def __repr__(self) -> str:
        return f"<{self.name}: {self.verdict}>"

    def _repr_html_(self) -> str:
        picture = base64.b64encode(png(self.plot())).decode()
        parts = Markup("<p><b>{}</b>: {}</p>").format(self.name, self.verdict)
        if self.findings:
            rows = Markup("").join(
                Markup("<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.2f}</td><td>{}</td></tr>").format(
                    f.id, f.region, f.unusual, f.peak, number(f.expected_false)
                )
                for f in self.findings
            )
            head = Markup("<tr><th>finding</th><th>where</th><th>unusual</th><th>z</th><th>expected false</th></tr>")
            parts += Markup("<table>{}{}</table>").format(head, rows)
        return str(parts + Markup('<img src="data:image/png;base64,{}" alt="{}">').format(picture, self.name))

    @property
    def _verdict(self) -> str:
        if self.result.doubts:
            return doubt_words(self.result)
        return scan_words(self.result, self.detector.config, self.detector.calibration)[0]

    @cached_property
    def _entry(self) -> Scored:
        return Scored(self.name, self.scan, self.result, self.detector.pseudo_healthy(self.result.prepared))


def check_name(name: object) -> None:
    """Refuse what is no plain name of a file.

    Raises:
        ConfigError: If it is empty, hidden, a path, or has characters that do not print.
    """
    good = isinstance(name, str) and name == name.strip() and name.isprintable() and name[:1] not in ("", ".")
    if not good or any(sign in str(name) for sign in '/\\:*?"<>|'):
        raise ConfigError(f"name: found {name!r}, expected a plain file name such as 'patient-1'")


def load(model: str | PathLike[str], device: str = "auto") -> Detector:
    """The detector of a finished ``medgen anomaly run``.

    Args:
        model: Folder of the run, or its ``model`` folder.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.

    Raises:
        ConfigError: If an argument is of another kind than it should be, or there is no such device.
        ArtifactError: If there is no model, or it is damaged or of another kind.
    """
    folder = path_of("model", model)
    device = check_device_name(text_of("device", device, "cpu"))
    if not (folder / MANIFEST).is_file() and (folder / "model" / MANIFEST).is_file():
        folder = folder / "model"
    artifact = TrainedModel.load(folder, device_of(device))
    detector = from_artifact(artifact, folder)
    names: Sequence[str] = artifact.meta.get("channels") or ()
    return Detector(detector, tuple(names) if len(names) > 1 else ())
