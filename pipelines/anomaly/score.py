"""Score new scans with the artifact of an anomaly run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medgen import __version__
from medgen.anomaly.artifact import from_artifact
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.findings.false_findings import check_false_findings
from medgen.config import parse_config
from medgen.data.content import label_map_words
from medgen.errors import DataError, MedgenError, OutOfDistribution
from medgen.io.dicom.objects.wanted import check_wanted
from medgen.models.artifact import TrainedModel
from medgen.report import cohort as cohort_words
from medgen.report.anomaly.pictures import Scored
from medgen.report.anomaly.scored.opening import Scorer
from medgen.report.anomaly.scored.scoring import ScoredCase, index_sections
from medgen.report.anomaly.words import LIMITS, level_words
from medgen.report.html import Report
from medgen.report.methods.anomaly import calibration, heatmap, scored
from medgen.report.methods.preparation import MODELS, networks, preparation
from medgen.report.methods.text import MethodsText
from medgen.runs import tracking
from medgen.runs.cases.map_cases import Spread
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.folder import RunSummary, open_run
from medgen.runs.keys import SHARDS, Key
from medgen.runs.outputs import INPUTS, write_inputs
from medgen.system.files import sha256_json
from medgen.system.memory import let_go, settled

from .. import patient_names
from ..given_scans import GivenScan
from ..preflight import SCORING, check_scans, check_scoring
from ..stages import FAILED, Pipeline, Stage, source_of
from .found_in_run import found_in_its_run
from .known_scans import known_scans, learnt_words
from .outputs import CALIBRATION, SCAN_OUTPUTS, level_facts, unique_names, write_calibration
from .people import Person, check_covariates, need_covariates, people_of
from .score_config import ScoreConfig
from .scored.dicom_objects import DICOM, DicomObjects
from .scored.done_scans import PAGES, DoneScans
from .scored.exports import EXPORTS, Exports
from .scored.kept_cases import KeptCases
from .scored.spread import ScanTask, ScoreOne, spread_scans
from .scored.viewers import VIEWERS, Viewers
from .which_detector import for_channels, without_words

# Settings that the result for a scan depends on.
_READING = frozenset({"ungated", "unadjusted", "false_findings", "fill", "unscaled", "slices"})


def score(
    scans: Sequence[Path],
    *,
    model: Path,
    out: Path,
    device: str = "auto",
    ungated: bool = False,
    covariates: str | None = None,
    unadjusted: bool = False,
    false_findings: float | None = None,
    fill: float | None = None,
    unscaled: bool = False,
    slices: int | None = None,
    viewers: str = "auto",
    dicom: Sequence[str] = (),
    export: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    spread: Spread | None = None,
) -> RunSummary:
    """Write heatmaps, findings, p-values and a report for new scans.

    A scan that cannot be read, or that as a whole is unlike the cohort or does not register (stage ``gate``: the model
    abstains), is listed in ``failures.csv``; the others are scored all the same, and the exit code is then 1.

    Args:
        scans: NIfTI, NRRD or MetaImage files, DICOM folders; of scans with several channels a 4D file, or ``NAME=FILE``
            for each channel, parted by commas.
        model: Artifact folder of an anomaly run. Where all scans lack a channel, its detector for such scans is taken.
        out: New folder.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        ungated: Score what the gate refuses all the same: heatmaps and ranks among the healthy scans may still be of
            use where p-values and findings are not, on scans of another site. What does not register stays refused.
        covariates: What is known of the people where the model adjusts for it: ``age=71,sex=F`` for all scans, or a
            table.
        unadjusted: Score scans of whose people a covariate is not known with the cohort's average, and say so.
        false_findings: List findings up to so many expected false findings per healthy scan, whatever the run was told.
        fill: Value for voxels that are NaN or infinite; without it such scans are not scored.
        unscaled: Take values as stored where the scale of a NIfTI header is 0 or NaN.
        slices: How many slices every DICOM series should have.
        viewers: Which scans get a page to look through them, see :class:`ScoreConfig`.
        dicom: DICOM objects to write of scans that came from DICOM: ``seg`` (findings), ``pmap`` (heat), ``sc`` (colour
            images), ``sr`` (measurements of the findings, with ``seg``).
        export: For which other programs results are written: ``bids`` (a BIDS derivative), ``slicer`` (3D Slicer
            scenes), ``itksnap`` (ITK-SNAP workspaces).
        resume: Go on with an interrupted scoring: scans that are done are not scored again.
        overwrite: Replace the results of an earlier scoring.
        progress: Show progress bars.
        spread: Where several scans are scored; None: one after the other in this process.

    Raises:
        DataError: If no scan is given or none exists, or scans do not have the same channels.
        ArtifactError: If the artifact is damaged or of another kind.
        CalibrationError: If the level of findings needs more calibration subjects.
        ConfigError: If a setting is wrong, or DICOM objects are wanted and highdicom is not installed.
    """
    check_wanted(dicom)
    check_scans(scans)
    given_scans = [GivenScan.parse(path) for path in scans]
    check_scoring(
        out, (*(file for scan in given_scans for file in scan.files), model), resume=resume, overwrite=overwrite
    )
    series = any(scan.dicom for scan in given_scans)
    check_covariates(covariates)
    patient_names.warn(series)
    model, artifact = for_channels(model, given_scans, device)
    given = {"scans": tuple(scans), "model": model, "model_sha256": artifact.sha256, "out": out, "device": device}
    told = {"ungated": ungated, "covariates": covariates, "unadjusted": unadjusted, "false_findings": false_findings}
    reading = {"fill": fill, "unscaled": unscaled, "slices": slices}
    writing = {"viewers": viewers, "dicom": tuple(dicom), "export": tuple(export)}
    config = parse_config(ScoreConfig, {**given, **told, **reading, **writing}, source="command line")
    settings, seed = config.model_dump(mode="json"), int(artifact.meta.get("seed") or 0)
    with (
        open_run(out, config, resume=resume, overwrite=overwrite, mark="" if resume else SCORING) as folder,
        tracking.start("anomaly-score", folder.out, config=settings, seed=seed, late=True) as track,
    ):
        context = RunContext(folder, track, track, seed, resume=resume, progress=progress)
        results = Results([artifact, *([spread] if spread else [])])
        PIPELINE.run(config, results, context)
        found = results[Scorings]
        one = found.only is not None
        title = (found.scored[0].name, "Anomaly scores of one scan") if one else ("Anomaly scores", found.counts)
        report = Report(*title, track.id)
        lines = PIPELINE.finish(config, report, LIMITS, results, context, series)
    lines += [f"heatmaps: {folder.heatmaps}"] if found.scored else []
    if (objects := folder.out / DICOM.name).is_dir():
        lines.append(f"DICOM:    {objects}: with patients' names and numbers, as their series have them")
    lines += [f"{kind + ':':<10}{folder.out / kind}" for kind in export if (folder.out / kind).is_dir()]
    return RunSummary(folder.out, 1 if found.failures else 0, (*lines, f"report:   {folder.report}"))


@dataclass(frozen=True, eq=False)
class Scorings:
    """What the detector says of new scans; no scan, heatmap or other map is held, however many there are.

    Attributes:
        detector: The detector.
        scored: The scans that could be scored.
        said: A line on each of them for the console.
        failures: Case, stage and reason of the others; the stage ``gate`` is an abstention.
        only: The section of the scan, where one alone was given; several have pages of their own.
        learnt: A sentence on each scan that the model was made from.
        unseen: Why no viewer was written, where some are wanted; empty otherwise.
    """

    detector: AnomalyDetector
    scored: Sequence[ScoredCase]
    said: Sequence[str]
    failures: Sequence[tuple[str, str, str]]
    only: Report | None
    learnt: Sequence[str] = ()
    unseen: str = ""

    @property
    def counts(self) -> str:
        """Numbers of scans."""
        return f"scans scored: {len(self.scored)}, abstained: {self.abstained}, unusable: {self.unusable}"

    @property
    def abstained(self) -> int:
        """How many scans the gate refused."""
        return sum(stage == "gate" for _, stage, _ in self.failures)

    @property
    def unusable(self) -> int:
        """How many scans could not be read or prepared."""
        return len(self.failures) - self.abstained


class ScoreScans(Stage[ScoreConfig]):
    """Scores every scan that can be read and that the gate lets through, and writes its files and page.

    One scan is in memory at a time: what a scan leaves is on disk before the next one is read.
    """

    name = "score"
    needs = (TrainedModel,)
    makes = (Scorings,)
    own_keys = SHARDS
    keys = (
        Key("scans.scored", "scans with a heatmap and p-values"),
        Key("scans.abstained", "scans that the gate refused"),
        Key("scans.unusable", "scans that could not be read or prepared"),
        Key("scans.with_findings", "scans with findings"),
        Key("scans.doubtful", "scans of which nothing is claimed, such as those that look like artefacts"),
        Key("findings", "findings of all scans"),
        Key("findings.expected_false", "expected false findings per healthy scan, the level that was asked for"),
        Key("calibration.subjects", "healthy subjects that p-values and findings rest on"),
    )

    def run(self, config: ScoreConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class.

        Raises:
            DataError: If none of the scans could be scored.
        """
        artifact, folder = results[TrainedModel], run.folder
        detector = _at_level(from_artifact(artifact, config.model), config.false_findings)
        run.track.set_tags({"medgen.model.sha256": artifact.sha256})
        scans = [GivenScan.parse(path) for path in config.scans]
        named = dict(zip(unique_names(scan.called for scan in scans), scans, strict=True))
        read = {name: hashes for name, scan in named.items() if (hashes := scan.hashes())}
        channels = tuple(artifact.meta.get("channels") or ())
        write_inputs(folder.out, read, source_of(config.model, artifact))
        run.track.log_dataset("new scans", "scored", sha256_json(read), {"scans": len(named)})
        run.track.log_model_used(artifact.sha256)
        people = people_of(config.covariates, {name: scan.path for name, scan in named.items()}, detector.covariates)
        settings = config.model_dump(mode="json", include={*_READING})
        about = {**settings, "model": artifact.sha256, "version": __version__}
        kept = KeptCases(folder.checkpoints / "scores", folder.out, about)
        viewers = Viewers.of(folder.out, config.viewers, len(named))
        objects = DicomObjects(folder.out, config.dicom, channels, artifact.sha256)
        exports = Exports.of(folder.out, config.export, channels, artifact.sha256, named)
        found = found_in_its_run(config.model, detector.config.findings.false_findings)
        scorer = Scorer(str(artifact.meta.get("cohort") or ""), found)
        writers, learnt = (viewers, objects, exports), known_scans(artifact)
        done = DoneScans(detector, folder.out, kept, *writers, len(named) > 1, _limits(config), scorer, learnt)
        failures: list[tuple[str, str, str]] = []
        known_of = {name: {**read.get(name, {}), "person": sha256_json(dict(people[name].used))} for name in named}
        spread = results.get(Spread)
        if spread is not None:
            one = ScoreOne(config, _attempt, _at_level, viewers.which, _limits(config), scorer)
            tasks = (
                ScanTask(name, scan, people[name], known_of[name], exports.names[name]) for name, scan in named.items()
            )
            failures = spread_scans(one, tasks, len(named), done, spread, run, about)
        with run.bars(spread is None) as tick, settled():
            for number, (name, scan) in enumerate({} if spread else named.items(), start=1):
                person, known = people[name], known_of[name]
                if not (run.resume and done.before(name, known)):
                    entry = _attempt(detector, name, scan, channels, config, person)
                    if isinstance(entry, Scored):
                        done.add(entry, scan, known, person)
                    else:
                        failures.append(entry)
                    # Its maps are let go before those of the next scan are made.
                    del entry
                    let_go()
                tick("scoring", number, len(named))
        if failures and all(stage == "score" for _, stage, _ in failures) and not done.scored:
            raise DataError("none of the scans could be scored: " + " | ".join(reason for _, _, reason in failures))
        folder.write_failures(failures)
        if done.scored:
            # Empty tables of findings would say that there are none.
            done.files.close()
            exports.close([case.name for case in done.scored])
            write_calibration(folder.out, detector.calibration)
        return [
            Scorings(detector, done.scored, done.said, failures, done.only, learnt_words(read, learnt), viewers.why)
        ]

    def outputs(self) -> tuple[Output, ...]:
        """Heatmaps, findings and scores of every scan, and the table that its p-values come from."""
        inputs = Output(INPUTS, "the hashes of the scans and of the model, and the cases that the model was made from")
        pages = Output(PAGES, "a page for each of several scans, to which `report.html` leads", tracked=True)
        return (*SCAN_OUTPUTS, *CALIBRATION, pages, VIEWERS, DICOM, *EXPORTS, FAILED, inputs)

    def summary(self, results: Results) -> Mapping[str, Any]:
        """How many scans, how many findings, at which level."""
        found = results[Scorings]
        return {
            "scans.scored": len(found.scored),
            "scans.abstained": found.abstained,
            "scans.unusable": found.unusable,
            "scans.with_findings": sum(bool(case.findings) for case in found.scored),
            "scans.doubtful": sum(bool(case.why) for case in found.scored),
            "findings": sum(case.findings for case in found.scored),
            "findings.expected_false": found.detector.config.findings.false_findings,
            "calibration.subjects": len(found.detector.calibration.maxima),
        }

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """Threshold, scores and p-values."""
        found = results[Scorings]
        return {
            "target_fpr": found.detector.config.calibration.target_fpr,
            "threshold": found.detector.calibration.threshold,
            "findings": level_facts(found.detector),
            "calibration_subjects": len(found.detector.calibration.maxima),
            "scans": {entry.name: _numbers(entry) for entry in found.scored},
        }

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """A list of all scans, and the only one itself."""
        found, artifact = results[Scorings], results[TrainedModel]
        for sentence in found.learnt:
            report.verdict(sentence, "bad")
        if artifact.meta.get("missing"):
            report.text(without_words(artifact.meta["missing"], artifact.meta["channels"]))
        index_sections(report, found.detector, found.scored, found.failures, artifact.sha256)
        if found.only is not None:
            report.include(found.only)

    def methods(self, text: MethodsText, config: ScoreConfig, results: Results) -> None:
        """Which scans were scored by which model, and what it rests on."""
        found, artifact = results[Scorings], results[TrainedModel]
        scored(text, len(found.scored), found.abstained, found.unusable, artifact.sha256, config.ungated)
        preparation(text, found.detector.preprocess)
        networks(text, MODELS, found.detector.members[0].models)
        heatmap(text, found.detector)
        calibration(text, found.detector)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """A line for each scan."""
        found = results[Scorings]
        lines = [*found.learnt, *found.said]
        if lines:
            detector = found.detector
            lines.append(level_words(detector.calibration.healthy, detector.config.findings.false_findings))
        for name, stage, reason in found.failures:
            lines.append(f"{name}: {'abstained' if stage == 'gate' else 'not scored'}: {reason}")
        lines += [f"{case.name}: {case.artefact}" for case in found.scored if case.artefact]
        if found.unseen:
            lines.append(f"no viewers: {found.unseen}")
        outside = [case for case in found.scored if case.refused]
        return lines + [f"{case.name}: outside the cohort, scored all the same: {case.refused}" for case in outside]


PIPELINE = Pipeline[ScoreConfig]([ScoreScans()], given=(TrainedModel,))


def _score(
    detector: AnomalyDetector,
    name: str,
    given: GivenScan,
    channels: Sequence[str],
    config: ScoreConfig,
    person: Person,
) -> Scored:
    if detector.covariates is not None and not config.unadjusted:
        need_covariates(given.path, person, detector.covariates)
    scan = given.read(channels, fill=config.fill, unscaled=config.unscaled, slices=config.slices)
    if config.ungated:
        result = detector.score_scan(scan, person.used, ungated=True, unlike=person.problem)
    else:
        try:
            result = detector.score_scan(scan, person.known)
        except OutOfDistribution:
            if words := label_map_words(scan):
                raise OutOfDistribution([f"found {words}"]) from None
            raise
    return Scored(name, scan, result, detector.pseudo_healthy(result.prepared))


def _attempt(
    detector: AnomalyDetector,
    name: str,
    given: GivenScan,
    channels: Sequence[str],
    config: ScoreConfig,
    person: Person,
) -> Scored | tuple[str, str, str]:
    """A scan and its result, or its name, the stage and the reason where it cannot be scored."""
    try:
        return _score(detector, name, given, channels, config, person)
    except OutOfDistribution as error:
        return name, "gate", str(error)
    except MedgenError as error:
        return name, "score", str(error)


def _limits(config: ScoreConfig) -> str:
    return cohort_words.limits(LIMITS, any(GivenScan.parse(path).dicom for path in config.scans))


def _at_level(detector: AnomalyDetector, level: float | None) -> AnomalyDetector:
    """The detector with another level of findings: the calibration knows the candidates, so nothing is fitted."""
    if level is None:
        return detector
    check_false_findings(level, detector.calibration.healthy.n)
    config = detector.config
    own = config.findings.model_copy(update={"false_findings": level})
    return replace(detector, config=config.model_copy(update={"findings": own}))


def _numbers(case: ScoredCase) -> dict[str, object]:
    counts = {"findings": case.findings, "family_wise": case.family_wise}
    found = {"scores": dict(case.scores), "p": dict(case.p_values), **counts}
    ranks = {name: {"healthy_below": rank.below, "healthy": rank.n} for name, rank in case.ranks.items()}
    return {**found, "ranks": ranks, "doubt": case.why, "hot_places": case.unlisted}
