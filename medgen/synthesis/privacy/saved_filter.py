"""The filter as it is kept beside the generators, so that scans can be sampled later under the same checks.

The folder holds the training scans and the held-out scans of the run (as images): treat it like patient data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgen.config import parse_config
from medgen.data.intake import Intake
from medgen.errors import ArtifactError, MedgenError
from medgen.models.stored_arrays import RECORD, Stored, load_stored
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.segmentation.ensemble import segmenter_from_arrays, segmenter_to_arrays
from medgen.synthesis.filtering.copies import CopyBounds, Gallery
from medgen.synthesis.filtering.filter import Filter, FilterConfig
from medgen.synthesis.filtering.label_bounds import LabelBounds
from medgen.synthesis.privacy.memorisation import AuditConfig
from medgen.synthesis.sources import Sources

FOLDER = "filter"
_KIND = "filter"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class FilterState:
    """All that sampling from saved generators needs beside them.

    Attributes:
        filters: The filter.
        held_out: Held-out scans, used as images only; None if there were none.
        preprocess: The recipe of the model grid.
        audit: Settings of the audit.
        label_names: Label → name.
        cohort: Name of the cohort that was learnt from.
        modality: Modality of its scans, such as MR.
        config_sha256: Digest of the configuration of the run.
        original_labels: Label → its number in the cohort's own masks, where the run had to renumber.
        intake: How the cohort was found; names of channels and regions of labels are kept for exports.
    """

    filters: Filter
    held_out: Dataset | None
    preprocess: Preprocess
    audit: AuditConfig
    label_names: Mapping[int, str]
    cohort: str
    modality: str
    config_sha256: str
    original_labels: Mapping[int, int] = field(default_factory=dict)
    intake: Intake = field(default_factory=Intake)


def save_filter(state: FilterState, folder: Path) -> None:
    """Write ``folder`` (two files, hashed). It contains patients' scans."""
    filters, sources = state.filters, state.filters.sources
    arrays: dict[str, NDArray[Any]] = {}
    for name, data in _parts(sources, state.held_out).items():
        arrays |= _to_arrays(name, data)
    auditors = []
    for number, (segmenter, subjects) in enumerate(filters.auditors):
        arrays |= segmenter_to_arrays(f"auditor{number}.", segmenter)
        auditors.append({"classes": list(segmenter.classes), "subjects": sorted(subjects)})
    meta = {
        "config": filters.config.model_dump(mode="json"),
        "auditors": auditors,
        "agreement": dict(filters.agreement),
        "agreement_bound": filters.agreement_bound,
        "copies": asdict(filters.copies),
        "bounds": {str(label): item.to_plain() for label, item in filters.bounds.items()},
        "seen": {str(label): list(limits) for label, limits in filters.seen.items()},
        "labels": list(sources.labels),
        "hashes": {name: dict(value) for name, value in sources.hashes.items() if name in set(sources.ids)},
        "faces": sorted(sources.faces),
        "names": {
            name: {"ids": list(data.ids), "subjects": list(data.subjects)}
            for name, data in _parts(sources, state.held_out).items()
        },
        "preprocess": state.preprocess.model_dump(mode="json"),
        "audit": state.audit.model_dump(mode="json"),
        "label_names": {str(label): name for label, name in state.label_names.items()},
        "cohort": state.cohort,
        "modality": state.modality,
        "config_sha256": state.config_sha256,
        "original_labels": {str(label): number for label, number in state.original_labels.items()},
        "channels": list(state.intake.channels),
        "regions": {name: list(numbers) for name, numbers in state.intake.regions.items()},
        "class_order": list(state.intake.class_order),
        "contains_patient_scans": True,
    }
    Stored(_KIND, arrays, meta).save(folder)


def load_filter(folder: Path, device: str = "auto") -> FilterState:
    """Read what :func:`save_filter` wrote; no code in it is run.

    Raises:
        ArtifactError: If there is none, or it is incomplete, altered or of another version.
    """
    if not (folder / RECORD).is_file():
        raise ArtifactError(
            f"{folder.parent}: no {FOLDER}/ with the state of filter and audit, so no sample could be checked; "
            "expected the model folder of a finished augment run"
        )
    stored = load_stored(folder)
    if stored.kind != _KIND:
        raise ArtifactError(f"{folder}: holds a {stored.kind!r}, expected the filter of an augment run")
    try:
        return _restore(stored, device)
    except ArtifactError:
        raise
    except (MedgenError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{folder}: cannot be used by this medgen ({error}); run the pipeline again") from None


def _restore(stored: Stored, device: str) -> FilterState:
    meta, arrays = stored.meta, stored.arrays
    parts = {name: _from_arrays(name, about, arrays) for name, about in meta["names"].items()}
    sources = Sources(
        parts["labelled"],
        parts.get("unlabelled"),
        tuple(meta["labels"]),
        meta["hashes"],
        parts.get("consensus"),
        faces=frozenset(meta["faces"]),
    )
    config = parse_config(FilterConfig, meta["config"], source="filter")
    auditors = []
    for number, about in enumerate(meta["auditors"]):
        prefix, classes = f"auditor{number}.", [int(value) for value in about["classes"]]
        segmenter = segmenter_from_arrays(prefix, arrays, config.auditor, sources.labelled.channels, classes, device)
        auditors.append((segmenter, frozenset(about["subjects"])))
    filters = Filter(
        config=config,
        sources=sources,
        auditors=tuple(auditors),
        agreement=meta["agreement"],
        agreement_bound=float(meta["agreement_bound"]),
        copies=_bounds(meta["copies"]),
        bounds={int(label): LabelBounds.from_plain(value) for label, value in meta["bounds"].items()},
        seen={int(label): _limits(value) for label, value in meta["seen"].items()},
        gallery=Gallery(sources.images, sources.ids, sources.owners),
    )
    return FilterState(
        filters=filters,
        held_out=parts.get("held_out"),
        preprocess=parse_config(Preprocess, meta["preprocess"], source="preprocess"),
        audit=parse_config(AuditConfig, meta["audit"], source="audit"),
        label_names={int(label): name for label, name in meta["label_names"].items()},
        cohort=meta["cohort"],
        modality=meta["modality"],
        config_sha256=meta["config_sha256"],
        original_labels={int(label): int(number) for label, number in meta["original_labels"].items()},
        # Runs of earlier versions did not keep these.
        intake=Intake(
            channels=tuple(meta.get("channels", ())),
            regions={name: tuple(numbers) for name, numbers in meta.get("regions", {}).items()},
            class_order=tuple(meta.get("class_order", ())),
        ),
    )


def _limits(value: Sequence[float | None]) -> tuple[float, float]:
    low, high = (float("nan") if item is None else float(item) for item in value)
    return low, high


def _bounds(data: Mapping[str, Any]) -> CopyBounds:
    # NaN is null in JSON.
    values = {key: float("nan") if value is None else float(value) for key, value in data.items() if key != "subjects"}
    return CopyBounds(values["copy"], values["identity"], values["typical"], values["highest"], int(data["subjects"]))


def _parts(sources: Sources, held_out: Dataset | None) -> dict[str, Dataset]:
    named = {
        "labelled": sources.labelled,
        "unlabelled": sources.unlabelled,
        "consensus": sources.consensus,
        "held_out": held_out,
    }
    return {name: data for name, data in named.items() if data is not None}


def _to_arrays(name: str, data: Dataset) -> dict[str, NDArray[Any]]:
    """The tensors of a part; images at half precision, which is what the copy check sees."""
    packed = {
        f"{name}.images": data.images.half().numpy(),
        f"{name}.foregrounds": data.foregrounds.to(torch.uint8).numpy(),
    }
    if data.labels is not None and name != "held_out":
        packed[f"{name}.labels"] = data.labels.numpy()
    if data.confidence is not None:
        packed[f"{name}.confidence"] = data.confidence.numpy()
    return packed


def _from_arrays(name: str, about: Mapping[str, Any], arrays: Arrays) -> Dataset:
    def tensor(key: str) -> torch.Tensor | None:
        full = f"{name}.{key}"
        return torch.from_numpy(np.array(arrays[full])) if full in arrays else None

    images, foregrounds = tensor("images"), tensor("foregrounds")
    if images is None or foregrounds is None:
        raise ArtifactError(f"the filter lacks the scans of {name!r}; restore it from a copy")
    return Dataset(
        ids=tuple(about["ids"]),
        subjects=tuple(about["subjects"]),
        images=images.float(),
        foregrounds=foregrounds.bool(),
        labels=tensor("labels"),
        confidence=tensor("confidence"),
    )
