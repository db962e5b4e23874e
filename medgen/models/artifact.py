"""A trained model as it is kept: a folder of safetensors and JSON, hashed; loading it runs nothing that is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights

from medgen import __version__
from medgen.config import parse_config
from medgen.errors import ArtifactError, ConfigError, DataError, MedgenError
from medgen.models.base import ScanModel
from medgen.models.catalogue import build, family_class, parse_sampling, parse_settings
from medgen.models.stored_arrays import ARRAYS, UNUSABLE, arrays_to_bytes, check_hash, first_line, read_safetensors
from medgen.preprocessing.recipe import Preprocess, Template
from medgen.system.files import (
    plain,
    read_bytes,
    read_json,
    seal_holds,
    sealed,
    write_bytes,
    write_json,
)
from medgen.system.memory import readable_bytes
from medgen.system.new_folder import new_folder

MANIFEST = "artifact.json"
FORMAT = "medgen-artifact"
VERSION = 2
# What has been written since has the options of sampling beside the settings of models.
_WITHOUT_SAMPLING = 1
# Calibration tables are small; a larger file is not one of ours.
_JSON_LIMIT = 16 << 20
_TEMPLATE = "template."
# Of a weights file beside the numbers: names, shapes and offsets of its tensors.
_HEADER_LIMIT = 16 << 20


@dataclass
class TrainedModel:
    """One model, or the ensemble of a cross-fit, with all that is needed to use it on a new scan.

    >>> import tempfile
    >>> recipe = Preprocess(shape=(8, 8, 8), spacing=(2, 2, 2))
    >>> vae = build({"family": "vae", "shape": (8, 8, 8), "widths": (16, 16), "latent": 4}, seed=0)
    >>> trained = TrainedModel([vae], recipe, meta={"cohort": "mine"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = TrainedModel.load(trained.save(Path(folder, "model")))
    >>> loaded.preprocess == recipe, loaded.meta, loaded.sha256 == trained.sha256
    (True, {'cohort': 'mine'}, True)

    Attributes:
        models: Trained models, all for the same preprocessing.
        preprocess: The recipe that brings a scan to the models' grid.
        template: The cohort template, where the recipe registers to one.
        arrays: Further arrays by name, such as normative means on the model grid.
        meta: Plain data: kind, channels, calibration, provenance. Non-finite numbers become None.
        version: Form of the manifest. An artifact that was read keeps its own, and with it its digest.
    """

    models: list[ScanModel]
    preprocess: Preprocess
    template: Template | None = None
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def sha256(self) -> str:
        """The artifact's own digest, which covers every file: equal for equal content, before and after saving."""
        return str(self._manifest(self._files())["sha256"])

    def save(self, folder: str | Path) -> Path:
        """Write the artifact; the folder appears whole or not at all, and replaces an earlier artifact.

        Raises:
            ArtifactError: If the folder exists and is not an artifact, or cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise ArtifactError(f"{folder}: exists and is no artifact; choose another folder")
        files = self._files()
        try:
            with new_folder(folder, replaces=MANIFEST) as temporary:
                for name, content in files.items():
                    write_bytes(temporary / name, content)
                write_json(temporary / MANIFEST, self._manifest(files))
        except DataError as error:
            raise ArtifactError(str(error)) from error
        return folder

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> TrainedModel:
        """Read an artifact, check every hash, and build its models in evaluation mode.

        Raises:
            ArtifactError: If a file is missing, altered or unexpected, or the version, a family or a setting is not
                known; one line that names the file and what to do.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        files = _read_files(folder, manifest)
        try:
            preprocess = parse_config(Preprocess, manifest["preprocess"], source="preprocess")
            models = [
                _restore(*own, files[f"weights-{index}.safetensors"], f"{folder}/weights-{index}.safetensors")
                for index, own in enumerate(zip(manifest["models"], manifest["sampling"], strict=True))
            ]
            arrays = read_safetensors(load_arrays, files[ARRAYS], f"{folder / ARRAYS}")
            arrays = {name: array.copy() for name, array in arrays.items()}
            own = {name: array for name, array in arrays.items() if not name.startswith(_TEMPLATE)}
            parts = {name.removeprefix(_TEMPLATE): array for name, array in arrays.items() if name not in own}
            template = Template.from_arrays(parts) if parts else None
        except ArtifactError:
            raise
        except UNUSABLE as error:
            raise ArtifactError(f"{folder}: cannot be used by medgen {__version__}: {first_line(error)}") from None
        for model in models:
            model.to(device)
        return cls(models, preprocess, template, own, manifest["meta"], manifest["version"])

    def _files(self) -> dict[str, bytes]:
        """Content of every file but the manifest; the same bytes for the same numbers."""
        if not self.models:
            raise ArtifactError("an artifact needs at least one model")
        files = {f"weights-{index}.safetensors": _weights(model) for index, model in enumerate(self.models)}
        clash = [name for name in self.arrays if name.startswith(_TEMPLATE)]
        if clash:
            raise ArtifactError(f"array name {clash[0]!r} is reserved for the template; rename it")
        template = {} if self.template is None else self.template.to_arrays()
        arrays = {**self.arrays, **{_TEMPLATE + name: array for name, array in template.items()}}
        files[ARRAYS] = arrays_to_bytes(arrays)
        return files

    def _manifest(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        apart = self.version != _WITHOUT_SAMPLING
        manifest = {
            "format": FORMAT,
            "version": self.version,
            "medgen": __version__,
            "models": [
                model.settings.model_dump(mode="json") | ({} if apart else _former(model)) for model in self.models
            ],
            **({"sampling": [model.sampling.model_dump(mode="json") for model in self.models]} if apart else {}),
            "preprocess": self.preprocess.model_dump(mode="json"),
            "meta": plain(self.meta),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        return sealed(manifest)


def _weights(model: ScanModel) -> bytes:
    # Innermost channels are a matter of the machine; on disk every tensor is contiguous and owns its memory.
    state = model.state_dict()
    return save_weights({name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)})


def _restore(settings: Any, sampling: Any, content: bytes, name: str) -> ScanModel:
    # The initial weights are thrown away; with a seed the caller's random stream does not notice.
    model = build(settings, seed=0)
    model.sampling = parse_sampling(model.family, sampling)
    state = read_safetensors(load_weights, content, name)
    expected = model.state_dict()
    wrong = sorted({*state} ^ {*expected}) or [
        key
        for key in sorted(state)
        if state[key].shape != expected[key].shape or state[key].dtype != expected[key].dtype
    ]
    if wrong:
        raise ArtifactError(f"{name}: tensor {wrong[0]!r} does not fit the model {settings.get('family')!r}")
    unsound = [key for key, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if unsound:
        raise ArtifactError(f"{name}: tensor {unsound[0]!r} holds values that are not finite numbers; train again")
    model.load_state_dict(state)
    return model.eval()


def _weights_limit(settings: Any, name: str) -> int:
    """Most bytes that a weights file of these settings can have; nothing is allocated to find out.

    Raises:
        ArtifactError: If the settings are none, or such a model does not fit into memory.
    """
    if not isinstance(settings, Mapping):
        raise ArtifactError(f"{name}: its settings are no mapping; the artifact is of another program")
    try:
        config = parse_settings(settings)
        with torch.device("meta"):
            model = build(config, seed=0)
    except UNUSABLE as error:
        raise ArtifactError(f"{name}: its settings make no model ({first_line(error)}); restore it") from None
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > readable_bytes():
        raise ArtifactError(
            f"{name}: such a model takes {size / (1 << 20):.0f} MiB, more than half of what is free here"
        )
    return size + _HEADER_LIMIT


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; expected the model/ folder of a run")
    if not (folder / MANIFEST).exists():
        raise ArtifactError(f"{folder}: no {MANIFEST}; expected the model/ folder of a run")
    try:
        manifest = read_json(folder / MANIFEST, limit=_JSON_LIMIT)
    except MedgenError as error:
        raise ArtifactError(str(error)) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{folder / MANIFEST}: is not a medgen artifact")
    if manifest.get("version") not in (_WITHOUT_SAMPLING, VERSION):
        raise ArtifactError(
            f"{folder / MANIFEST}: version {manifest.get('version')!r}, this medgen reads {_WITHOUT_SAMPLING} and "
            f"{VERSION}; use the medgen that wrote it, or train again"
        )
    if (folder / MANIFEST).is_symlink() or not seal_holds(manifest):
        raise ArtifactError(f"{folder / MANIFEST}: was altered after it was written; restore it from a copy")
    kinds = {"files": dict, "models": list, "meta": dict, "preprocess": dict}
    if manifest["version"] == VERSION:
        kinds["sampling"] = list
    wrong = [key for key, kind in kinds.items() if not isinstance(manifest.get(key), kind)]
    if wrong or not manifest["models"]:
        raise ArtifactError(f"{folder / MANIFEST}: {(wrong or ['models'])[0]!r} is missing or of the wrong kind")
    if manifest["version"] == _WITHOUT_SAMPLING:
        parts = [_divided(own, f"{folder / MANIFEST}") for own in manifest["models"]]
        manifest["models"], manifest["sampling"] = [one for one, _ in parts], [other for _, other in parts]
    if len(manifest["sampling"]) != len(manifest["models"]) or not all(
        isinstance(own, dict) for own in manifest["sampling"]
    ):
        raise ArtifactError(f"{folder / MANIFEST}: 'sampling' is not one mapping for each model; restore it")
    return manifest


def _former(model: ScanModel) -> dict[str, Any]:
    """The options of sampling that were among a model's settings, as they were."""
    options = model.sampling.model_dump(mode="json")
    return {old: options[new] for old, new in type(model.sampling).formerly.items()}


def _divided(settings: Any, name: str) -> tuple[Any, dict[str, Any]]:
    """Settings as an earlier medgen wrote them, without the options of sampling that were among them, and these."""
    if not isinstance(settings, dict):
        return settings, {}
    try:
        former = family_class(str(settings.get("family"))).Sampling.formerly
    except ConfigError as error:
        raise ArtifactError(f"{name}: {error}") from None
    kept = {key: value for key, value in settings.items() if key not in former}
    return kept, {former[key]: value for key, value in settings.items() if key in former}


def _read_files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    hashes = manifest["files"]
    weights = {f"weights-{index}.safetensors": own for index, own in enumerate(manifest["models"])}
    if unknown := sorted({*hashes} ^ {ARRAYS, *weights}):
        raise ArtifactError(f"{folder / MANIFEST}: lists other files than the artifact has: {unknown[0][:100]!r}")
    present = {entry.name for entry in folder.iterdir() if entry.name != MANIFEST and not entry.name.startswith(".")}
    missing, extra = sorted({*hashes} - present), sorted(present - {*hashes})
    if missing:
        raise ArtifactError(f"{folder / missing[0]}: is missing; copy the whole folder")
    if extra:
        raise ArtifactError(f"{folder / extra[0]}: does not belong to the artifact; remove it")
    files = {}
    for name, expected in hashes.items():
        limit = readable_bytes() if name == ARRAYS else _weights_limit(weights[name], f"{folder / name}")
        try:
            # Hash and use the same bytes: nobody can swap the file in between.
            files[name] = read_bytes(folder / name, limit)
        except DataError as error:
            raise ArtifactError(str(error)) from None
        check_hash(files[name], expected, folder / name)
    return files
