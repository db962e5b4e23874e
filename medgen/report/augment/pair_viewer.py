"""The viewer of a synthetic scan: it flips between the scan and the real one that it resembles most."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medgen.report.figures.mosaic import grey_scale, sample_pairs
from medgen.report.figures.planes import middle_point
from medgen.report.html import png
from medgen.report.viewer.layers import Layer
from medgen.report.viewer.page import Place, Viewer
from medgen.volume import Volume


def pair_viewer(
    name: str,
    verdict: str,
    scans: Mapping[str, tuple[Volume, Volume | None]],
    label_names: Mapping[int, str],
    back: str = "",
) -> Viewer:
    """The viewer of a synthetic scan beside a real one, in one world; the key f flips between them.

    Args:
        name: Id of the synthetic scan.
        verdict: What the filter and the copy check say of it.
        scans: Names on the page → scan and its labels where known, both (1 or more, i, j, k); the synthetic one first.
        label_names: Label → name.
        back: Relative path of the report.
    """
    (first, (image, labels)), *others = scans.items()
    layers = [Layer(title, _first(scan), "scan", grey_scale(scan, 0)) for title, (scan, _) in scans.items()]
    last = float(max(label_names, default=1))
    marks = [
        Layer(
            "labels",
            scan.with_data(np.zeros_like(scan.data[:1])) if own is None else own,
            "labels",
            (0.0, last),
            label_names,
        )
        for scan, own in scans.values()
    ]
    pictures = [((image, scan), (labels, own), (first, title)) for title, (scan, own) in others]
    return Viewer(
        title=name,
        verdict=verdict,
        scans=layers,
        overlays=marks,
        places=_places(labels, label_names) or [_middle(image)],
        picture=png(
            sample_pairs(
                [pair for pair, _, _ in pictures],
                labels=[both for _, both, _ in pictures],
                names=[both for _, _, both in pictures],
                label_names=label_names,
            )
        ),
        notes=[f"{title} has no labels." for title, (_, own) in scans.items() if own is None]
        + ["SYNTHETIC: the first of these scans was made by a generator. The key f flips between them in place."],
        back=back,
    )


def _first(scan: Volume) -> Volume:
    return Volume(scan.data[:1], scan.grid)


def _places(labels: Volume | None, names: Mapping[int, str]) -> list[Place]:
    """Each label with its volume, at the voxel of it that is nearest to its centre of mass."""
    found: list[Place] = []
    for label, name in names.items():
        if labels is None or not (inside := labels.data[0] == label).any():
            continue
        x, y, z = middle_point(inside, labels.grid).tolist()
        millilitres = int(inside.sum()) * labels.grid.voxel_volume / 1000
        found.append(Place(name, f"{millilitres:.1f} ml in the synthetic scan", (x, y, z)))
    return found


def _middle(scan: Volume) -> Place:
    x, y, z = (float(value) for value in scan.grid.center)
    return Place("Middle", "", (x, y, z))
