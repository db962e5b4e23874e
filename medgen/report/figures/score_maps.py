"""The maps of single scores beside the heatmap, on one colour scale: which of them see a place, and which do not."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from medgen.report.figures import planes as geometry
from medgen.report.figures.mosaic import _Layers, _legend, grey_scale
from medgen.report.figures.panels import Panel, panels
from medgen.volume import Volume

# Panels in a row, and inches of the tallest.
_COLUMNS = 6
_TALLEST = 2.2


def score_maps(
    image: Volume,
    maps: Mapping[str, Volume],
    *,
    contour: Volume | None = None,
    point: ArrayLike,
    channel: int = 0,
    heading: str = "scan",
    title: str = "",
    contour_label: str = "implant",
) -> Figure:
    """The axial slice through a point: the scan with what is outlined, then each map over it, outlined alike.

    Args:
        image: Scan, (c, i, j, k).
        maps: By the heading of its panel, a map of z; NaN where not scored; on any grids of the same world.
        contour: What is outlined: 1, or 2 where it is family-wise.
        point: World point (RAS+ mm) that the slice goes through.
        channel: Channel of the image that is drawn.
        heading: Over the scan.
        title: One line above.
        contour_label: Text of the outline in the legend.

    Raises:
        ValueError: If there is no map.
    """
    if not maps:
        raise ValueError("expected a map at least, found none")
    window = grey_scale(image, channel)
    (grid,) = geometry.slices(image.grid, "axial", 1, point, geometry.bounding_box(image))
    scan = Panel(_Layers(image, window, channel, contour=contour), grid, "axial", heading)
    drawn = [
        Panel(_Layers(image, window, channel, heatmap=own, contour=contour), grid, "axial", name)
        for name, own in maps.items()
    ]
    everything = [scan, *drawn]
    rows = [everything[start : start + _COLUMNS] for start in range(0, len(everything), _COLUMNS)]
    handles = _legend(drawn[0].layers, {}, contour_label)
    return panels(rows, columns=_COLUMNS, handles=handles, title=title, tallest=_TALLEST)
