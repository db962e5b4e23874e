"""Which scans a step sees, as which batches, and how they are known again."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from medgen.errors import TrainingError
from medgen.preprocessing.cache.cached_dataset import CachedDataset
from medgen.preprocessing.dataset import Batch, Dataset
from medgen.seeds import numpy_rng
from medgen.system.files import sha256_json
from medgen.transforms.augmentation import AugmentConfig, augment

# Scans that are trained on: in memory, or on disk.
Scans = Dataset | CachedDataset


def batch_indices(n: int, size: int, step: int, seed: int) -> list[int]:
    """Cases of a step: ``size`` places in an endless row of permutations of ``n``, one permutation per epoch.

    >>> sorted(batch_indices(4, 2, 0, seed=0) + batch_indices(4, 2, 1, seed=0))
    [0, 1, 2, 3]
    """
    orders: dict[int, list[int]] = {}
    places = range(step * size, (step + 1) * size)
    for epoch in {place // n for place in places}:
        orders[epoch] = numpy_rng(seed, "order", epoch).permutation(n).tolist()
    return [orders[place // n][place % n] for place in places]


def augmented(batch: Batch, config: AugmentConfig, generator: torch.Generator) -> Batch:
    """All maps of a batch moved through one grid, then the image's intensities changed."""
    masks = {"foreground": batch.foreground.long()}
    if batch.labels is not None:
        masks["labels"] = batch.labels
    if batch.confidence is not None:
        masks["confidence"] = (batch.confidence * 255).round().long()
    image, moved = augment(batch.image, torch.cat(list(masks.values()), dim=1), config, generator)
    if moved is None:
        raise TrainingError("augmentation returned no masks")
    found = dict(zip(masks, moved.split(1, dim=1), strict=True))
    confidence = None if batch.confidence is None else found["confidence"].float() / 255
    foreground = found["foreground"].float()
    return replace(batch, image=image, foreground=foreground, labels=found.get("labels"), confidence=confidence)


def content_digest(data: Scans) -> str:
    """SHA-256 of ids and of every voxel, so that a scan that was changed under the same name is noticed."""
    if isinstance(data, CachedDataset):
        return data.digest()
    digest = hashlib.sha256(sha256_json([data.ids, data.subjects]).encode())
    for tensor in (data.images, data.foregrounds, data.labels, data.confidence):
        if tensor is not None:
            array = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


def fitted_to(data: Scans) -> Dataset:
    """The scans that a model is fitted to outside of its steps; of a cohort on disk as many as memory is kept for."""
    return data.sample() if isinstance(data, CachedDataset) else data


def resident(data: Scans, device: torch.device) -> Scans:
    """The data set in GPU memory if it takes at most a quarter of what is free, else where it is."""
    if device.type != "cuda" or isinstance(data, CachedDataset):
        return data
    maps = (data.images, data.foregrounds, data.labels, data.confidence)
    size = sum(t.numel() * t.element_size() for t in maps if t is not None)
    if size * 4 > torch.cuda.mem_get_info(device)[0]:
        return data
    return replace(
        data,
        images=data.images.to(device),
        foregrounds=data.foregrounds.to(device),
        labels=None if data.labels is None else data.labels.to(device),
        confidence=None if data.confidence is None else data.confidence.to(device),
    )
