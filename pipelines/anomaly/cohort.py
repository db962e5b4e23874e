"""Who develops the model and who tests it, and whether they can support what the configuration asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medgen.anomaly.normative.covariates import check_columns, choose_covariates
from medgen.data.cases import Manifest, kfold_subjects, split_subjects
from medgen.errors import ConfigError, DataError
from medgen.implants.regions import INSIDE
from medgen.preprocessing.automatic import fit_preprocess
from medgen.preprocessing.parts import PreparedParts
from medgen.preprocessing.recipe import Preprocess
from medgen.seeds import derive

from .config import AnomalyRunConfig


@dataclass(frozen=True, eq=False)
class AnomalyCohort:
    """A cohort as an anomaly run divides it.

    Attributes:
        parts: ``development`` and ``test`` cases, disjoint by subject.
        recipe: How scans are brought to the model grid, chosen from the development scans.
        folds: The development cases that are held out of each fold's models.
    """

    parts: Mapping[str, Manifest]
    recipe: Preprocess
    folds: tuple[Manifest, ...]


def divide(config: AnomalyRunConfig, parts: Mapping[str, Manifest]) -> AnomalyCohort:
    """Choose the recipe by the development scans, and who is held out of each fold.

    Args:
        config: What to run.
        parts: As :func:`split` makes them, of scans that are known to be sound.

    Raises:
        ConfigError: If implants do not fit the grid.
    """
    recipe = fit_preprocess(parts["development"], config.preprocess, config.max_side)
    _check_implants(config, recipe)
    folds = kfold_subjects(parts["development"], config.anomaly.folds, derive(config.seed, "fold"))
    return AnomalyCohort(parts, recipe, tuple(held for _, held in folds))


def split(config: AnomalyRunConfig, manifest: Manifest) -> dict[str, Manifest]:
    """Development and test cases, after a look at whether they can support what the configuration asks for.

    Raises:
        CalibrationError: If the target false-positive rate needs more development subjects.
        ConfigError: If an excluded case is no development case, so that nothing would be excluded, or a covariate is
            named that no development scan has.
        DataError: If all test scans are of people outside of what covariates are learnt of.
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
    _check_people(config, parts)
    left(config.without, manifest.channel_names)
    return parts


def left(without: Sequence[Sequence[str]], channels: Sequence[str]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """What is left where channels are missing: their names in the cohort's order → rows that are left.

    >>> left([["FLAIR"], ["T2", "T1"]], ["T1", "T2", "FLAIR"])
    {('FLAIR',): (0, 1), ('T1', 'T2'): (2,)}

    Raises:
        ConfigError: If a channel is unknown, a combination is empty or all there are, or one is named twice.
    """
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for names in without:
        known = ", ".join(channels)
        if strange := [name for name in names if name not in channels]:
            raise ConfigError(f"without: expected some of the contrasts {known}, found {strange[0]!r}")
        kept = tuple(row for row, name in enumerate(channels) if name not in names)
        if not names or not kept:
            raise ConfigError(
                f"without: expected one or more of the contrasts {known}, but not all, found {list(names)}"
            )
        key = tuple(name for name in channels if name in names)
        if key in found:
            raise ConfigError(f"without: [{', '.join(key)}] is there twice; keep one")
        found[key] = kept
    return found


def _check_people(config: AnomalyRunConfig, parts: Mapping[str, Manifest]) -> None:
    """Refuse covariates that nobody has, or that leave no test scan to evaluate, before anything is trained."""
    wanted = config.anomaly.normative.covariates
    developing = [case for case in parts["development"] if case.id not in set(config.exclude)]
    known = [case.attributes for case in developing]
    check_columns(wanted, known, config.data)
    covariates = choose_covariates(wanted, known, [case.subject for case in developing]).covariates
    problems = [] if covariates is None else [covariates.problem(case.attributes) for case in parts["test"]]
    if problems and all(problems):
        raise DataError(
            f"{config.data}: every one of the {len(problems)} test scans is of a person unlike the development "
            f"subjects; the first: {parts['test'].cases[0].id}: {problems[0]}; expected some that can be evaluated; "
            "correct the manifest, take another seed, or set anomaly.normative.covariates=none"
        )


def _check_implants(config: AnomalyRunConfig, recipe: Preprocess) -> None:
    """Refuse implants that are larger than what the grid covers, before anything is trained to find them."""
    side = min(steps * step for steps, step in zip(recipe.shape, recipe.spacing, strict=True))
    settings = {"evaluation.radius_mm": config.evaluation, "anomaly.validation.radius_mm": config.anomaly.validation}
    if wrong := [name for name, own in settings.items() if 2 * own.radius_mm[1] > side]:
        fitting = f"[{side / 20:.2g},{side / 8:.2g}]"
        raise ConfigError(
            f"implants of up to {2 * settings[wrong[0]].radius_mm[1]:g} mm across do not fit a grid of {side:.3g} mm; "
            "set " + " ".join(f"{name}={fitting}" for name in wrong)
        )


def check_room(config: AnomalyRunConfig, prepared: PreparedParts, recipe: Preprocess) -> None:
    """Refuse scans that show too little of a patient for the implants, before anything is trained to find them.

    Raises:
        DataError: Naming the scan, what it shows, and the setting.
    """
    voxel = math.prod(recipe.spacing) / 1000
    own = {"test": ("evaluation.radius_mm", config.evaluation.radius_mm)}
    if config.anomaly.validation.enabled:
        own["development"] = ("anomaly.validation.radius_mm", config.anomaly.validation.radius_mm)
    for part, (key, (_, largest)) in own.items():
        data, needed = prepared.data[part], INSIDE * 4 / 3 * math.pi * (largest / 10) ** 3
        for case, foreground in zip(data.ids, data.foregrounds, strict=True):
            shown = float(foreground.sum()) * voxel
            if shown < needed:
                raise DataError(
                    f"{case}: shows {shown:.3g} ml of a patient; expected at least {needed:.3g} ml, room for an "
                    f"implant of {largest:g} mm radius; leave the scan out, or set a smaller {key}"
                )
