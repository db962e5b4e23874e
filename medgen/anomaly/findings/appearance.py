"""What is unusual about a place, in words: darker or brighter, smoother or rougher than healthy scans are there.

A heatmap says that a place is unusual, not how. Here two things that a reader can check by eye are compared with the
healthy development scans, voxel by voxel on the model grid: the intensity, and the detail, how much an intensity
differs from its neighbourhood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.normative.config import NormativeConfig
from medgen.anomaly.normative.maps import Normative, normative_of
from medgen.anomaly.normative.moments import Moments
from medgen.preprocessing.dataset import Dataset
from medgen.transforms.masked_smoothing import Smoother

NOTABLE = 1.0
"""From so many healthy standard deviations on a difference over a finding, see :func:`lean`, is put into words."""

ASPECTS = {"brightness": ("darker", "brighter"), "detail": ("smoother", "rougher")}
"""What is compared, with the words for less and for more."""

# As fine as the anatomy is: a blurred mean would call every ventricle's edge dark.
_AS_IT_IS = NormativeConfig(blur=0.0)
_NEIGHBOURHOOD = 1.0


@dataclass(frozen=True, eq=False)
class HealthyAppearance:
    """Mean and standard deviation of intensity and detail over the healthy development scans.

    Attributes:
        aspects: Per aspect of :data:`ASPECTS` one entry for every contrast, on the model grid.
    """

    aspects: Mapping[str, tuple[Normative, ...]]

    @classmethod
    def fit(cls, dataset: Dataset, support: NDArray[np.bool_]) -> HealthyAppearance:
        """From healthy prepared scans.

        Args:
            dataset: The scans.
            support: (i, j, k), the voxels that can be scored.
        """
        regions = dataset.foregrounds[:, 0].cpu().numpy().astype(bool) & support
        found: dict[str, tuple[Normative, ...]] = {}
        for aspect in ASPECTS:
            per_channel = []
            for channel in range(dataset.channels):
                maps = (
                    _aspect(aspect, dataset.images[row, channel].float().cpu().numpy(), region)[region]
                    for row, region in enumerate(regions)
                )
                per_channel.append(normative_of(Moments.of(maps, regions, support.shape), support, _AS_IT_IS))
            found[aspect] = tuple(per_channel)
        return cls(found)

    def maps(self, image: NDArray[np.float32], region: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Standard deviations from the healthy mean by aspect, (c, i, j, k), 0 outside the region.

        Less their median over the region: a scan whose intensities are scaled a little differently is not dark at every
        place.

        Args:
            image: (c, i, j, k), a prepared scan.
            region: (i, j, k), where it is scored.
        """
        found = {}
        for aspect, per_channel in self.aspects.items():
            found[aspect] = np.zeros(image.shape, dtype=np.float32)
            for own, values, normative in zip(found[aspect], image, per_channel, strict=True):
                away = normative.z(_aspect(aspect, values, region))[region]
                own[region] = away - np.median(away)
        return found

    def to_arrays(self, support: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Plain arrays inside the support that :meth:`from_arrays` reads back."""
        return {
            f"{aspect}/{part}": np.stack([getattr(normative, part)[support] for normative in per_channel])
            for aspect, per_channel in self.aspects.items()
            for part in ("mean", "sd")
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], support: NDArray[np.bool_]) -> HealthyAppearance:
        """Inverse of :meth:`to_arrays`.

        Raises:
            KeyError: If an array is missing.
        """
        found = {}
        for aspect in ASPECTS:
            per_channel = []
            for mean, sd in zip(arrays[f"{aspect}/mean"], arrays[f"{aspect}/sd"], strict=True):
                whole = Normative(np.zeros(support.shape, np.float32), np.ones(support.shape, np.float32))
                whole.mean[support], whole.sd[support] = mean, sd
                per_channel.append(whole)
            found[aspect] = tuple(per_channel)
        return cls(found)


def lean(values: NDArray[np.floating]) -> float:
    """To which side values lie, and how far: half the sum of the means of their lowest and of their highest quarter.

    It is the shift where all are shifted, 0 where they are spread to both sides, and clearly not 0 where a part of them
    is far off: an outlined part of a finding is larger than a lesion that is much hotter than the threshold, and its
    median would be that of the tissue around it.

    >>> lean(np.array([-4.0, -4.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0])), lean(np.array([1.5, 2.5]))
    (-2.0, 2.0)
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    quarter = max(len(ordered) // 4, 1)
    return float(ordered[:quarter].mean() + ordered[-quarter:].mean()) / 2


def unusual_words(brightness: tuple[float, ...], detail: tuple[float, ...], contrasts: tuple[str, ...] = ()) -> str:
    """What differs from healthy scans: the intensity, then the detail, of every contrast in which they clearly do.

    Where the intensity of a contrast differs, "rougher" is left out for it: the edge of a bright or dark spot is detail
    by itself. Of several contrasts that in which it differs most comes first.

    Args:
        brightness: Difference of intensity over a finding (:func:`lean`) in healthy standard deviations, one per
            contrast of the scan.
        detail: The same of the detail.
        contrasts: What the contrasts are called; without names they are numbered. Not said where there is one only.

    >>> unusual_words((-2.34,), (0.2,)), unusual_words((1.2,), (-3.0,)), unusual_words((1.2,), (3.0,))
    ('darker (-2.3 sd)', 'brighter (+1.2 sd), smoother (-3.0 sd)', 'brighter (+1.2 sd)')
    >>> unusual_words((0.4,), (0.9,)), unusual_words((0.0, 3.0), (0.0, 0.0))
    ('usual in brightness and detail', 'brighter in contrast 2 (+3.0 sd)')
    >>> unusual_words((-1.4, 3.0), (-2.0, 4.0), ("T1", "FLAIR"))
    'brighter in FLAIR (+3.0 sd), darker in T1 (-1.4 sd), smoother in T1 (-2.0 sd)'
    """
    told: list[str] = []
    differs: set[int] = set()
    for aspect, values in zip(ASPECTS, (brightness, detail), strict=True):
        less, more = ASPECTS[aspect]
        for number in sorted(range(len(values)), key=lambda number: -abs(values[number])):
            value = values[number]
            if abs(value) < NOTABLE or (aspect == "detail" and value > 0 and number in differs):
                continue
            differs.add(number)
            name = contrasts[number] if contrasts else contrast_name(str(number + 1))
            where = f" in {name}" if len(values) > 1 else ""
            told.append(f"{more if value > 0 else less}{where} ({value:+.1f} sd)")
    return ", ".join(told) or f"usual in {' and '.join(ASPECTS)}"


def most_unusual(brightness: tuple[float, ...], detail: tuple[float, ...]) -> int | None:
    """Number of the contrast that differs most from healthy scans, from 0; None where none clearly does.

    It is the one that :func:`unusual_words` speaks of first. With one contrast there is nothing to ask: 0.

    >>> most_unusual((-1.4, 3.0), (0.0, 0.0)), most_unusual((0.1, 0.2), (-3.0, 0.0)), most_unusual((0.1, 0.2), (0, 0))
    (1, 0, None)
    """
    for values in (brightness, detail):
        if len(values) == 1:
            return 0
        if values and max(map(abs, values)) >= NOTABLE:
            return int(np.argmax(np.abs(values)))
    return None


def contrast_name(name: str) -> str:
    """What a reader calls a contrast: its name, or "contrast 2" where the cohort has only numbers.

    >>> contrast_name("FLAIR"), contrast_name("2")
    ('FLAIR', 'contrast 2')
    """
    return f"contrast {name}" if name.isdigit() else name


def _aspect(aspect: str, values: NDArray[np.float32], region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """One aspect of an image channel (i, j, k), defined inside the region."""
    if aspect == "brightness":
        return values
    smoother = Smoother.of(region, _NEIGHBOURHOOD)
    return smoother(np.abs(values - smoother(values)))
