"""The commands of ``medgen augment``."""

from __future__ import annotations

from .cli_common import (
    ConfigArgument,
    Device,
    DryRun,
    Overrides,
    Overwrite,
    Quiet,
    Resume,
    Seed,
    Workers,
    finish,
    group,
    load,
    plan,
)

augment_app = group("augment", "Labelled synthetic scans.", "Example: medgen augment run simulated data=cohort")


@augment_app.command("run", epilog="Example: medgen augment run hippocampus data=my-labelled-scans out=runs/augment")
def augment_run(
    config: ConfigArgument,
    overrides: Overrides = None,
    device: Device = None,
    seed: Seed = None,
    workers: Workers = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Train generators on labelled scans, sample, filter, and measure whether the samples help segmentation."""
    from . import augment as pipeline

    settings = load(pipeline.AugmentRunConfig, "augment", config, overrides, device, seed, workers)
    if dry_run:
        plan(pipeline.plan(settings))
    finish(pipeline.run(settings, resume=resume, overwrite=overwrite, progress=not quiet))


@augment_app.command("value", epilog="Example: medgen augment value default data=my-scans synthetic.other=their-scans")
def augment_value(
    config: ConfigArgument,
    overrides: Overrides = None,
    device: Device = None,
    seed: Seed = None,
    workers: Workers = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Measure what ordinary augmentation, synthetic scans made elsewhere, or those of an earlier run are worth."""
    from . import augment_value as pipeline

    settings = load(pipeline.ValueRunConfig, "value", config, overrides, device, seed, workers)
    if dry_run:
        plan(pipeline.plan(settings))
    finish(pipeline.run(settings, resume=resume, overwrite=overwrite, progress=not quiet))
