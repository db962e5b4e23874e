"""Who develops the model and who tests it, and whether they can support what the configuration asks for."""

from __future__ import annotations

from medgen.data.cases import Manifest, split_subjects
from medgen.errors import ConfigError
from medgen.preprocessing.recipe import Preprocess
from medgen.seeds import derive

from .config import AnomalyRunConfig


def split(config: AnomalyRunConfig, manifest: Manifest) -> dict[str, Manifest]:
    """Development and test cases, after a look at whether they can support what the configuration asks for.

    Raises:
        CalibrationError: If the target false-positive rate needs more development subjects.
        ConfigError: If an excluded case is no development case, so that nothing would be excluded.
    """
    parts = split_subjects(
        manifest, {"development": 1 - config.test, "test": config.test}, derive(config.seed, "split")
    )
    known = {case.id for case in parts["development"]}
    strangers = [case for case in config.exclude if case not in known]
    if strangers:
        raise ConfigError(
            f"exclude: {strangers[0]!r} is no development case of this run; expected ids that splits.csv lists under a "
            "fold (contamination.csv names those that stand out), in double quotes where they begin with a zero"
        )
    kept = {case.subject for case in parts["development"] if case.id not in set(config.exclude)}
    if len(kept) < 2 * config.anomaly.folds and config.exclude:
        raise ConfigError(
            f"exclude: {len(config.exclude)} of {len(known)} development scans leave {len(kept)} subjects; expected at "
            f"least {2 * config.anomaly.folds} for {config.anomaly.folds} folds; exclude fewer"
        )
    config.anomaly.check_subjects(len(kept))
    return parts


def check_implants(config: AnomalyRunConfig, recipe: Preprocess) -> None:
    """Refuse implants that are larger than what the grid covers, before anything is trained to find them."""
    side = min(steps * step for steps, step in zip(recipe.shape, recipe.spacing, strict=True))
    settings = {"evaluation.radius_mm": config.evaluation, "anomaly.validation.radius_mm": config.anomaly.validation}
    if wrong := [name for name, own in settings.items() if 2 * own.radius_mm[1] > side]:
        fitting = f"[{side / 20:.2g},{side / 8:.2g}]"
        raise ConfigError(
            f"implants of up to {2 * settings[wrong[0]].radius_mm[1]:g} mm across do not fit a grid of {side:.3g} mm; "
            "set " + " ".join(f"{name}={fitting}" for name in wrong)
        )
