"""The audit stage of an augment run: accepted scans against all training scans, held-out ones as the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from medgen.preprocessing.dataset import join
from medgen.runs import tracking
from medgen.runs.folder import RunFolder
from medgen.runs.progress import bars
from medgen.seeds import derive
from medgen.synthesis.privacy.memorisation import audit_pool
from medgen.synthesis.privacy.results import Audit
from medgen.synthesis.privacy.saved_filter import FOLDER, FilterState, save_filter

from .config import AugmentRunConfig
from .generate import Generated, write_rejections
from .prepare import PreparedCohort, label_names


def audit_stage(
    config: AugmentRunConfig,
    prepared: PreparedCohort,
    generated: Generated,
    folder: RunFolder,
    stage: tracking.Run,
    cohort: str,
    original_labels: Mapping[int, int],
    *,
    progress: bool,
) -> tuple[Generated, Audit]:
    """Audit the accepted scans, take copies out of the pool, and keep what later sampling needs.

    Returns:
        The generators with the pool without copies, and the audit.
    """
    parts = [replace(prepared.data[name], labels=None) for name in ("validation", "test") if name in prepared.data]
    held_out = join(parts) if parts else None
    with bars(progress) as tick:
        audit = audit_pool(
            generated.pool,
            generated.backends,
            generated.filters,
            held_out,
            config.audit,
            seed=derive(config.seed, "audit"),
            tick=partial(tick, "memorisation audit"),
        )
    state = FilterState(
        filters=generated.filters,
        held_out=held_out,
        preprocess=prepared.preprocess,
        audit=config.audit,
        label_names=label_names(prepared),
        cohort=cohort,
        modality=config.modality_of(prepared.manifest.intake.channels),
        config_sha256=config.digest(),
        original_labels=original_labels,
        intake=prepared.manifest.intake,
    )
    save_filter(state, folder.model / FOLDER)
    stage.set_tags({"medgen.audit.verify.valid": str(audit.valid).lower()})
    for name, result in audit.backends.items():
        stage.set_tags({f"medgen.audit.verify.stamp.{name}": result.stamp})
        stage.log_metrics({f"{name}.flagged": len(result.flagged)})
    if audit.flagged:
        generated = replace(generated, pool=audit.clean(generated.pool))
        write_rejections(folder, generated.pool)
    return generated, audit
