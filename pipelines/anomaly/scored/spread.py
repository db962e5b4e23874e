"""Scans scored in shards: each by some worker, which writes its files and page; the index is made here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from medgen.anomaly.artifact import from_artifact
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.export.bids import BidsName
from medgen.models.artifact import TrainedModel
from medgen.report.anomaly.pictures import Scored
from medgen.report.anomaly.scored.opening import Scorer
from medgen.report.anomaly.scored.scoring import ScoredCase
from medgen.runs.cases.manifest import Item
from medgen.runs.cases.map_cases import Spread, map_cases
from medgen.runs.context import RunContext
from medgen.training.trainer import device_of

from ...given_scans import GivenScan
from ..known_scans import known_scans
from ..people import Person
from ..score_config import ScoreConfig
from .dicom_objects import DicomObjects
from .done_scans import DoneScans
from .exports import Exports
from .kept_cases import KeptCase, KeptCases, plain_of
from .viewers import Viewers

Failure = tuple[str, str, str]
Attempt = Callable[
    [AnomalyDetector, str, GivenScan, Sequence[str], ScoreConfig, Person],
    Scored | Failure,
]


@dataclass(frozen=True)
class ScanTask:
    """A scan as its worker gets it.

    Attributes:
        name: Its case.
        scan: The files.
        person: Whose scan it is.
        known: Hashes of what is read.
        bids: What BIDS calls it.
    """

    name: str
    scan: GivenScan
    person: Person
    known: Mapping[str, str]
    bids: BidsName


@dataclass(frozen=True)
class ScoreOne:
    """Scores a scan, in whichever process; the detector is loaded once by each.

    Attributes:
        config: What the scoring was told.
        attempt: Scores a scan, or says why not.
        at_level: The detector with the level of findings that was asked for.
        viewers: Which scans get a viewer.
        limits: What a page says that results do not show.
        scorer: What pages say of the model.
    """

    config: ScoreConfig
    attempt: Attempt
    at_level: Callable[[AnomalyDetector, float | None], AnomalyDetector]
    viewers: str
    limits: str
    scorer: Scorer

    @cached_property
    def _loaded(self) -> tuple[TrainedModel, AnomalyDetector]:
        artifact = TrainedModel.load(self.config.model, device_of(self.config.device))
        return artifact, self.at_level(from_artifact(artifact, self.config.model), self.config.false_findings)

    @cached_property
    def _learnt(self) -> dict[str, str]:
        return known_scans(self._loaded[0])

    def __call__(self, task: ScanTask, place: Path) -> dict[str, Any]:
        """What the index needs of a scan, or why it was not scored; its files and its page are below ``place``."""
        artifact, detector = self._loaded
        channels = tuple(artifact.meta.get("channels") or ())
        entry = self.attempt(detector, task.name, task.scan, channels, self.config, task.person)
        if not isinstance(entry, Scored):
            return {"failure": list(entry)}
        caught = _Caught(place, place, {})
        writers = (
            Viewers(place, self.viewers),
            DicomObjects(place, self.config.dicom, channels, artifact.sha256),
            Exports(place, self.config.export, channels, artifact.sha256, {task.name: task.bids}),
        )
        DoneScans(detector, place, caught, *writers, True, self.limits, self.scorer, self._learnt).add(
            entry, task.scan, task.known, task.person
        )
        kept = caught.kept[0]
        return plain_of({"case": kept.case, "said": kept.said, "rows": kept.rows, "files": kept.files})


@dataclass(frozen=True)
class _Caught(KeptCases):
    """Holds what would be kept on disk: the shard keeps it."""

    kept: list[KeptCase] = field(default_factory=list)

    def keep(self, kept: KeptCase, files: Mapping[str, str]) -> None:
        del files
        self.kept.append(kept)


def spread_scans(
    function: ScoreOne,
    tasks: Iterator[ScanTask],
    count: int,
    done: DoneScans,
    spread: Spread,
    run: RunContext,
    about: Mapping[str, Any],
) -> list[Failure]:
    """Score scans in shards.

    Args:
        function: Scores one.
        tasks: The scans.
        count: How many there are.
        done: Takes over what is done, in the order of the scans.
        spread: Where they are scored.
        run: The run, whose folder all workers reach.
        about: All but the scan that results depend on: model, settings, version.

    Returns:
        Case, stage and reason of those that were not scored.

    Raises:
        ConfigError: If the folder holds shards of other settings.
        DataError: If it cannot be written.
        TrainingError: If the worker of a shard has died several times.
    """
    failures: list[Failure] = []
    writing = function.config.model_dump(mode="json", include={"dicom", "export"})
    with run.bars() as tick:
        found = map_cases(
            function,
            (Item(task.name, task, task.known) for task in tasks),
            count=count,
            folder=run.folder.checkpoints / "shards",
            settings={"work": "anomaly score", **about, **writing, "viewers": function.viewers},
            spread=spread,
            out=run.folder.out,
            run=run.stage,
            progress=lambda number, total: tick("scoring", number, total),
        )
        for _, data in found:
            if "failure" in data:
                name, stage, reason = data["failure"]
                failures.append((name, stage, reason))
            else:
                done.take(KeptCase(ScoredCase.from_plain(data["case"]), data["said"], data["rows"], data["files"]))
    return failures
