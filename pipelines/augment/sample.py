"""More scans from the generators of a finished run, under the same filter and the same audit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medgen.config import Config, parse_config
from medgen.errors import ConfigError
from medgen.progress import bars
from medgen.report.augment.audit import printed_audit
from medgen.runs import tracking
from medgen.runs.folder import RunSummary, open_run, unfinished
from medgen.runs.outputs import RECORD, write_inputs
from medgen.runs.run import Run
from medgen.synthesis.export.cohort import export_pool
from medgen.synthesis.export.further import Generators, run_models
from medgen.synthesis.export.layouts import Layout, check_layout
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.sources import Sources
from medgen.system.files import read_json, sha256_file, sha256_json

from .rejections import REJECTIONS, write_rejections

# A key that the configuration of no other command has.
SAMPLING = "generators"


class SampleConfig(Config):
    """What ``medgen augment sample`` was told, for its record.

    Attributes:
        model: Folder of the generators.
        generators: SHA-256 of each, by its name.
        out: Folder of the synthetic cohort.
        n: Accepted scans wanted in all.
        seed: Seed of the samples.
        layout: Of the cohort.
        attempts: Most samples per wanted scan.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        harmful: Whether scans of a run whose verdict is HARMFUL were wanted all the same.
        options: Options of sampling that are other than in the run.
    """

    model: Path
    generators: dict[str, str]
    out: Path
    n: int
    seed: int
    layout: str
    attempts: float
    device: str
    harmful: bool
    options: tuple[str, ...]


def run(
    model: Path,
    out: Path,
    *,
    n: int = 200,
    seed: int = 0,
    layout: Layout = "nnunet",
    attempts: float = 4.0,
    device: str = "auto",
    harmful: bool = False,
    options: Sequence[str] = (),
    progress: bool = False,
) -> RunSummary:
    """Sample, filter, audit and export.

    Args:
        model: ``model`` of a finished augment run, for all its backends, or ``model/<backend>`` for one.
        out: New or empty folder for the synthetic cohort, which has the record of this run beside the scans.
        n: Accepted scans wanted in all, spread evenly over the backends.
        seed: Seed of the samples; another seed gives other scans.
        layout: ``nnunet``, ``msd`` or ``bids``.
        attempts: Most samples per wanted scan.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        harmful: Whether scans of a run whose verdict is HARMFUL are wanted all the same.
        options: Options of sampling to be other than in the run, ``backend.option=value``; each scan's record has all.
        progress: Show progress bars.

    Returns:
        Exit code 1 if fewer scans than wanted were exported.

    Raises:
        ArtifactError: If there is no generator, or no state of filter and audit beside it, or one was altered.
        AuditError: If the audit refuses the export.
        ConfigError: If ``out`` is in use or lies in the run's folder, the layout cannot hold the scans, or there is no
            such option of sampling.
        DataError: If no scan was accepted, or the verdict of the run is HARMFUL and ``harmful`` is not set.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not unfinished(out, SAMPLING))):
        raise ConfigError(f"{out}: exists and is not empty; choose a new folder")
    folder = run_models(model)
    if out.resolve().is_relative_to(folder.parent.resolve()):
        raise ConfigError(
            f"{out}: lies in {folder.parent}, all of whose files the run has recorded; choose a folder elsewhere"
        )
    generators = Generators.of_run(model, device=device, harmful=harmful, options=options)
    check_layout(layout, generators.state.filters.sources.labelled.channels)
    told = {"model": model, "out": out, "n": n, "seed": seed, "layout": layout, "attempts": attempts, "device": device}
    made_by = {item.name: item.sha256 for item in generators.backends}
    config = parse_config(
        SampleConfig,
        {**told, SAMPLING: made_by, "harmful": harmful, "options": tuple(options)},
        source="command line",
    )
    settings = config.model_dump(mode="json")
    with (
        open_run(out, config, mark=SAMPLING) as opened,
        tracking.start("augment-sample", opened.out, config=settings, seed=seed, late=True) as track,
    ):
        with track.stage("sample"), bars(progress) as tick:
            pool, audit = generators.sample(n, seed, attempts, tick)
        with track.stage("export"):
            _write(pool, audit, generators, opened.out, seed, layout)
            write_inputs(opened.out, {}, _used(folder, generators))
        exported = sum(len(item.likeness) - len(item.flagged) for item in audit.backends.values())
        _track(track, pool, audit, generators, exported)
    lines = [
        *generators.left_out,
        f"{exported} of {n} wanted scans in {out}, {len(pool.candidates)} sampled",
        *printed_audit(audit),
        generators.verdict.sentence,
        *generators.chosen,
    ]
    return RunSummary(out, 0 if exported >= n else 1, tuple(lines))


def _track(track: Run, pool: CandidatePool, audit: Audit, generators: Generators, exported: int) -> None:
    track.set_tags({f"medgen.generator.{item.name}.sha256": item.sha256 for item in generators.backends})
    track.set_tags({"medgen.verdict": generators.verdict.word})
    track.set_tags({f"medgen.audit.stamp.{name}": result.stamp for name, result in audit.backends.items()})
    rejected = len(pool.rejected())
    track.log_metrics({"sampled": len(pool.candidates), "rejected": rejected, "exported": exported})
    words = [f"{exported} synthetic scans exported of {len(pool.candidates)} sampled.", generators.verdict.sentence]
    track.describe("\n\n".join([*words, *printed_audit(audit)]))


def _used(folder: Path, generators: Generators) -> dict[str, Any]:
    """The generators for the record: digests, weights, the run that trained them and what they learnt from."""
    own = {item.name: item.sha256 for item in generators.backends}
    out = folder.parent
    record = read_json(out / RECORD) if (out / RECORD).is_file() else {}
    weights = {
        path.relative_to(out).as_posix(): sha256_file(path)
        for name in own
        for path in sorted((folder / name).rglob("*.safetensors"))
    }
    sources: Sources = generators.state.filters.sources
    inputs = {name: dict(sources.hashes.get(name, {})) for name in sources.ids}
    return {
        "sha256": next(iter(own.values())) if len(own) == 1 else sha256_json(own),
        "generators": own,
        "weights": weights,
        "cases": list(sources.ids),
        "inputs": inputs,
        "run_id": record.get("run_id"),
        "config_sha256": generators.state.config_sha256,
    }


def _write(pool: CandidatePool, audit: Audit, generators: Generators, out: Path, seed: int, layout: Layout) -> None:
    state = generators.state
    export_pool(
        pool,
        out,
        audit=audit,
        grid=state.preprocess.canonical(),
        sources=state.filters.sources,
        backends=generators.backends,
        label_names=state.label_names,
        original_labels=state.original_labels,
        seed=seed,
        config_sha256=state.config_sha256,
        cohort=state.cohort,
        modality=state.modality,
        layout=layout,
        intake=state.intake,
        held_out=() if state.held_out is None else frozenset(state.held_out.subjects),
        verdict=generators.verdict,
    )
    write_rejections(out / "provenance" / REJECTIONS.name, audit.clean(pool))
