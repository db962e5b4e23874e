"""Augmentation of image and label map against MONAI, TorchIO and batchgeneratorsv2, with every transform applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from medgen.data.simulation import SubjectDrawer, cohort_grid
from medgen.transforms.augmentation import augment
from medgen.transforms.augmentation_config import AugmentConfig

from ..contest import Contender, Contest, Demand, Entry, Rows, Settings
from ..peers import absent

_SEED = 0
_MONAI, _TORCHIO, _BATCHGENERATORS = 10.0, 8.0, 4.0
_SHAPE, _SMALL = (96, 112, 96), (32, 32, 32)
# Everything every time: what is compared is the cost of the transforms, not how often each of them is drawn.
_CONFIG = AugmentConfig(spatial=1.0, intensity=1.0)
_DEGREES, _SCALE, _SHIFT = _CONFIG.rotate_degrees, _CONFIG.scale, _CONFIG.translate
Pair = tuple[Tensor, Tensor]


def entries(settings: Settings) -> Iterator[Entry]:
    """One scan, then a batch of four."""
    for count in (1,) if settings.quick else (1, 4):
        image, labels = _scans(settings, count)
        ways: dict[str, tuple[Callable[[], Pair], float | None]] = {"medgen": (_own(image, labels), None)}
        ways["MONAI"] = (_one_by_one(image, labels, _monai()), _MONAI)
        without_torchio = absent("torchio", "TorchIO")
        without_batchgenerators = absent("batchgeneratorsv2", "batchgeneratorsv2")
        if not without_torchio:
            ways["TorchIO"] = (_one_by_one(image, labels, _torchio()), _TORCHIO)
        if not without_batchgenerators:
            shape = tuple(image.shape[2:])
            ways["batchgeneratorsv2"] = (_one_by_one(image, labels, _batchgenerators(shape)), _BATCHGENERATORS)
        yield Contest(
            f"augmentation of image and labels, {count} scan{'s' if count > 1 else ''}",
            tuple(Contender(name, way, goal) for name, (way, goal) in ways.items()),
            demand=Demand(0, 2.0 * (image.numel() * 4 + labels.numel()), "image and labels read and written once"),
            equal=partial(_alike, {name: way for name, (way, _) in ways.items()}),
            without=(*without_torchio, *without_batchgenerators),
            notes=(
                "Rotation by up to 15 degrees about each axis, scaling, shift, elastic deformation with control points "
                "some 12 voxels apart, bias field, noise, blur, brightness, contrast and gamma, all applied to every "
                "scan; image trilinear, labels nearest. Peers leave out what they do not have: TorchIO brightness and "
                "contrast, batchgeneratorsv2 the bias field and shifts. On a CPU, peers work on scans one by one.",
            ),
        )


def _scans(settings: Settings, count: int) -> Pair:
    shape = _SMALL if settings.quick else _SHAPE
    spacing = 6.0 if settings.quick else 2.0
    drawer, images, labels = SubjectDrawer(cohort_grid(spacing)), [], []
    for index in range(count):
        subject = drawer.draw(_SEED, index)
        grid = subject.image.grid.centred(shape, (spacing,) * 3)
        image = subject.image.resample(grid).data
        images.append(torch.from_numpy(image / image.max()))
        labels.append(torch.from_numpy(subject.labels.resample(grid, order=0).data.copy()))
    device = torch.device(settings.device)
    return torch.stack(images).to(device), torch.stack(labels).to(device)


def _own(image: Tensor, labels: Tensor) -> Callable[[], Pair]:
    generator = torch.Generator().manual_seed(_SEED)

    def work() -> Pair:
        moved, maps = augment(image, labels, _CONFIG, generator)
        return moved, labels if maps is None else maps

    return work


def _one_by_one(image: Tensor, labels: Tensor, change: Callable[[Tensor, Tensor], Pair]) -> Callable[[], Pair]:
    """The peer on every scan: (c, i, j, k) in, (c, i, j, k) out."""

    def work() -> Pair:
        done = [change(one, own) for one, own in zip(image, labels, strict=True)]
        return torch.stack([one for one, _ in done]), torch.stack([own for _, own in done])

    return work


def _monai() -> Callable[[Tensor, Tensor], Pair]:
    from monai.transforms import (
        Compose,
        Rand3DElasticd,
        RandAdjustContrastd,
        RandBiasFieldd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandScaleIntensityFixedMeand,
    )

    both, angle = ["image", "label"], math.radians(_DEGREES)
    low, high = _CONFIG.blur
    chain = Compose(
        [
            Rand3DElasticd(
                both,
                sigma_range=(6, 6),
                magnitude_range=(50, 150),
                prob=1,
                rotate_range=(angle,) * 3,
                scale_range=(0.15,) * 3,
                translate_range=(_SHIFT,) * 3,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandBiasFieldd("image", degree=3, coeff_range=(0.0, 0.1), prob=1),
            RandGaussianNoised("image", prob=1, std=0.05),
            RandGaussianSmoothd("image", (low, high), (low, high), (low, high), prob=1),
            RandScaleIntensityd("image", factors=0.25, prob=1),
            RandScaleIntensityFixedMeand("image", factors=0.35, prob=1),
            RandAdjustContrastd("image", gamma=_CONFIG.gamma, prob=1),
        ]
    )
    chain.set_random_state(_SEED)

    def change(image: Tensor, labels: Tensor) -> Pair:
        done = chain({"image": image, "label": labels})
        return torch.as_tensor(done["image"]), torch.as_tensor(done["label"])

    return change


def _torchio() -> Callable[[Tensor, Tensor], Pair]:
    import torchio

    chain = torchio.Compose(
        [
            torchio.RandomAffine(scales=_SCALE, degrees=_DEGREES, translation=_SHIFT),
            torchio.RandomElasticDeformation(num_control_points=10, max_displacement=5),
            torchio.RandomBiasField(0.2),
            torchio.RandomNoise(std=(0, 0.05)),
            torchio.RandomBlur(std=_CONFIG.blur),
            torchio.RandomGamma(log_gamma=(math.log(_CONFIG.gamma[0]), math.log(_CONFIG.gamma[1]))),
        ]
    )

    def change(image: Tensor, labels: Tensor) -> Pair:
        done = chain(torchio.Subject(image=torchio.ScalarImage(tensor=image), label=torchio.LabelMap(tensor=labels)))
        return done["image"].data, done["label"].data

    return change


def _batchgenerators(shape: tuple[int, ...]) -> Callable[[Tensor, Tensor], Pair]:
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

    angle = math.radians(_DEGREES)
    chain = ComposeTransforms(
        [
            SpatialTransform(
                shape,
                patch_center_dist_from_border=0,
                random_crop=False,
                p_elastic_deform=1,
                elastic_deform_scale=(0.1, 0.1),
                elastic_deform_magnitude=(0.03, 0.03),
                p_rotation=1,
                rotation=(-angle, angle),
                p_scaling=1,
                scaling=_SCALE,
                mode_seg="nearest",
            ),
            GaussianNoiseTransform((0, 0.0025), p_per_channel=1),
            GaussianBlurTransform(_CONFIG.blur, p_per_channel=1),
            MultiplicativeBrightnessTransform(_CONFIG.brightness, synchronize_channels=False, p_per_channel=1),
            ContrastTransform(_CONFIG.contrast, preserve_range=True, synchronize_channels=False, p_per_channel=1),
            GammaTransform(
                _CONFIG.gamma, p_invert_image=0, synchronize_channels=False, p_per_channel=1, p_retain_stats=0
            ),
        ]
    )

    def change(image: Tensor, labels: Tensor) -> Pair:
        done = chain(image=image, segmentation=labels.to(torch.int16))
        return done["image"], done["segmentation"]

    return change


def _alike(ways: dict[str, Callable[[], Pair]]) -> Rows:
    """What each gives in four draws: voxels, and how much of the brain is still in view."""
    rows: dict[str, dict[str, float | str]] = {"voxels": {}, "labelled voxels": {}, "labels": {}}
    for name, way in ways.items():
        draws = [way() for _ in range(4)]
        rows["voxels"][name] = draws[0][0].numel()
        rows["labelled voxels"][name] = float(np.mean([float((labels > 0).sum()) for _, labels in draws]))
        rows["labels"][name] = len(torch.unique(draws[0][1]))
    return rows
