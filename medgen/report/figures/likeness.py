"""Real and synthetic scans side by side: volumes of each label, and where they lie in the space of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medgen.report.figures.curves import _COLOURS, _GRID, _figure

Array = NDArray[np.float64]


def likeness_figure(volumes: Mapping[str, Mapping[str, Array]], points: Mapping[str, Array], unit: str) -> Figure:
    """One panel of volumes per label, a dot per scan and a bar at the median, and one panel of features.

    Args:
        volumes: Label → set of scans → one volume per scan; sets keep their colours in all panels.
        points: Set of scans → (n, 2) principal components of the features.
        unit: Unit of the volumes, for the label of the axis, such as ml.

    Raises:
        ValueError: If there are no points.
    """
    if not points:
        raise ValueError("expected features of at least one set of scans, found none")
    names = list(dict.fromkeys([*points, *(name for sets in volumes.values() for name in sets)]))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    figure = _figure(2.6 * len(volumes) + 4.6, 3.6)
    widths = [1.0] * len(volumes) + [1.7]
    axes = figure.subplots(1, len(volumes) + 1, width_ratios=widths, squeeze=False)[0]
    for panel, (label, sets) in zip(axes, volumes.items(), strict=False):
        _strips(panel, sets, colours)
        panel.set_title(label, fontsize=9)
    if volumes:
        axes[0].set_ylabel(f"volume, {unit}", fontsize=8)
    _scatter(axes[-1], points, colours)
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    return figure


def principal_components(reference: Array, others: Sequence[Array]) -> list[Array]:
    """The reference and the others, each (n, 2), on the two main axes of the reference's features.

    Args:
        reference: (n, d) with n and d at least 2; brought to unit variance first, as the others are with it.
        others: (m, d) each.
    """
    from sklearn.decomposition import PCA

    from medgen.metrics.fidelity import standardised

    model = PCA(n_components=2, svd_solver="full").fit(standardised(reference, reference)[0])
    return [model.transform(standardised(reference, values)[1]) for values in (reference, *others)]


def _strips(axes: Axes, sets: Mapping[str, Array], colours: Mapping[str, str]) -> None:
    for place, (name, values) in enumerate(sets.items()):
        # Spread by rank within the column, so that equal pictures are equal files.
        order = np.argsort(np.argsort(values))
        x = place + 0.5 * (((order * 0.6180339887) % 1) - 0.5)
        axes.plot(x, values, color=colours[name], marker="o", ms=3, alpha=0.55, ls="none", mew=0)
        if len(values):
            axes.hlines(float(np.median(values)), place - 0.35, place + 0.35, color=colours[name], lw=2)
    axes.set_xticks([])
    axes.set_xlim(-0.6, len(sets) - 0.4)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", color=_GRID, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _scatter(axes: Axes, points: Mapping[str, Array], colours: Mapping[str, str]) -> None:
    for name, values in points.items():
        axes.plot(values[:, 0], values[:, 1], color=colours[name], marker="o", ms=4, alpha=0.6, ls="none", label=name)
    axes.set_title("look of the scans (features)", fontsize=9)
    axes.set_xlabel("first principal component", fontsize=8)
    axes.set_ylabel("second principal component", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(color=_GRID, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
