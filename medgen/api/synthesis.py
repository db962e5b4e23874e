"""New labelled scans from a finished augment run, as images in memory."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from medgen import io
from medgen.api.arguments import path_of, text_of, texts_of, whole_number
from medgen.io.nifti import to_nibabel
from medgen.report.figures.mosaic import mosaic
from medgen.report.html import BANNER, png
from medgen.synthesis.export.cohort import exportable
from medgen.synthesis.export.further import Generators
from medgen.training.device_names import check_device_name
from medgen.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from nibabel import Nifti1Image


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """One synthetic scan with its labels, on the generators' grid around the origin.

    Attributes:
        name: Its id, which begins with ``syn-``.
        backend: What made it.
        parents: Ids of the training cases it was derived from directly.
        scan: Model intensities, (c, i, j, k), about 0 to 1 inside the foreground.
        mask: Label numbers, (1, i, j, k).
        stamp: What the memorisation audit says of sharing it.
    """

    name: str
    backend: str
    parents: tuple[str, ...]
    scan: Volume = field(repr=False)
    mask: Volume = field(repr=False)
    stamp: str = ""

    @property
    def image(self) -> Nifti1Image:
        """The scan, float32."""
        return to_nibabel(self.scan)

    @property
    def labels(self) -> Nifti1Image:
        """The labels, uint8, 0 for background."""
        return to_nibabel(self.mask)

    def plot(self) -> Figure:
        """Slices with the labels' outlines."""
        return mosaic(self.scan, labels=self.mask, title=f"{self.name} (synthetic)")

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``<name>.nii.gz`` and ``<name>_labels.nii.gz`` into a folder and return it.

        For cohorts with provenance and card, use ``medgen augment sample``.
        """
        out = path_of("folder", folder)
        io.write(self.scan, out / f"{self.name}.nii.gz", description=f"SYNTHETIC medgen {self.backend}, research only")
        io.write(self.mask, out / f"{self.name}_labels.nii.gz", description="SYNTHETIC medgen labels, research only")
        return out

    def _repr_html_(self) -> str:
        picture = base64.b64encode(png(self.plot())).decode()
        words = Markup("<p><b>{}</b> by {}: {}. {}</p>").format(self.name, self.backend, self.stamp, BANNER)
        return str(words + Markup('<img src="data:image/png;base64,{}" alt="{}">').format(picture, self.name))


def synthesize(
    run: str | PathLike[str],
    n: int,
    *,
    seed: int = 0,
    backend: str | None = None,
    device: str = "auto",
    harmful: bool = False,
    options: Sequence[str] = (),
) -> list[SyntheticScan]:
    """At most ``n`` new labelled scans that passed the filter of the run and its memorisation audit.

    Args:
        run: Folder of a finished ``medgen augment run``, or its ``model`` folder.
        n: Scans wanted; fewer come where the filter or the audit lets fewer pass.
        seed: Another seed gives other scans.
        backend: Name of one of its generators; default: all, evenly.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        harmful: Whether scans of a run whose verdict is HARMFUL are wanted all the same.
        options: Options of sampling, ``backend.option=value``.

    Raises:
        ConfigError: If an argument is of another kind than it should be.
        ArtifactError: If it is no finished augment run.
        AuditError: If no scan may leave the run.
        DataError: If no sample passed the filter, or the verdict is HARMFUL.
    """
    folder, n, seed = path_of("run", run), whole_number("n", n, 1), whole_number("seed", seed, 0)
    device = check_device_name(text_of("device", device, "cpu"))
    backend = None if backend is None else text_of("backend", backend, "deform")
    options = texts_of("options", options, "flow.solver_steps=16")
    model = folder / "model" if (folder / "model").is_dir() else folder
    generators = Generators.of_run(
        model / backend if backend else model, device=device, harmful=harmful, options=options
    )
    pool, audit = generators.sample(n, seed)
    by_name = {item.name: item for item in generators.backends}
    grid = generators.state.preprocess.canonical()
    return [
        SyntheticScan(
            name=candidate.id,
            backend=candidate.backend,
            parents=candidate.synthetic.parents,
            scan=Volume(candidate.synthetic.image, grid),
            mask=Volume(candidate.synthetic.labels[None], grid),
            stamp=audit.stamp(candidate.backend),
        )
        for candidate in exportable(pool, audit, by_name, folder)
        if candidate.synthetic is not None
    ]
