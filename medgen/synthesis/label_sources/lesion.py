"""Labels of real scans with focal lesions added: drawn forms at likely places.

In the manner of GliGAN (Ferreira et al. 2024) and TumorCP (Yang et al., MICCAI 2021): forms come from a VAE-GAN over
signed-distance maps of the cohort's lesions (from warped real lesions where there are few), places from a kernel
density. The scan comes along as it was; the painter ``inpaint`` changes it where a lesion was added.

Source: Ferreira et al., "How we won BraTS 2023 adult glioma challenge? Just faking it!", 2024; Yang et al., "TumorCP: a
simple but effective object-level data augmentation for tumor segmentation", MICCAI 2021.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from medgen.config import Config
from medgen.errors import DataError
from medgen.models.base import ModelConfig
from medgen.models.catalogue import build, parse_settings
from medgen.models.families.vaegan import VaeGan
from medgen.models.losses import labels_from_distance
from medgen.models.sampling import SamplingConfig
from medgen.models.stored_arrays import Stored
from medgen.seeds import derive, numpy_rng, torch_rng
from medgen.synthesis.backend import FitContext
from medgen.synthesis.estimates import Outline, network_estimate
from medgen.synthesis.label_source import Added, Anatomy, LabelSource, Scan
from medgen.synthesis.lesions.crops import draws_of_a_style, training_forms
from medgen.synthesis.lesions.focal import Focal, FocalConfig, expected_lesions, focal_lesions
from medgen.synthesis.lesions.forms import (
    Labels,
    Places,
    Shape,
    deformed,
    feather,
    grown,
    largest_part,
    lesion_indices,
    window,
)
from medgen.synthesis.lesions.hosts import Hosts, choose_hosts
from medgen.synthesis.networks import kept_network, train_network
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability
from medgen.training.cost import Estimate
from medgen.training.trainer import FitResult, TrainingConfig

SHAPES = "shapes"
# Attempts before a sample is given up, or a drawn form is replaced by a real one.
_HOSTS_TRIED = 12
_TRIES = 40
_FORMS_TRIED = 8
# Lesions from which there is something to learn.
_LESIONS = 5
# Choosing a host and copying it.
_SECONDS = 1e-3


class LesionSampling(SamplingConfig):
    """Settings of added lesions that can be chosen anew at sampling.

    Attributes:
        most: Most lesions added to a scan; how many follows the real scans' numbers.
        overlap: Whether a new lesion may lie on an existing one.
        inside: Least share of a lesion that must lie in the foreground.
    """

    most: int = Field(default=3, ge=1)
    overlap: bool = False
    inside: float = Field(default=0.95, ge=0, le=1)


class LesionConfig(LesionSampling, FocalConfig):
    """Settings of labels with added lesions; those of :class:`LesionSampling` can be chosen anew at sampling.

    Attributes:
        shapes_from: Lesions from which on a VAE-GAN of forms is trained; below, forms are warped real lesions.
        variants: Warped copies of each lesion that the VAE-GAN learns from.
        warp: Strength of these warps, as a share of the crop's shortest side.
        shapes: Settings of the family ``vaegan``; shape and channels are filled in.
        shapes_training: How it is trained.
        truncation: Voxels at which signed distances are cut off.
        unlabelled_hosts: Which unlabelled scans get lesions. ``consensus``: those with credible inferred labels;
            ``healthy``: all, because you know that they have none of the labelled lesions (only where every label is
            focal: an unlabelled organ would be taught as background); ``none``.
        host_confidence: Mean confidence in the foreground that a scan with inferred labels must have.
    """

    shapes_from: int = Field(default=20, ge=3)
    variants: int = Field(default=8, ge=1)
    warp: float = Field(default=0.04, ge=0, le=0.2)
    shapes: dict[str, Any] = Field(default_factory=lambda: {"widths": (16, 32, 64), "latent": 32})
    shapes_training: TrainingConfig = TrainingConfig(steps=400, batch_size=8, betas=(0.5, 0.99), ema=0.99, augment=None)
    truncation: int = Field(default=4, ge=1, le=11)
    unlabelled_hosts: Hosts = "consensus"
    host_confidence: float = Field(default=0.9, ge=0, le=1)


@final
class LesionLabels(LabelSource):
    """Hosts, real lesions, places, and a network of forms where there are lesions enough for one."""

    name: ClassVar[str] = "lesion"
    derived: ClassVar[bool] = True
    brings: ClassVar[Scan] = Scan.HOST
    Config: ClassVar[type[Config]] = LesionConfig
    Sampling: ClassVar[type[SamplingConfig]] = LesionSampling
    sampling: LesionSampling
    tiny: ClassVar[Mapping[str, Any]] = {
        "shapes_from": 3,
        "variants": 2,
        "shapes": {"widths": (16, 32), "latent": 4, "narrow": 4, "discriminator_widths": (16, 16)},
        "shapes_training": {"steps": 2, "batch_size": 2, "log_every": 1},
        "overlap": True,
        "margin": 1,
    }
    families: ClassVar[Mapping[str, str]] = {SHAPES: VaeGan.family}
    turn: ClassVar[int] = 10

    def prepare(self) -> None:
        """Places, and the network of forms if there is one."""
        arrays, meta = self.stored.arrays, self.stored.meta
        self._config = LesionConfig.model_validate(meta["config"])
        self._shapes = self.network(SHAPES, VaeGan) if SHAPES in meta["parts"] else None
        self._places = Places(np.array(arrays["centroids"]), tuple(meta["surroundings"]))
        self._numbers = np.array([0, *meta["lesion_labels"]], dtype=np.uint8)

    @classmethod
    def settings_in(cls, stored: Stored) -> Mapping[str, Any]:
        """Those of its ``Config``."""
        config: Mapping[str, Any] = stored.meta["config"]
        return config

    @classmethod
    def suits(cls, outline: Outline, machine: Hardware, cared_for: Collection[int]) -> Suitability | None:
        """For focal labels, which then need no other backend, if there are lesions enough to learn from."""
        focal = [item for item in outline.facts if item.focal]
        if not focal:
            return None
        count, labels = sum(item.parts for item in focal), tuple(item.label for item in focal)
        *first, last = map(str, labels)
        names = f"{', '.join(first)} and {last}" if first else last
        if count < _LESIONS:
            return Suitability(False, f"{count} lesions of label {names}, it needs {_LESIONS}")
        why = (
            f"label {names} is focal, {count} lesions in {outline.labelled} scans; new ones are drawn into real scans "
            "at places where lesions occur"
        )
        return Suitability(True, why, labels)

    @classmethod
    def estimate(cls, config: LesionConfig, outline: Outline, device: str, name: str) -> Estimate:
        """Cost of the network of forms, if there are lesions enough for one, and of keeping the hosts."""
        crop, labels, facts = expected_lesions(config, outline)
        hosts = float(outline.cohort_bytes)
        if facts and sum(item.parts for item in facts) < config.shapes_from:
            return Estimate(0.0, hosts, (), _SECONDS)
        total = network_estimate(
            f"{name}, shapes", shape_settings(config, crop, labels), config.shapes_training, device
        )
        # A sample has up to so many lesions.
        return Estimate(total.seconds, total.bytes + hosts, total.lines, total.sample_seconds * config.most)

    @classmethod
    def fit(cls, sources: Sources, config: LesionConfig, context: FitContext) -> LesionLabels:
        """Find the lesions, train the network of their forms, and keep the hosts.

        Raises:
            DataError: If there is no lesion to learn from, a label is not in use, or unlabelled scans would become
                hosts though their organs are not labelled.
            ConfigError: If a network's setting is wrong.
            TrainingError: As :func:`medgen.training.trainer.fit`.
        """
        focal = focal_lesions(sources, config)
        hosts, counts = choose_hosts(sources, focal, config.unlabelled_hosts, config.host_confidence, config.smallest)
        if hosts.labels is None:
            raise DataError("synthesis needs training scans with masks")
        result = _train(sources, focal, config, context)
        trained = {} if result is None else {SHAPES: kept_network(result, sources, context)}
        per_scan = np.bincount([lesion.row for lesion in focal.found])
        guessed = frozenset(() if sources.consensus is None else sources.consensus.ids)
        arrays = {
            "host_images": hosts.images.numpy(),
            "host_labels": hosts.labels[:, 0].numpy(),
            "host_views": hosts.foregrounds[:, 0].numpy(),
            "forms": focal.forms,
            "centroids": np.array([lesion.place for lesion in focal.found]),
        }
        meta = {
            # Where a source lay is of no use elsewhere; what it was is kept with the network.
            "config": config.model_dump(mode="json", exclude={"shapes_training": {"init"}}),
            "learnt_from": list(sources.ids),
            "contains_patient_scans": True,
            "lesion_labels": list(focal.labels),
            "crop": list(focal.crop),
            "hosts": list(hosts.ids),
            "inferred_labels": sorted(guessed.intersection(hosts.ids)),
            "host_counts": list(counts),
            "form_ids": [sources.labelled.ids[lesion.row] for lesion in focal.kept],
            "counts": [int(count) for count in per_scan if count],
            "surroundings": sorted({lesion.surrounding for lesion in focal.found}),
        }
        history = () if result is None else result.history
        return cls(cls.record(arrays, meta, trained), trained, history, context.device)

    @torch.no_grad()
    def draw(self, seed: int) -> Anatomy:
        """A real scan's labels with one or more new lesions.

        Raises:
            DataError: If no place was found in several hosts.
        """
        arrays, meta = self.stored.arrays, self.stored.meta
        rng = numpy_rng(seed, "lesion", "choice")
        for _ in range(_HOSTS_TRIED):
            row = int(rng.integers(len(meta["hosts"])))
            wanted = int(rng.choice(meta["counts"])) - meta["host_counts"][row]
            host = _Host(np.array(arrays["host_labels"][row]), np.array(arrays["host_views"][row]) > 0)
            for number in range(min(max(wanted, 1), self.sampling.most)):
                self._add(host, rng, seed, number)
            if host.added:
                return Anatomy(
                    labels=host.labels,
                    parents=tuple(dict.fromkeys((meta["hosts"][row], *host.donors))),
                    view=host.view,
                    inferred=meta["hosts"][row] in meta["inferred_labels"],
                    image=np.array(arrays["host_images"][row]),
                    added=tuple(host.added),
                    made=tuple(meta["lesion_labels"]),
                    facts={"labels": "added", "lesion_voxels": [int(item.new.sum()) for item in host.added]},
                )
        raise DataError(
            f"no place for a lesion was found in {_HOSTS_TRIED} scans; set lesion.overlap=true or lower lesion.inside"
        )

    def _add(self, host: _Host, rng: np.random.Generator, seed: int, number: int) -> None:
        """One more lesion, if a place is found."""
        config, meta, arrays = self._config, self.stored.meta, self.stored.arrays
        form, donor = self._form(rng, seed, number)
        # One voxel apart: lesions that touch would be one. Those added before are never drawn over.
        existing = host.changed if self.sampling.overlap else lesion_indices(host.labels, meta["lesion_labels"]) > 0
        taken = grown(existing)
        placed = self._places.put(form, host.labels, host.view, taken, rng, inside=self.sampling.inside, tries=_TRIES)
        if placed is None:
            return
        new = placed > 0
        host.labels[new] = self._numbers[placed[new]]
        host.donors += [donor] if donor is not None else []
        centre = np.argwhere(new).mean(axis=0).round().astype(int)
        box = window(centre, _shape(meta["crop"]), _shape(new.shape))
        weight = feather(placed[box], host.view[box], config.margin)
        host.changed[box] |= weight > 0
        channels = arrays["host_images"].shape[1]
        looks = rng.standard_normal(draws_of_a_style(len(arrays["forms"]), len(meta["lesion_labels"]), channels))
        host.added.append(Added(box, host.labels[box].copy(), new[box], weight, looks))

    def _form(self, rng: np.random.Generator, seed: int, number: int) -> tuple[Labels, str | None]:
        """A lesion in the middle of a crop, and the case that lent its form, if any did."""
        config, forms, owners = self._config, self.stored.arrays["forms"], self.stored.meta["form_ids"]
        sizes = [int(np.count_nonzero(form)) for form in forms]
        low, high = max(min(sizes) / 2, config.smallest), 2 * max(sizes)
        if self._shapes is not None:
            generator = torch_rng(seed, "lesion", "form", number)
            for _ in range(_FORMS_TRIED):
                distance = self._shapes.sample(1, generator).cpu()
                form = largest_part(labels_from_distance(distance)[0].numpy().astype(np.uint8))
                if low <= np.count_nonzero(form) <= high:
                    return form, None
        for _ in range(_FORMS_TRIED):
            donor = int(rng.integers(len(forms)))
            form = deformed(forms[donor], config.warp, rng)
            if low <= np.count_nonzero(form) <= high:
                return form, owners[donor]
        donor = int(rng.integers(len(forms)))
        return forms[donor], owners[donor]


@dataclass
class _Host:
    """A scan's labels while lesions are added to them."""

    labels: Labels
    view: NDArray[np.bool_]
    added: list[Added] = field(default_factory=list)
    donors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changed = np.zeros(self.labels.shape, dtype=bool)


def shape_settings(config: LesionConfig, crop: Shape, labels: int) -> ModelConfig:
    """Settings of the network that draws forms.

    Raises:
        ConfigError: If a setting is unknown or wrong.
    """
    return parse_settings({**config.shapes, "family": VaeGan.family, "in_channels": labels, "shape": crop})


def _train(sources: Sources, focal: Focal, config: LesionConfig, context: FitContext) -> FitResult | None:
    """The VAE-GAN of forms over truncated signed distances; None where there are too few lesions for one."""
    if len(focal.forms) < config.shapes_from:
        return None
    data = training_forms(focal, config.variants, config.warp, config.smallest, config.truncation, context.seed)
    settings = shape_settings(config, focal.crop, len(focal.labels))
    model = build(settings, seed=derive(context.seed, "lesion", SHAPES, "weights"))
    return train_network(model, data, config.shapes_training, context, "lesion", SHAPES)


def _shape(sizes: Any) -> Shape:
    i, j, k = (int(size) for size in sizes)
    return i, j, k
