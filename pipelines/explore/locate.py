"""Prepares the scans of an exploration and finds their codes; refuses what cannot be explored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.data.cases import Manifest
from medgen.errors import ArtifactError, ConfigError, DataError
from medgen.models.artifact import TrainedModel
from medgen.models.base import Interpolates
from medgen.models.catalogue import available, family_class
from medgen.models.exploration import Covariate, Manifold, codes_of, covariate
from medgen.preprocessing.dataset import Dataset, Failure, prepare_dataset
from medgen.report.html import Report
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.outputs import INPUTS, write_inputs
from medgen.training.trainer import device_of

from ..stages import FAILED, Stage, source_of
from .config import ExploreConfig


@dataclass(frozen=True, eq=False)
class Located:
    """Scans and their codes.

    Attributes:
        model: The model; it offers :class:`~medgen.models.base.Interpolates`.
        which: Its number among those of the artifact, from 1, and theirs.
        dataset: The scans that could be prepared.
        codes: Their codes, (n, d).
        training: Which of them the model learnt from, (n,).
        failures: Those that could not be prepared.
        manifold: Where the codes of the training scans lie.
        columns: The covariates to follow.
        learnt: Number of cases that the model learnt from, here or not.
        same: Whether the cohort is, file by file, the one that it was trained on.
    """

    model: Any
    which: tuple[int, int]
    dataset: Dataset
    codes: NDArray[np.float64]
    training: NDArray[np.bool_]
    failures: Sequence[Failure]
    manifold: Manifold
    columns: Sequence[Covariate]
    learnt: int
    same: bool

    def row(self, case: str) -> int:
        """Number of a case.

        Raises:
            DataError: If it could not be prepared.
        """
        if case not in self.dataset.ids:
            reason = next(failure.message for failure in self.failures if failure.case == case)
            raise DataError(f"case {case!r} cannot be used: {reason}")
        return self.dataset.ids.index(case)


class Locate(Stage[ExploreConfig]):
    """Prepares the scans and finds their codes."""

    name = "locate"
    needs = (TrainedModel, Manifest)
    makes = (Located,)

    def run(self, config: ExploreConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            DataError: If a case or a column is not there, or too few training scans are.
        """
        artifact, manifest = results[TrainedModel], results[Manifest]
        run.track.set_tags({"medgen.model.sha256": artifact.sha256})
        run.track.log_model_used(artifact.sha256)
        chosen = explorable(artifact, config.model)
        columns = [covariate(manifest, name) for name in config.along]
        learnt = learnt_from(artifact, config.model)
        used = manifest.subset(cases_of(manifest, learnt, config))
        read = {case.id: dict(zip(("image", "mask"), manifest.hashes_of(case), strict=True)) for case in used}
        read = {name: {part: value for part, value in parts.items() if value} for name, parts in read.items()}
        write_inputs(run.folder.out, read, source_of(config.model, artifact))
        with run.bars() as tick:
            dataset, failures = prepare_dataset(
                used,
                artifact.preprocess,
                artifact.template,
                workers=config.workers,
                progress=lambda done, total: tick("preparing", done, total),
            )
        run.folder.write_failures((failure.case, "preprocess", failure.message) for failure in failures)
        model: Any = artifact.models[chosen]
        codes = codes_of(model, dataset, device_of(config.device))
        training = np.isin(dataset.ids, learnt)
        subjects = [subject for subject, own in zip(dataset.subjects, training, strict=True) if own]
        manifold = Manifold.fit(codes[training], subjects)
        which, same = (chosen + 1, len(artifact.models)), manifest.digest() == artifact.meta.get("manifest_sha256")
        return [
            Located(model, which, dataset, codes, training, failures, manifold, columns, learnt=len(learnt), same=same)
        ]

    def datasets(self, config: ExploreConfig, results: Results) -> Mapping[str, Manifest]:
        """The scans whose codes are walked between."""
        return {"explored": results[Manifest].subset(results[Located].dataset.ids)}

    def outputs(self) -> tuple[Output, ...]:
        """What was read, and what could not be prepared."""
        return (
            Output(INPUTS, "the hashes of the scans and of the model, and the cases that the model was made from"),
            FAILED,
        )

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Which model, and which scans."""
        found, artifact = results[Located], results[TrainedModel]
        number, all_ = found.which
        report.facts(
            {
                "model (SHA-256)": artifact.sha256,
                "family": artifact.models[number - 1].family,
                **({"model of the ensemble": f"{number} of {all_}"} if all_ > 1 else {}),
                "length of the code": found.codes.shape[1],
                "training scans here": f"{int(found.training.sum())} of {found.learnt}",
                "cohort": "the one the model was trained on" if found.same else "not the very files of the training",
            }
        )
        if found.failures:
            report.table(["case", "reason"], [(item.case, item.message) for item in found.failures], "Left out")


def explorable(artifact: TrainedModel, path: Path) -> int:
    """Number of the first model of an artifact that has codes to walk between.

    Raises:
        ArtifactError: If none has.
    """
    for number, model in enumerate(artifact.models):
        if isinstance(model, Interpolates):
            return number
    able = ", ".join(name for name in available() if issubclass(family_class(name), Interpolates))
    raise ArtifactError(
        f"{path}: a {artifact.models[0].family} has no codes to walk between; expected a model of one of {able}"
    )


def learnt_from(artifact: TrainedModel, path: Path) -> list[str]:
    """Ids of the cases that an artifact's models learnt from.

    Raises:
        ArtifactError: If it does not say so.
    """
    cases = artifact.meta.get("cases")
    if not cases:
        raise ArtifactError(f"{path}: does not say which cases it learnt from; expected the model/ folder of a run")
    return [str(case) for case in cases]


def cases_of(manifest: Manifest, learnt: Sequence[str], config: ExploreConfig) -> list[str]:
    """The cases that a walk needs: those learnt from, and those named.

    Raises:
        ConfigError: If a scan is to be interpolated with itself.
        DataError: If a named case, or every case learnt from, is missing.
    """
    there = {case.id for case in manifest}
    named = [*(config.between or ()), *([config.at] if config.at else [])]
    if unknown := [name for name in named if name not in there]:
        raise DataError(
            f"{manifest.name}: no case {unknown[0]!r}; expected one such as {min(there)!r}; correct --between or --at"
        )
    if not (training := [name for name in learnt if name in there]):
        raise DataError(
            f"{config.data}: holds none of the {len(learnt)} cases that the model learnt from, such as {learnt[0]!r}; "
            "expected the cohort of its training; name that with --data"
        )
    if config.between and config.between[0] == config.between[1]:
        raise ConfigError(f"--between: expected two cases, found {config.between[0]!r} twice")
    return [*training, *(name for name in dict.fromkeys(named) if name not in set(training))]
