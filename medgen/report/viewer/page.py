"""The page of a viewer: one HTML file with its images and NiiVue inside; it asks nothing of any network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

import medgen
from medgen.report.figures.colours import STEPS, difference_colours, heat_colours, label_colour
from medgen.report.html import BANNER, png, templates
from medgen.report.viewer.layers import NOT_SCORED, Layer, kept_point, thinned
from medgen.report.viewer.library import library
from medgen.system import files


@dataclass(frozen=True)
class Place:
    """A place that the list leads to.

    Attributes:
        title: A few words, such as ``Finding 1``.
        text: What is there.
        point: World position (RAS+ mm).
    """

    title: str
    text: str
    point: tuple[float, float, float]


@dataclass(frozen=True)
class Threshold:
    """The heat from which on voxels are coloured, and what it stands for.

    Attributes:
        start: Heat (z) at first.
        lowest, highest: Ends of the slider.
        steps: (z, number) by falling z: false findings that are expected in a healthy scan from that heat on; empty
            where nothing is claimed.
    """

    start: float
    lowest: float
    highest: float
    steps: Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Viewer:
    """A scan to look through.

    Attributes:
        title: The scan's name.
        verdict: What is said of it, one or two sentences.
        scans: What can be looked at, the first at once; all in one world.
        overlays: What lies over them: nothing, one for all scans, or one for each.
        places: Where to jump, the first at once.
        threshold: Where the one overlay is heat.
        picture: Bytes of a PNG, for browsers without WebGL 2.
        notes: Sentences below the list: what the page does not show.
        back: Relative path of the report.
    """

    title: str
    verdict: str
    scans: Sequence[Layer]
    overlays: Sequence[Layer]
    places: Sequence[Place]
    picture: bytes
    threshold: Threshold | None = None
    notes: Sequence[str] = field(default=())
    back: str = ""

    def html(self) -> str:
        """The whole document.

        Raises:
            ConfigError: If NiiVue is not installed.
            DataError: If the picture is no PNG, or a grid is sheared.
            ValueError: If there are several overlays, but not one for each scan.
        """
        if len(self.overlays) not in (0, 1, len(self.scans)):
            raise ValueError(f"expected an overlay for each of {len(self.scans)} scans, found {len(self.overlays)}")
        layers, every = [*self.scans, *self.overlays], list(range(len(self.scans)))
        about: dict[str, Any] = {
            "scans": [_about(f"scan{number}", layer) for number, layer in enumerate(self.scans)],
            "overlays": [
                {**_about(f"overlay{number}", layer), "scans": every if len(self.overlays) == 1 else [number]}
                for number, layer in enumerate(self.overlays)
            ],
            "places": [
                {"title": p.title, "text": p.text, "point": list(kept_point(layers[0].volume.grid, p.point))}
                for p in self.places
            ],
            "threshold": None if self.threshold is None else _plain(self.threshold),
            "notScored": NOT_SCORED,
            "shares": _shares(layers[0]),
            "colours": {"heat": _colours(heat_colours(), STEPS), "difference": _colours(difference_colours(), 255)},
        }
        names = [entry["id"] for entry in (*about["scans"], *about["overlays"])]
        return (
            templates(Path(__file__).parent)
            .get_template("viewer.html.j2")
            .render(
                title=self.title,
                verdict=self.verdict,
                banner=BANNER,
                version=medgen.__version__,
                # "<" never closes the element that holds it.
                about=json.dumps(about).replace("<", "\\u003c"),
                library=_base64(library()),
                images=[(name, _base64(layer.encoded())) for name, layer in zip(names, layers, strict=True)],
                picture=_base64(png(self.picture)),
                notes=self.notes,
                back=self.back,
                heat=self.threshold is not None,
                # Labels cover all of an organ: the scan must show through them.
                opacity=0.7 if self.threshold is not None else 0.25,
            )
        )

    def write(self, path: str | Path) -> None:
        """Write the page atomically; raises as :meth:`html` does."""
        files.write_text(path, self.html())


def _about(name: str, layer: Layer) -> dict[str, Any]:
    about = {"id": name, "name": layer.name, "kind": layer.kind, "window": list(layer.window)}
    return {**about, "colours": _label_colours(layer.labels)} if layer.kind == "labels" else about


def _label_colours(names: Mapping[int, str]) -> dict[str, Any]:
    """Names and colours by label number from 0 on, as NiiVue takes them; what has no name is not drawn."""
    last = max(names, default=0)
    table = [
        [*(round(255 * value) for value in to_rgb(label_colour(label))), 255] if label in names else [0, 0, 0, 0]
        for label in range(last + 1)
    ]
    texts = [names.get(label, "") for label in range(last + 1)]
    return {"lut": [value for row in table for value in row], "min": 0, "max": last, "labels": texts}


def _plain(threshold: Threshold) -> dict[str, Any]:
    ends = {"start": threshold.start, "lowest": threshold.lowest, "highest": threshold.highest}
    return {**ends, "steps": [[float(z), float(number)] for z, number in threshold.steps]}


def _shares(layer: Layer) -> list[list[float]]:
    """From mm to NiiVue's place of the cross, (3, 4): shares of the first scan's box along R, A and S.

    A voxel's centre is at (index + 1/2) / size, axes in the order and direction that is nearest to R, A and S.
    """
    grid = thinned(layer.volume).grid
    to_voxel = np.linalg.inv(grid.affine)
    rows = np.zeros((3, 4))
    for axis, (world, sign) in enumerate(grid.axes):
        size = grid.shape[axis]
        row = to_voxel[axis] if sign > 0 else np.array([0, 0, 0, size - 1.0]) - to_voxel[axis]
        rows[world] = (row + np.array([0, 0, 0, 0.5])) / size
    return [[float(value) for value in row] for row in rows]


def _colours(colours: Any, steps: int) -> dict[str, list[int]]:
    """A colour map as NiiVue takes it: red, green, blue, opacity and index, each 0 to 255; in flat steps where few."""
    rgb = [[round(255 * value) for value in colours(step / (steps - 1))[:3]] for step in range(steps)]
    if steps > 16:
        table = [(rgb[step], round(255 * step / (steps - 1))) for step in range(steps)]
    else:
        edges = [round(255 * step / steps) for step in range(steps + 1)]
        table = [(rgb[step], edge) for step in range(steps) for edge in (edges[step], max(edges[step + 1] - 1, 0))]
        table[-1] = (rgb[-1], 255)
    # Whatever is at or below the lower limit has the first index: nothing is drawn there.
    table = [table[0], (table[0][0], 1), *table[1:]]
    columns = {name: [colour[axis] for colour, _ in table] for axis, name in enumerate("RGB")}
    return {**columns, "A": [0] + [255] * (len(table) - 1), "I": [index for _, index in table]}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
