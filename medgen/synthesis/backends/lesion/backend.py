"""Labelled scans for focal disease: a drawn lesion, with drawn intensities, at a likely place of a real scan.

In the manner of GliGAN (Ferreira et al. 2024) and TumorCP (Yang et al., MICCAI 2021): forms come from a VAE-GAN over
signed-distance maps of the cohort's lesions (from warped real lesions where there are few), intensities from a
conditional GAN that fills a hole (:mod:`medgen.models.families.inpaint`), places from a kernel density. Outside of the
lesion's feathered border the scan is the host's, voxel for voxel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.errors import ArtifactError, DataError
from medgen.models.artifact import TrainedModel
from medgen.models.families.inpaint import Inpaint, fill_holes
from medgen.models.families.vaegan import VaeGan
from medgen.models.losses import labels_from_distance
from medgen.models.sampling import Options
from medgen.models.stored_arrays import Stored, load_stored, stored_kind
from medgen.seeds import numpy_rng, torch_rng
from medgen.synthesis.backend import Backend, BackendConfig, FitContext, Synthetic
from medgen.synthesis.backends.lesion import forms as lesions
from medgen.synthesis.backends.lesion.bank import Bank, LesionConfig, LesionSampling, build_bank, conditional_style
from medgen.synthesis.backends.lesion.training import inpaint_settings, shape_settings, train_inpainting, train_shapes
from medgen.synthesis.estimates import Outline, network_estimate
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware, Suitability
from medgen.system.files import sha256_json
from medgen.training.cost import Estimate
from medgen.training.trainer import device_of

Labels = NDArray[np.uint8]
_INPAINT, _SHAPES = "inpaint", "shapes"
_TRAININGS = ("inpaint_training", "shapes_training")
# Attempts before a sample is given up, or a drawn form is replaced by a real one.
_HOSTS_TRIED = 12
_TRIES = 40
_FORMS_TRIED = 8
# Lesions from which there is something to learn.
_LESIONS = 5


@final
class LesionBackend(Backend):
    """The trained backend: hosts, real lesions, places, and one or two networks."""

    name: ClassVar[str] = "lesion"
    derived: ClassVar[bool] = True
    Config: ClassVar[type[BackendConfig]] = LesionConfig
    Sampling: ClassVar[type[Options]] = LesionSampling
    sampling: LesionSampling
    tiny: ClassVar[Mapping[str, Any]] = {
        "shapes_from": 3,
        "variants": 2,
        "shapes": {"widths": (16, 32), "latent": 4, "narrow": 4, "discriminator_widths": (16, 16)},
        "shapes_training": {"steps": 2, "batch_size": 2, "log_every": 1},
        "inpaint": {"widths": (16, 32), "discriminator_widths": (16, 16), "margin": 1},
        "inpaint_training": {"steps": 2, "batch_size": 2, "log_every": 1},
        "overlap": True,
    }
    families: ClassVar[Mapping[str, str]] = {"shapes": VaeGan.family, "inpaint": Inpaint.family}
    turn: ClassVar[int] = 10

    def __init__(
        self,
        stored: Stored,
        inpaint: TrainedModel,
        shapes: TrainedModel | None,
        device: str = "auto",
        history: Sequence[Mapping[str, float]] = (),
    ) -> None:
        if stored.kind != self.name:
            raise ArtifactError(f"expected a {self.name!r} generator, found {stored.kind!r}")
        parts = {_INPAINT: inpaint.sha256, _SHAPES: None if shapes is None else shapes.sha256}
        if stored.meta["networks"] != parts:
            raise ArtifactError("the networks of the lesion generator are not those of its record; copy it whole")
        self._stored, self._inpaint_artifact, self._shapes_artifact = stored, inpaint, shapes
        self._config = LesionConfig.model_validate(stored.meta["config"])
        self.sampling = LesionSampling.of(self._config)
        self._bank = Bank.of(stored)
        self._history = tuple(history)
        self._sha256 = sha256_json([stored.sha256, parts])
        device_ = device_of(device)
        first, second = inpaint.models[0], None if shapes is None else shapes.models[0]
        if not isinstance(first, Inpaint) or not (second is None or isinstance(second, VaeGan)):
            raise ArtifactError("expected networks of the families 'inpaint' and 'vaegan'")
        # Artifacts stay on the CPU; networks in use may be elsewhere.
        self._inpaint, self._shapes = first.to(device_).eval(), None if second is None else second.to(device_).eval()
        self._device = device_

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
    def fit(cls, sources: Sources, config: LesionConfig, context: FitContext) -> LesionBackend:
        """Find the lesions, train both networks, and keep the hosts.

        Raises:
            DataError: If there is no lesion to learn from, a label is not in use, or unlabelled scans would become
                hosts though their organs are not labelled.
            ConfigError: If a network's setting is wrong.
            TrainingError: As :func:`medgen.training.trainer.fit`.
        """
        bank = build_bank(sources, config)
        shapes, shape_history = train_shapes(sources, bank, config, context)
        inpaint, history = train_inpainting(sources, bank, config, context)
        meta = {
            # Where sources lay is of no use elsewhere; what they were is kept with each network.
            "config": config.model_dump(mode="json", exclude={name: {"init"} for name in _TRAININGS}),
            "learnt_from": list(sources.ids),
            "preprocess": context.preprocess.model_dump(mode="json"),
            "contains_patient_scans": True,
            "networks": {_INPAINT: inpaint.sha256, _SHAPES: None if shapes is None else shapes.sha256},
            **bank.meta,
        }
        stored = Stored(cls.name, bank.arrays, meta)
        return cls(stored, inpaint, shapes, context.device, [*shape_history, *history])

    @classmethod
    def estimate(cls, config: LesionConfig, outline: Outline, device: str) -> Estimate:
        """Cost of both networks, on a crop as large as the label statistics say (the largest one without them)."""
        facts = [item for item in outline.facts if item.label in (config.lesion_labels or (item.label,))]
        facts = facts if config.lesion_labels else [item for item in facts if item.focal] or facts
        labels = len(config.lesion_labels or facts or outline.labels)
        largest = (config.largest_crop,) * 3
        extent = tuple(max(item.extent[axis] for item in facts) for axis in range(3)) if facts else largest
        crop = lesions.crop_for(extent, config.context, outline.shape, config.largest_crop)
        settings = inpaint_settings(config, crop, outline.channels, labels)
        total = network_estimate(f"{cls.name}, inpaint", settings, config.inpaint_training, device, labels)
        if not facts or sum(item.parts for item in facts) >= config.shapes_from:
            forms = shape_settings(config, crop, labels)
            total += network_estimate(f"{cls.name}, shapes", forms, config.shapes_training, device)
        hosts = float(outline.cohort_bytes)
        # A sample has up to so many lesions.
        return Estimate(total.seconds, total.bytes + hosts, total.lines, total.sample_seconds * config.most)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By the kind in the folder's record."""
        return stored_kind(folder) == cls.name

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> LesionBackend:
        """Read a saved backend.

        Raises:
            ArtifactError: If a file is missing or altered, or the networks belong to another generator.
        """
        stored = load_stored(folder)
        shapes = TrainedModel.load(folder / _SHAPES) if stored.meta["networks"][_SHAPES] else None
        return cls(stored, TrainedModel.load(folder / _INPAINT), shapes, device)

    def save(self, folder: Path) -> None:
        """Write the backend. The folder holds training scans: treat it like patient data."""
        self._inpaint_artifact.save(folder / _INPAINT)
        if self._shapes_artifact is not None:
            self._shapes_artifact.save(folder / _SHAPES)
        self._stored.save(folder)

    @property
    def sha256(self) -> str:
        """Digest of arrays, settings and networks."""
        return self._sha256

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """Records of both trainings, keys starting with ``shapes/`` or ``inpaint/``; empty after loading."""
        return self._history

    @property
    def starts(self) -> Mapping[str, Mapping[str, Any]]:
        """Those of both networks."""
        kept = {_SHAPES: self._shapes_artifact, _INPAINT: self._inpaint_artifact}
        found = {name: None if trained is None else trained.meta.get("init") for name, trained in kept.items()}
        return {f"{self.name} ({name})": record for name, record in found.items() if record is not None}

    def sample(self, seed: int) -> Synthetic:
        """A real scan with one or more new lesions.

        Raises:
            DataError: If no place was found in several hosts.
        """
        bank = self._bank
        rng = numpy_rng(seed, "lesion", "choice")
        for _ in range(_HOSTS_TRIED):
            host = int(rng.integers(len(bank.host_ids)))
            wanted = int(rng.choice(bank.counts)) - bank.host_counts[host]
            scan = _Scan.of(bank, host)
            for number in range(min(max(wanted, 1), self.sampling.most)):
                self._add(scan, rng, seed, number)
            if scan.volumes:
                return Synthetic(
                    image=scan.image,
                    labels=scan.labels,
                    backend=self.name,
                    seed=seed,
                    parents=tuple(dict.fromkeys((bank.host_ids[host], *scan.donors))),
                    facts={"lesion_voxels": scan.volumes, "changed_voxels": int(scan.region.sum())},
                    region=scan.region,
                    made=bank.labels,
                )
        raise DataError(
            f"no place for a lesion was found in {_HOSTS_TRIED} scans; set lesion.overlap=true or lower lesion.inside"
        )

    def _add(self, scan: _Scan, rng: np.random.Generator, seed: int, number: int) -> None:
        """One more lesion, if a place is found."""
        options, bank = self.sampling, self._bank
        form, donor = self._form(rng, seed, number)
        # One voxel apart: lesions that touch would be one. Those added before are never drawn over.
        taken = lesions.grown(scan.region if options.overlap else scan.existing > 0)
        placed = bank.places.put(form, scan.labels, scan.foreground, taken, rng, inside=options.inside, tries=_TRIES)
        if placed is None:
            return
        new = placed > 0
        scan.existing[new] = placed[new]
        scan.labels[new] = np.array([0, *bank.labels], dtype=np.uint8)[placed[new]]
        scan.volumes.append(int(new.sum()))
        scan.donors += [donor] if donor is not None else []
        centre = np.argwhere(new).mean(axis=0).round().astype(int)
        box = lesions.window(centre, bank.crop, _shape(new.shape))
        where = (slice(None), *box)
        weight = lesions.feather(placed[box], scan.foreground[box], self._inpaint.settings.margin)
        drawn = self._draw(scan.image[where], scan.existing[box], weight > 0, new[box], rng, (seed, number))
        high = float(bank.host_images.max())
        mixed = scan.image[where] + weight * (drawn - scan.image[where])
        scan.image[where] = np.where(weight > 0, mixed.clip(0, high), scan.image[where])
        scan.region[box] |= weight > 0

    def _draw(
        self,
        image: NDArray[np.float32],
        index: Labels,
        hole: NDArray[np.bool_],
        new: NDArray[np.bool_],
        rng: np.random.Generator,
        stream: tuple[int, int],
    ) -> NDArray[np.float32]:
        """Intensities for the hole of a crop, (c, i, j, k)."""
        x = torch.from_numpy(np.ascontiguousarray(image))[None]
        gap = torch.from_numpy(hole.astype(np.float32))[None, None]
        level = fill_holes(x, 1 - gap)[0, :, torch.from_numpy(new)].mean(dim=1).numpy()
        style = conditional_style(self._bank.styles, level, self.sampling.contrast, rng)
        count = self._inpaint.settings.n_labels + 1
        wanted = torch.from_numpy(style).reshape(1, count, 2 * len(level))
        # Standard deviations: a Gaussian's tail may be negative.
        wanted[..., len(level) :].clamp_(min=0)
        labels = torch.from_numpy(np.ascontiguousarray(index)).long()[None, None]
        generator = torch_rng(stream[0], "lesion", "texture", stream[1])
        device = self._device
        filled = self._inpaint.inpaint(x.to(device), gap.to(device), labels.to(device), wanted.to(device), generator)
        result: NDArray[np.float32] = filled[0].cpu().numpy()
        return result

    def _form(self, rng: np.random.Generator, seed: int, number: int) -> tuple[Labels, str | None]:
        """A lesion in the middle of a crop, and the case that lent its form, if any did."""
        bank, config = self._bank, self._config
        sizes = [int(np.count_nonzero(form)) for form in bank.forms]
        low, high = max(min(sizes) / 2, config.smallest), 2 * max(sizes)
        if self._shapes is not None:
            generator = torch_rng(seed, "lesion", "form", number)
            for _ in range(_FORMS_TRIED):
                distance = self._shapes.sample(1, generator).cpu()
                form = lesions.largest_part(labels_from_distance(distance)[0].numpy().astype(np.uint8))
                if low <= np.count_nonzero(form) <= high:
                    return form, None
        for _ in range(_FORMS_TRIED):
            donor = int(rng.integers(len(bank.forms)))
            form = lesions.deformed(bank.forms[donor], config.warp, rng)
            if low <= np.count_nonzero(form) <= high:
                return form, bank.form_ids[donor]
        donor = int(rng.integers(len(bank.forms)))
        return bank.forms[donor], bank.form_ids[donor]


@dataclass
class _Scan:
    """A host while lesions are added to it."""

    image: NDArray[np.float32]
    labels: Labels
    foreground: NDArray[np.bool_]
    existing: Labels
    region: NDArray[np.bool_]
    volumes: list[int] = field(default_factory=list)
    donors: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, bank: Bank, host: int) -> _Scan:
        labels = bank.host_labels[host].copy()
        return cls(
            image=bank.host_images[host].copy(),
            labels=labels,
            foreground=bank.host_foregrounds[host],
            existing=lesions.lesion_indices(labels, bank.labels),
            region=np.zeros(labels.shape, dtype=bool),
        )


def _shape(shape: tuple[int, ...]) -> lesions.Shape:
    i, j, k = shape
    return i, j, k
