"""Accepted scans as a cohort that segmentation tools read: nnU-Net layout, one provenance record per scan, a card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import medgen
from medgen import cards, files, io
from medgen.environment import commit
from medgen.errors import DataError
from medgen.synthesis.base import Backend, Sources
from medgen.synthesis.sampling import Candidate, Pool
from medgen.volume import Grid, Volume

DESCRIPTION = "SYNTHETIC medgen"
INTERNAL = "derived from patients: internal use only"
MODEL = "drawn from a model of patients: share only after a memorisation audit"


def export_pool(
    pool: Pool,
    out: Path,
    *,
    grid: Grid,
    sources: Sources,
    backends: Sequence[Backend],
    label_names: Mapping[int, str],
    seed: int,
    config_sha256: str,
    cohort: str,
    modality: str = "unknown",
    original_labels: Mapping[int, int] | None = None,
) -> list[Path]:
    """Write every accepted scan.

    Args:
        pool: Candidates; only accepted ones are written.
        out: New folder: ``imagesTr/<id>_0000.nii.gz`` (one file per channel), ``labelsTr/<id>.nii.gz``,
            ``provenance/<id>.json``, ``dataset.json``, ``card.md``.
        grid: The model grid around the origin.
        sources: What the generators learnt from.
        backends: The generators.
        label_names: Label → name.
        seed: Of the run.
        config_sha256: Digest of the run's configuration.
        cohort: Name of the cohort that was learnt from.
        modality: For ``dataset.json`` and the card.
        original_labels: Label → its number in the cohort's own masks, where the run had to renumber.

    Returns:
        The files written.

    Raises:
        DataError: If nothing was accepted, or a file cannot be written.
    """
    accepted = pool.accepted()
    if not accepted:
        raise DataError(f"{out}: no synthetic scan passed the filter; there is nothing to export")
    by_name = {backend.name: backend for backend in backends}
    written: list[Path] = []
    for candidate in accepted:
        written += _write_scan(candidate, out, grid)
        record = provenance(candidate, by_name[candidate.backend], sources, seed, config_sha256)
        record["files"] = {
            path.relative_to(out).as_posix(): files.sha256_file(path) for path in written[-_count(candidate) :]
        }
        written.append(out / "provenance" / f"{candidate.id}.json")
        files.write_json(written[-1], record)
    channels = _count(accepted[0]) - 1
    used = sorted({candidate.backend for candidate in accepted})
    files.write_json(
        out / "dataset.json",
        {
            "name": f"{cohort} synthetic",
            "description": f"SYNTHETIC labelled scans made by medgen ({', '.join(used)}); not for clinical use",
            "channel_names": {str(channel): modality for channel in range(channels)},
            "labels": {"background": 0, **{name: value for value, name in sorted(label_names.items())}},
            "numTraining": len(accepted),
            "file_ending": ".nii.gz",
            "original_labels": {str(label): number for label, number in (original_labels or {}).items()},
        },
    )
    derived = any(by_name[name].derived for name in used)
    files.write_text(
        out / "card.md", _card(accepted, used, grid, sources, by_name, label_names, seed, cohort, modality, derived)
    )
    return [*written, out / "dataset.json", out / "card.md"]


def provenance(
    candidate: Candidate, backend: Backend, sources: Sources, seed: int, config_sha256: str
) -> dict[str, Any]:
    """Where one synthetic scan comes from, as plain data that suffices to make it again."""
    synthetic = candidate.synthetic
    if synthetic is None:
        raise DataError(f"{candidate.id}: was never sampled")
    hashes = {name: dict(sources.hashes.get(name, {})) for name in synthetic.parents}
    source = commit()
    return {
        "id": candidate.id,
        "synthetic": True,
        "backend": backend.name,
        "generator_sha256": backend.sha256,
        "seed": candidate.seed,
        "run_seed": seed,
        "parents": [{"case": name, "sha256": hashes[name]} for name in synthetic.parents],
        "learnt_from": {"cases": len(sources.ids), "sha256": files.sha256_json(sorted(sources.ids))},
        "facts": dict(synthetic.facts),
        "filter": {"scores": dict(candidate.verdict.scores), "nearest_real": candidate.verdict.nearest},
        "content_sha256": {
            "image": hashlib.sha256(synthetic.image.tobytes()).hexdigest(),
            "labels": hashlib.sha256(synthetic.labels.tobytes()).hexdigest(),
        },
        "use": INTERNAL if backend.derived else MODEL,
        "config_sha256": config_sha256,
        "medgen": medgen.__version__,
        "commit": source.id,
        "dirty": source.dirty,
    }


def _count(candidate: Candidate) -> int:
    """Image files and the label file of one scan."""
    return 1 + (0 if candidate.synthetic is None else candidate.synthetic.image.shape[0])


def _write_scan(candidate: Candidate, out: Path, grid: Grid) -> list[Path]:
    synthetic = candidate.synthetic
    if synthetic is None:
        raise DataError(f"{candidate.id}: was never sampled")
    written = []
    for channel, data in enumerate(synthetic.image):
        path = out / "imagesTr" / f"{candidate.id}_{channel:04d}.nii.gz"
        io.write(Volume(data[None], grid), path, description=f"{DESCRIPTION} {candidate.backend}")
        written.append(path)
    path = out / "labelsTr" / f"{candidate.id}.nii.gz"
    io.write(Volume(synthetic.labels[None], grid), path, description=f"{DESCRIPTION} {candidate.backend} labels")
    return [*written, path]


def _card(
    accepted: Sequence[Candidate],
    used: Sequence[str],
    grid: Grid,
    sources: Sources,
    backends: Mapping[str, Backend],
    label_names: Mapping[int, str],
    seed: int,
    cohort: str,
    modality: str,
    derived: bool,
) -> str:
    subjects = len(set(sources.labelled.subjects))
    hashed = {name: dict(sources.hashes.get(name, {})) for name in sources.ids}
    return cards.synthetic_card(
        f"{cohort} synthetic",
        kind="synthetic",
        n_cases=len(accepted),
        n_subjects=len(accepted),
        spacing=grid.spacing,
        labels=label_names,
        seeds=[seed],
        generator=f"augment run, {' and '.join(used)}",
        description=f"Synthetic labelled scans, learnt from {subjects} labelled subjects of {cohort}.",
        modality=modality,
        licence="as the scans it was learnt from",
        known_biases=[
            f"made from {subjects} subjects: it cannot show anatomy that none of them hints at",
            "intensities are those of the preprocessing recipe, not of a scanner",
        ],
        privacy=INTERNAL if derived else MODEL,
        intended_use="training segmentation models beside real scans",
        not_for="testing or validation, and training without real scans",
        artifact_sha256=backends[used[0]].sha256
        if len(used) == 1
        else files.sha256_json({name: backends[name].sha256 for name in used}),
        parents_sha256=files.sha256_json(hashed),
        sections={
            "Composition": f"{len(accepted)} scans on a grid of {' x '.join(map(str, grid.shape))} voxels.\n\n"
            + "\n".join(f"- {name}: {sum(item.backend == name for item in accepted)} scans" for name in used),
            "Collection": "Sampled from generators and filtered: agreement of labels and image, volumes, components "
            "and centroids of labels, likeness to every training scan. Each scan has a record in provenance/ with "
            "its generator, seed, parents and filter scores.",
            "Use": "Mix with real training scans, on top of ordinary augmentation; keep out of validation and test.",
            "Limits": "Whether these scans help is measured in the report of the run that made them; on other data the "
            "answer may differ.",
        },
    )
