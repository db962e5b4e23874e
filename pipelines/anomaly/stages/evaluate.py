"""Held-out scans, healthy and with implants, are scored; their files, metrics and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medgen.anomaly.comparison import measurement_file
from medgen.anomaly.comparison.methods import Comparison, ScanFacts, ScanScores, compare, reduce_scan
from medgen.anomaly.detector import AnomalyDetector, ScanResult
from medgen.anomaly.evaluation.measure import FUSED, Measurement, TestScan, measure, scans_to_test
from medgen.anomaly.evaluation.screening import Screening, screen
from medgen.anomaly.evaluation.sensitivity import COLUMNS
from medgen.anomaly.evaluation.summary import Summary, summarise
from medgen.anomaly.findings.listing import number
from medgen.anomaly.pseudo_healthy import as_seen
from medgen.preprocessing.parts import PreparedParts
from medgen.report.anomaly.cohort import scores_section
from medgen.report.anomaly.evaluation import scan_section, voxel_section
from medgen.report.anomaly.examples import (
    CaseRow,
    Example,
    cases_section,
    example,
    implant_place,
    is_shown,
    pictures_section,
    shown_at_most,
)
from medgen.report.anomaly.files import files_section
from medgen.report.anomaly.gate import gate_section
from medgen.report.anomaly.pictures import Scored
from medgen.report.anomaly.sensitivity import sensitivity_section
from medgen.report.html import Report
from medgen.report.methods.anomaly import evaluation
from medgen.report.methods.text import MethodsText
from medgen.runs.context import Output, Results, RunContext
from medgen.runs.keys import Key
from medgen.system.files import plain, write_csv
from medgen.training.cost import Estimate

from ...stages import Stage
from ..cohort import AnomalyCohort
from ..config import AnomalyRunConfig
from ..evaluate import BOOTSTRAP, SEED
from ..outputs import SCAN_OUTPUTS, ScanFiles
from ..scored.viewers import VIEWERS, Viewers
from ..trial import Trial
from .calibrate import Calibrated


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the detector does on held-out scans.

    Attributes:
        measurements: The scores of every test scan.
        examples: The scans that the report shows.
        cases: A line for every test scan.
        files: The heatmaps' files against the truth on their own grids, as ``medgen anomaly evaluate`` computes it.
        summary: All tables.
    """

    measurements: Sequence[Measurement]
    examples: Sequence[Example]
    cases: Sequence[CaseRow]
    files: Comparison
    summary: Summary


@dataclass(frozen=True)
class Evaluate(Stage[AnomalyRunConfig]):
    """Scores the test scans that the gate lets through, and copies of them with implants.

    Attributes:
        save_measurements: Whether to keep the voxel scores of all test scans, which benchmarks pool over runs: two
            bytes per scored voxel, scan and row of the table, gigabytes for large test sets.
    """

    save_measurements: bool = False

    name = "evaluate"
    needs = (AnomalyCohort, PreparedParts, Calibrated)
    makes = (Screening, Evaluation)
    keys = (
        Key("test.found_share", "share of the implants with a finding, at the run's level", "higher"),
        Key("test.false_findings_per_scan", "findings of held-out healthy scans, each", "lower"),
        Key("test.voxel_ap", "voxel average precision of the fused heatmap", "higher"),
        Key("test.voxel_ap_chance", "the same by chance: share of implant voxels"),
        Key("test.gain_over_best_baseline", "voxel average precision minus that of the best baseline", "higher"),
        Key(
            "test.healthy_over_threshold",
            "share of healthy subjects with a voxel over the family-wise threshold",
            "lower",
        ),
        Key("test.implants", "implanted scans"),
        Key("test.subjects", "held-out subjects"),
        Key("test.abstained", "held-out scans that the gate refused"),
    )
    own_keys = (
        Key("ap.fused", "voxel average precision of the fused heatmap"),
        Key("ap.<score>.raw", "voxel average precision of a score as it is"),
        Key("ap.<score>.z", "the same after the normative z"),
        Key("ap.<score>.heat", "the same as part of the heat"),
        Key("auroc.<score>", "how well a scan score tells implanted from healthy scans"),
        Key("gain_over_best_baseline", "average precision of the fused map minus that of the best baseline"),
        Key("gain_over_best_z", "the same against the best baseline with a normative z"),
        Key("prevalence", "share of implant voxels: chance level of average precision"),
        Key("realised_fpr", "share of healthy subjects over the family-wise threshold"),
        Key("false_findings_measured", "findings of held-out healthy scans, each"),
        Key("found_at_<level>", "share of implants with a finding at so many expected false findings"),
    )

    def estimate(
        self, config: AnomalyRunConfig, known: Results, before: Mapping[str, Estimate]
    ) -> Mapping[str, Estimate]:
        """How many scans are scored, and for how long."""
        copies, test = config.evaluation.per_scan, known[AnomalyCohort].parts["test"]
        scans, trial = (1 + copies) * len(test), known[Trial]
        said = f"test: {scans} scans, {copies} implanted copies of each healthy one"
        seconds = scans * trial.score + min(scans, shown_at_most(config.evaluation)) * trial.page
        return {self.name: Estimate(seconds, 0.0, (trial.line(said, seconds),), scans=scans)}

    def run(self, config: AnomalyRunConfig, results: Results, run: RunContext) -> Iterable[Any]:
        """See the class."""
        calibrated, prepared = results[Calibrated], results[PreparedParts]
        detector = calibrated.detector
        screening = screen(detector.gate, prepared.data["test"], detector.covariates)
        failures = [(failure.case, "preprocess", failure.message) for failure in prepared.failures]
        run.folder.write_failures([*failures, *((case, "gate", reason) for case, reason in screening.refused)])
        spacing = detector.preprocess.spacing
        scans = scans_to_test(screening.passed, calibrated.healthy, spacing, config.evaluation, config.seed)
        total = len(screening.passed) * (1 + config.evaluation.per_scan)
        files, viewers = ScanFiles(run.folder.out), Viewers.of(run.folder.out, "all", total)
        measurements: list[Measurement] = []
        examples: list[Example] = []
        cases: list[CaseRow] = []
        on_own_grid: list[tuple[ScanFacts, ScanScores]] = []
        with run.bars() as tick:
            for done, entry in enumerate(measure(detector, scans), start=1):
                scan, result = entry.scan, entry.result
                drawn = scan.kind, scan.radius_mm, scan.contrast
                facts = {"subject": scan.subject, "kind": drawn[0], "radius_mm": drawn[1], "contrast": drawn[2]}
                on_implant = entry.measurement.on_implant
                # Empty where no candidate is on the implant, and for healthy scans.
                facts |= {"expected_false_on_implant": on_implant if math.isfinite(on_implant) else None}
                files.add(scan.name, result, **facts)
                files.add_truth(scan.name, entry.truth)
                truth_voxels, voxels, own = reduce_scan({FUSED: result.heatmap.data[0]}, entry.truth.data[0] > 0)
                on_own_grid.append((ScanFacts(scan.name, scan.subject, truth_voxels, voxels, *drawn), own[FUSED]))
                measurements.append(entry.measurement)
                page = ""
                if is_shown(scan, examples):
                    shown = _with_pseudo_healthy(scan, result, detector, files)
                    page = viewers.write_known(shown, detector, implant_place(scan))
                    examples.append(example(scan, result, examples))
                cases.append(CaseRow.of(scan, result, entry.measurement, page))
                tick("scoring test scans", done, total)
        files.close()
        if self.save_measurements:
            measurement_file.save(run.folder.out / measurement_file.FILE, measurements)
        # In the order of the files, with what evaluate takes by default: its intervals are these to the last digit.
        on_own_grid.sort(key=lambda pair: f"{pair[0].name}.nii.gz")
        listed, scores = (list(part) for part in zip(*on_own_grid, strict=True))
        comparison = compare(listed, {FUSED: scores}, BOOTSTRAP, SEED)
        levels = config.anomaly.calibration.target_fpr, config.anomaly.findings.false_findings
        summary = summarise(measurements, *levels, config.evaluation.bootstrap, run.derive("bootstrap"))
        write_csv(run.folder.out / "sensitivity.csv", summary.findings.rows(), COLUMNS)
        run.stage.log_metrics(_numbers(summary))
        return [screening, Evaluation(measurements, examples, cases, comparison, summary)]

    def outputs(self) -> tuple[Output, ...]:
        """Heatmaps, findings and scores of every test scan."""
        return (
            *SCAN_OUTPUTS,
            Output("sensitivity.csv", "which implants have a finding, by kind, size, contrast and false findings"),
            Output("truth/", "the implants of the test scans, 0 and 1, each on the grid of its scan"),
            VIEWERS,
            Output(measurement_file.FILE, "voxel scores of all test scans, for benchmarks over several runs"),
        )

    def summary(self, results: Results) -> Mapping[str, Any]:
        """What is found, at what cost, and how well the heatmap does."""
        summary, screening = results[Evaluation].summary, results[Screening]
        return {
            "test.found_share": summary.findings.operating.share,
            "test.false_findings_per_scan": summary.findings.false.measured,
            "test.voxel_ap": summary.fused.ap,
            "test.voxel_ap_chance": summary.prevalence,
            "test.gain_over_best_baseline": summary.gain_raw,
            "test.healthy_over_threshold": summary.any_hot,
            "test.implants": summary.implanted,
            "test.subjects": summary.subjects,
            "test.abstained": len(screening.refused),
        }

    def metrics(self, results: Results) -> Mapping[str, Any]:
        """All tables, and what the gate did."""
        evaluation, test = results[Evaluation], results[AnomalyCohort].parts["test"]
        gate = results[Calibrated].detector.gate
        return {
            **plain(evaluation.summary),
            "own_grid": evaluation.files,
            "gate": results[Screening].to_plain(gate, len(test)),
        }

    def report(self, report: Report, results: Results, run: RunContext) -> None:
        """Voxels, scans, files, pictures, the gate, and what each score is."""
        evaluation, detector = results[Evaluation], results[Calibrated].detector
        cases_section(report, evaluation.cases, evaluation.summary.findings.level)
        sensitivity_section(report, evaluation.summary.findings)
        voxel_section(report, evaluation.summary)
        scan_section(report, evaluation.summary)
        files_section(report, evaluation.files, evaluation.summary.fused.ap.estimate)
        pictures_section(report, evaluation.examples, detector)
        gate_section(report, detector.gate, results[Screening])
        scores_section(report, evaluation.summary)

    def methods(self, text: MethodsText, config: AnomalyRunConfig, results: Results) -> None:
        """The implanted test set."""
        refused, summary = len(results[Screening].refused), results[Evaluation].summary
        evaluation(text, config.evaluation, summary, refused)

    def lines(self, results: Results, run: RunContext) -> list[str]:
        """What was found, and how well the heatmap does beside the best baseline."""
        summary = results[Evaluation].summary
        best = summary.row(summary.best_raw)
        own, false = summary.findings.operating, summary.findings.false
        shares = [share for share in summary.findings.everything.shares if share.level != own.level]
        others = ", ".join(f"{share.found} at {number(share.level)}" for share in shares)
        return [
            f"findings: on {own.found} of {summary.implanted} implants at {number(own.level)} expected false findings "
            f"per healthy scan ({others}); measured in {false.measured.n} held-out healthy subjects: {false.measured}",
            f"family-wise: on {summary.found_family_wise} of {summary.implanted} implants, in "
            f"{summary.healthy_family_wise} of {summary.any_hot.n} healthy test subjects (aim: at most "
            f"{100 * summary.target_fpr:g} %)",
            f"voxel AP: fused {summary.fused.ap}, best baseline ({best.score}) {best.ap}, chance "
            f"{summary.prevalence:.4f}",
            *(f"{case}: abstained: {reason}" for case, reason in results[Screening].refused),
            *(f"{case}: not evaluated: {reason}" for case, reason in results[Screening].outside),
        ]


def _with_pseudo_healthy(scan: TestScan, result: ScanResult, detector: AnomalyDetector, files: ScanFiles) -> Scored:
    """Write the pseudo-healthy version of a test scan, if a model makes one; the scan with it, for a viewer."""
    # An implanted scan exists on the model grid only, so the difference is taken from what it looks like from there.
    own = replace(scan.prepared, image=scan.image.numpy(), foreground=scan.foreground[0].numpy())
    pseudo, seen = detector.pseudo_healthy(own), as_seen(own, detector.preprocess)
    if pseudo is not None:
        files.add_pseudo_healthy(scan.name, pseudo, seen.with_data(seen.data - pseudo.data))
    return Scored(scan.name, seen, replace(result, prepared=own), pseudo)


def _numbers(summary: Summary) -> dict[str, float]:
    """The numbers of a summary that MLflow shows: estimates by name."""
    names = {row.name: row.name if row.name == FUSED else f"{row.score}.{row.form}" for row in summary.voxel}
    numbers = {f"ap.{names[row.name]}": row.ap.estimate for row in summary.voxel}
    numbers |= {f"auroc.{row.name}": row.auroc.estimate for row in summary.scan}
    numbers |= {"gain_over_best_baseline": summary.gain_raw.estimate, "gain_over_best_z": summary.gain_z.estimate}
    return {
        **numbers,
        "prevalence": summary.prevalence,
        "realised_fpr": summary.any_hot.estimate,
        "false_findings_measured": summary.findings.false.measured.estimate,
        **{f"found_at_{share.level:g}": share.share.estimate for share in summary.findings.everything.shares},
    }
