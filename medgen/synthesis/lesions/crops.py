"""What is learnt from lesions: crops around them and of healthy anatomy, their forms, and how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.errors import DataError
from medgen.models.families.inpaint import dilate, fill_holes, measure_style
from medgen.models.losses import signed_distance
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import numpy_rng
from medgen.synthesis.lesions.focal import Focal
from medgen.synthesis.lesions.forms import Labels, deformed, lesion_indices, random_window, window
from medgen.synthesis.sources import Sources


def training_crops(sources: Sources, focal: Focal, healthy: int, seed: int) -> Dataset:
    """Crops around real lesions and of healthy anatomy, as many of each.

    Crops without lesion come from labelled and unlabelled scans alike: they teach anatomy and texture.

    Args:
        sources: Training scans.
        focal: The lesions of the labelled ones.
        healthy: Crops without lesion per scan.
        seed: Where these lie.
    """
    parts = [_lesion_crops(sources.labelled, focal)]
    datasets = [sources.labelled, *([] if sources.unlabelled is None else [sources.unlabelled])]
    parts += [_healthy_crops(data, focal, healthy, seed) for data in datasets]
    others = sum(len(part) for part in parts[1:])
    # A training that meets every crop equally often would hardly see the lesions.
    repeats = max(1, round(others / max(len(parts[0]), 1)))
    parts = [_renamed(parts[0], f"-{turn}") for turn in range(repeats)] + [part for part in parts[1:] if len(part)]
    return Dataset(
        ids=tuple(name for part in parts for name in part.ids),
        subjects=tuple(name for part in parts for name in part.subjects),
        images=torch.cat([part.images for part in parts]),
        foregrounds=torch.cat([part.foregrounds for part in parts]),
        labels=torch.cat([part.labels for part in parts if part.labels is not None]),
    )


def training_forms(focal: Focal, variants: int, warp: float, smallest: int, truncation: int, seed: int) -> Dataset:
    """Truncated signed distances of all forms and of warped copies: tens are few, and a lesion has no left or right.

    Args:
        focal: The lesions.
        variants: Copies of each, itself included.
        warp: Strength of the warps, see :func:`~medgen.synthesis.lesions.forms.deformed`.
        smallest: Copies with fewer voxels are left out.
        truncation: Voxels at which distances are cut off.
        seed: Seed of the warps.
    """
    forms, names = [], []
    for row, form in enumerate(focal.forms):
        for copy in range(variants):
            rng = numpy_rng(seed, "lesion", "variant", row, copy)
            changed = deformed(form, warp, rng) if copy else form
            if np.count_nonzero(changed) >= smallest:
                forms.append(changed)
                names.append(f"{row}-{copy}")
    labels = torch.from_numpy(np.stack(forms))[:, None]
    distance = signed_distance(labels, len(focal.labels), truncation)
    # Voxels that are far outside of every lesion count little.
    near = (distance > -1).any(dim=1, keepdim=True)
    return Dataset(tuple(names), tuple(names), distance, near)


def lesion_styles(data: Dataset, focal: Focal, margin: int) -> NDArray[np.float32]:
    """Style of each real lesion (n_labels + 1, 2c), flattened, and the smooth filling's mean inside it (c).

    See :func:`medgen.models.families.inpaint.measure_style`.
    """
    rows = []
    for lesion in focal.kept:
        box = window(lesion.centre, focal.crop, data.shape)
        where = (slice(None), *box)
        image = data.images[lesion.row][where][None]
        index = torch.from_numpy(_indices(data, lesion.row, box, focal))[None, None]
        inside = (index > 0).float()
        hole = dilate(inside, margin) * data.foregrounds[lesion.row][where][None]
        filling = fill_holes(image, 1 - hole)
        style = measure_style(image, hole, index.long(), len(focal.labels), filling)
        level = (filling * inside).sum((2, 3, 4)) / inside.sum().clamp_min(1)
        rows.append(torch.cat([style.flatten(), level.flatten()]))
    return torch.stack(rows).numpy()


def draws_of_a_style(lesions: int, labels: int, channels: int) -> int:
    """How many standard normal numbers :func:`conditional_style` takes where so many lesions are known."""
    # One or two lesions have no spread of their own: every number of a style varies by itself.
    return lesions if lesions > 2 else (labels + 1) * 2 * channels


def conditional_style(
    styles: NDArray[np.float32], level: NDArray[np.float32], strength: float, draws: NDArray[np.float64]
) -> NDArray[np.float32]:
    """A style for a place with a given smooth filling: a draw from a Gaussian, conditioned on the filling.

    Lesions have rather an intensity than a contrast of their own: what they differ by depends on the tissue around.
    The regression of style on filling is shrunk by a prior weight of five lesions, so that few lesions give their
    mean style.

    Args:
        styles: (m, d), the last len(level) columns are fillings; see :func:`lesion_styles`.
        level: (c,), mean filling at the place.
        strength: Factor on the draw's deviation; 0 gives the expectation.
        draws: Standard normal numbers, as many as :func:`draws_of_a_style` says.

    Returns:
        (d − c,) float32.
    """
    c, m = len(level), len(styles)
    mean = styles.mean(axis=0)
    deviation = styles - mean
    own, around = deviation[:, :-c], deviation[:, -c:]
    prior = 5 / m * np.diag((around**2).sum(axis=0)) + 1e-6 * np.eye(c)
    slope = np.linalg.solve(around.T @ around + prior, around.T @ own)
    rest = own - around @ slope
    draws = draws.clip(-2.5, 2.5)
    # Of one or two lesions, a tenth of what they are.
    draw = draws @ rest / np.sqrt(m - 1) if m > 2 else 0.1 * draws * np.abs(mean[:-c])
    result: NDArray[np.float32] = (mean[:-c] + (level - mean[-c:]) @ slope + strength * draw).astype(np.float32)
    return result


def _lesion_crops(data: Dataset, focal: Focal) -> Dataset:
    windows = [
        (lesion.row, window(lesion.centre, focal.crop, data.shape), f"{data.ids[lesion.row]}/lesion-{number}")
        for number, lesion in enumerate(focal.kept)
    ]
    return _crops(data, focal, windows)


def _healthy_crops(data: Dataset, focal: Focal, count: int, seed: int) -> Dataset:
    windows = []
    for row, name in enumerate(data.ids):
        foreground = data.foregrounds[row, 0].numpy()
        for number in range(count):
            box = random_window(foreground, focal.crop, seed, "lesion", "healthy", name, number)
            windows.append((row, box, f"{name}/healthy-{number}"))
    return _crops(data, focal, windows)


def _crops(data: Dataset, focal: Focal, windows: Sequence[tuple[int, tuple[slice, ...], str]]) -> Dataset:
    """Windows of scans with lesion indices as labels; those without labels have none anywhere."""
    shape = (0, data.channels, *focal.crop)
    images = [data.images[row][(slice(None), *box)] for row, box, _ in windows]
    foregrounds = [data.foregrounds[row][(slice(None), *box)] for row, box, _ in windows]
    labels = [torch.from_numpy(_indices(data, row, box, focal))[None] for row, box, _ in windows]
    return Dataset(
        ids=tuple(name for _, _, name in windows),
        subjects=tuple(data.subjects[row] for row, _, _ in windows),
        images=torch.stack(images) if images else torch.zeros(shape),
        foregrounds=torch.stack(foregrounds) if images else torch.zeros((0, 1, *focal.crop), dtype=torch.bool),
        labels=torch.stack(labels) if images else torch.zeros((0, 1, *focal.crop), dtype=torch.uint8),
    )


def _indices(data: Dataset, row: int, box: tuple[slice, ...], focal: Focal) -> Labels:
    if data.labels is None:
        return np.zeros(focal.crop, dtype=np.uint8)
    return lesion_indices(data.labels[row, 0][box].numpy(), focal.labels)


def _renamed(data: Dataset, suffix: str) -> Dataset:
    if not len(data):
        raise DataError("there is no crop with a lesion")
    return replace(data, ids=tuple(name + suffix for name in data.ids))
