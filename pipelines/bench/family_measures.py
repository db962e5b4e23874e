"""What a trained model of any family is measured by, on scans of subjects that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from medgen.errors import DataError
from medgen.implants.implanted_scans import EvaluationConfig, scans_to_test
from medgen.metrics.ranking import Ranked, level_counts
from medgen.metrics.reconstruction import psnr, ssim
from medgen.models.base import GenerativeModel, HasLikelihood, HasVoxelLikelihood, PaintsLabels, Reconstructs
from medgen.models.families.flow import Flow
from medgen.models.likelihoods.linear_gaussian import LinearGaussian
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import derive, torch_rng
from medgen.segmentation.segmenter import Segmenter
from medgen.synthesis.fidelity.comparison import FidelityConfig, Scans, auditor_features, compare, describe

NOTHING = float("nan")
RECONSTRUCTION = ("psnr", "ssim", "nats")
SAMPLES = ("kid", "mmd", "density", "coverage", "ms_ssim", "detail", "nearest", "dice")
# Draws behind a bound on the likelihood, scans at a time.
DRAWS, _CHUNK = 8, 4
# Implants as a share of the scan's smallest side, as radius; one for each held-out scan.
_RADII, _CONTRASTS = (0.08, 0.16), (1.5, 2.5)


def reconstruction(model: Any, test: Dataset, seed: int) -> dict[str, float]:
    """PSNR in dB, SSIM, nats per voxel of the foreground: means over scans, NaN for what a family does not offer."""
    device = device_of_model(model)
    generator = torch_rng(seed, "reconstruction", "draws")
    rows: list[tuple[float, float, float]] = []
    for first in range(0, len(test), _CHUNK):
        batch = test.batch(range(first, min(first + _CHUNK, len(test)))).to(device)
        nats = _nats(model, batch.image, batch.foreground, generator)
        made = None
        if isinstance(model, Reconstructs):
            with torch.no_grad():
                made = model.reconstruct(batch.image).cpu().numpy()
        masks = batch.foreground[:, 0].cpu().numpy() > 0
        images = batch.image.cpu().numpy()
        for row, mask in enumerate(masks):
            found = (NOTHING, NOTHING)
            if made is not None:
                found = psnr(images[row], made[row], mask), ssim(images[row], made[row], mask)
            rows.append((*found, float(nats[row])))
    return dict(zip(RECONSTRUCTION, np.mean(rows, axis=0).tolist(), strict=True))


def samples(
    model: Any,
    train: Dataset,
    test: Dataset,
    judge: Segmenter,
    labels: Sequence[int],
    spacing: Sequence[float],
    seed: int,
) -> dict[str, float]:
    """How like held-out scans new ones are; NaN for families that make none.

    As many as there are held-out scans; families that paint get the held-out label maps.

    Returns:
        ``kid``, ``mmd``, ``ms_ssim`` as multiples of what halves of the held-out scans differ by, ``density`` and
        ``coverage`` (features of ``judge``), ``detail``: standard deviation of what a mean over 3³ voxels takes away,
        over that of the held-out scans; ``nearest``: mean largest correlation with a training scan; ``dice``: mean Dice
        of ``judge`` on painted scans, where labels were painted.
    """
    generator = torch_rng(seed, "families", "samples")
    images = drawn(model, test, generator, float(train.images.max()))
    if images is None:
        return dict.fromkeys(SAMPLES, NOTHING)
    return sampled(images, train, test, judge, labels, spacing, seed, painted=isinstance(model, PaintsLabels))


def sampled(
    images: Tensor,
    train: Dataset,
    test: Dataset,
    judge: Segmenter,
    labels: Sequence[int],
    spacing: Sequence[float],
    seed: int,
    *,
    painted: bool,
) -> dict[str, float]:
    """The numbers of :func:`samples` for images (n, c, i, j, k)."""
    chosen = FidelityConfig()
    ids = tuple(f"made-{row}" for row in range(len(images)))
    masks = test.labels if test.labels is not None else torch.zeros_like(test.images[:, :1], dtype=torch.uint8)
    # Volumes of labels are no measure here: drawn images have none, and painted ones have the held-out scans'.
    value_range = float(train.images.max() - train.images.min())
    real, made = (
        describe(
            scans,
            auditor_features([judge]),
            chosen,
            labels=(),
            spacing=spacing,
            data_range=value_range,
            seed=seed,
        )
        for scans in (Scans.real("held-out", test), Scans("made", ids, ids, images, masks[: len(images), 0]))
    )
    found = {item.name: item for item in compare(real, made, chosen, seed).measures}
    ratios = {name: found[name].ratio.estimate for name in ("kid", "mmd", "ms_ssim")}
    shares = {name: found[name].synthetic.estimate for name in ("density", "coverage")}
    seen = test.foregrounds.float()
    return {
        **ratios,
        **shares,
        "detail": detail(images, seen[: len(images)]) / detail(test.images, seen),
        "nearest": float(nearest(images, train.images).mean()),
        "dice": judged_dice(judge, images, masks, labels) if painted else NOTHING,
    }


def drawn(model: Any, test: Dataset, generator: Generator, highest: float) -> Tensor | None:
    """New images, as many as held-out scans, (n, c, i, j, k) on the CPU; None from a family that makes none."""
    if isinstance(model, GenerativeModel | LinearGaussian):
        parts = [min(_CHUNK, len(test) - first) for first in range(0, len(test), _CHUNK)]
        made = torch.cat([model.sample(count, generator).cpu() for count in parts])
        return made.clamp(0, highest)
    if isinstance(model, Flow):
        return paint(model, test, generator, highest)
    return None


def paint(model: Flow, test: Dataset, generator: Generator, highest: float) -> Tensor:
    """Images (n, c, i, j, k), on the CPU, painted on the label maps of scans.

    Raises:
        DataError: If a scan has no mask.
    """
    images = []
    for row in range(len(test)):
        batch = test.batch([row])
        if batch.labels is None:
            raise DataError("painting needs scans with masks")
        device = model.mean.device
        labels = batch.labels.long().to(device)
        style, noise = model.draw_style(labels, generator), model.draw_noise(1, generator)
        image = model.paint(labels, style, noise, batch.foreground.to(device))[0]
        images.append(image.clamp(0, highest).cpu())
    return torch.stack(images)


def anomaly_ap(model: Any, train: Dataset, test: Dataset, spacing: Sequence[float], seed: int) -> dict[str, float]:
    """Average precision over the voxels of implants in held-out scans, by the model's own map, raw.

    The map is the negative log-likelihood per voxel where there is one, else the absolute difference to the
    reconstruction. One implant for each held-out scan, kinds in turn; healthy scans count, too.

    Returns:
        ``ap``, and ``prevalence``, which chance reaches.
    """
    side = min(size * width for size, width in zip(test.shape, spacing, strict=True))
    low, high = (share * side for share in _RADII)
    config = EvaluationConfig(per_scan=1, radius_mm=(low, high), contrasts=_CONTRASTS)
    counts: list[NDArray[np.uint32]] = []
    for scan in scans_to_test(test, train, spacing, config, derive(seed, "families", "implants")):
        heat = voxel_map(model, scan.image[None])
        if heat is None:
            return {"ap": NOTHING, "prevalence": NOTHING}
        inside = scan.foreground[0].cpu().numpy() > 0
        counts.append(level_counts(heat[0].mean(0).cpu().numpy()[inside], scan.truth[inside]))
    ranked = Ranked.counted(counts).pooled()
    return {"ap": float(ranked.average_precision()[0]), "prevalence": float(ranked.prevalence()[0])}


@torch.no_grad()
def voxel_map(model: Any, image: Tensor) -> Tensor | None:
    """How unusual each voxel is, (b, c, i, j, k), higher for more; None from a family that has no such map."""
    x = image.to(device_of_model(model))
    if isinstance(model, HasVoxelLikelihood):
        return model.voxel_nll(x)
    if isinstance(model, Reconstructs):
        return (x - model.reconstruct(x)).abs()
    return None


def nearest(images: Tensor, train: Tensor) -> NDArray[np.float64]:
    """Largest Pearson correlation of each image (n, c, i, j, k) with a training scan, (n,)."""

    def standardised(scans: Tensor) -> Tensor:
        flat = scans.flatten(1).float()
        flat = flat - flat.mean(1, keepdim=True)
        return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)

    best: NDArray[np.float64] = (standardised(images) @ standardised(train).T).amax(1).double().numpy()
    return best


def detail(images: Tensor, weight: Tensor) -> float:
    """Standard deviation, where ``weight`` (n, 1, i, j, k) is, of what a mean over 3³ voxels takes away."""
    rest = images - functional.avg_pool3d(images, 3, 1, 1)
    return float(((rest.square() * weight).sum() / weight.sum() / images.shape[1]).sqrt())


def judged_dice(judge: Segmenter, images: Tensor, truth: Tensor, labels: Sequence[int]) -> float:
    """Mean Dice over images and labels of what a segmenter sees, with masks (n, 1, i, j, k)."""
    said = np.asarray(judge.predict(images)).reshape(truth[:, 0].shape)
    scores: list[Any] = []
    for own, true in zip(said, truth[:, 0].numpy(), strict=True):
        for label in labels:
            both = (own == label).sum() + (true == label).sum()
            scores.append(2 * ((own == label) & (true == label)).sum() / max(int(both), 1))
    return float(np.mean(scores))


def device_of_model(model: Any) -> torch.device:
    """Where a model's weights are; the CPU for what is no network."""
    return next(iter(model.parameters())).device if isinstance(model, torch.nn.Module) else torch.device("cpu")


def means(cells: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, float]:
    """Mean of each column over cells."""
    return {column: float(np.mean([cell[column] for cell in cells])) for column in columns}


def _nats(model: Any, images: Tensor, masks: Tensor, generator: Generator) -> Tensor:
    """Log-likelihood per voxel of the foreground, (b,); NaN for a model without one."""
    voxels = masks.flatten(1).sum(1) * images.shape[1]
    if isinstance(model, LinearGaussian):
        return model.log_likelihood(images, masks) / voxels
    if isinstance(model, HasLikelihood):
        return (model.log_likelihood(images, masks, samples=DRAWS, generator=generator) / voxels).cpu()
    return torch.full((len(images),), torch.nan)
