"""Benchmark of anomaly detection: every cohort under several seeds, peers beside it, one text with all tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen.anomaly.artifact import from_artifact
from medgen.anomaly.comparison import (
    findings_over_seeds,
    leave_one_type_out,
    measurement_file,
    scans_over_seeds,
    voxels_over_seeds,
)
from medgen.anomaly.comparison.peers import catalogue as peers
from medgen.anomaly.comparison.peers.base import PeerSettings, score
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation.measure import HEALTHY, Measurement, TestScan, scans_to_test
from medgen.anomaly.evaluation.screening import screen
from medgen.anomaly.evaluation.sensitivity import sensitivity_of
from medgen.config import parse_config, read_yaml
from medgen.data.cases import split_subjects
from medgen.data.layouts.detect import load_cohort
from medgen.data.simulation import simulate
from medgen.errors import ConfigError, DataError, MedgenError
from medgen.metrics.ranking import half
from medgen.models.artifact import TrainedModel
from medgen.preprocessing.dataset import Dataset, prepare_dataset
from medgen.progress import Tick, bars
from medgen.runs.folder import RunSummary, check_unchanged
from medgen.runs.outputs import RECORD
from medgen.seeds import derive
from medgen.system.files import read_json, write_json

from ..anomaly import run as anomaly
from ..anomaly.config import AnomalyRunConfig
from . import report as bench_report
from .cohorts import COHORTS
from .speed.scan_cost import Speed, measure_apart

LESION = "lesion"
# Where the data folder has no simulated cohort one is made: subjects and voxel size in mm, for --quick and without.
_SIMULATED = {True: (14, 8.0), False: (40, 4.0)}
# False-positive rates whose realisation is told beside the calibrated one.
_TARGETS = (0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Plan:
    """One run of the benchmark.

    Attributes:
        cohort, seed: What it is of.
        config: Configuration of the run.
        peers: What peers get.
    """

    cohort: str
    seed: int
    config: AnomalyRunConfig
    peers: PeerSettings

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.config.out

    def beside(self, what: str) -> Path:
        """A file of measurements that belongs to the run but is none of its outputs."""
        return self.folder.with_name(f"{self.folder.name}-{what}.npz")


def run(
    out: Path,
    *,
    data: Path,
    seeds: Sequence[int],
    cohorts: Sequence[str],
    quick: bool = False,
    resume: bool = False,
    device: str = "auto",
    workers: int = 2,
    progress: bool = False,
) -> RunSummary:
    """Run every cohort under every seed, then write ``anomaly.md``, ``anomaly.json`` and pictures into ``out``.

    Args:
        out: Gets a folder per cohort and seed, and the results.
        data: Has a folder per cohort, and ``lesions/`` with real lesion masks.
        seeds: Seeds of split, training and implants, one run each.
        cohorts: Names in :data:`COHORTS`.
        quick: Coarse grid and few steps (``configs/bench/quick.yaml``): for tests, its numbers mean nothing.
        resume: Keep runs that are finished, go on with the others.
        device: Where models are trained: ``auto``, ``cpu`` or ``cuda[:N]``.
        workers: Threads that read and prepare scans.
        progress: Show progress bars.

    Raises:
        MedgenError: If a cohort is unknown or missing, or a run fails; finished runs stay.
    """
    unknown = sorted(set(cohorts) - set(COHORTS))
    if unknown or not cohorts or not seeds:
        raise ConfigError(
            f"bench anomaly: expected seeds, and cohorts among {', '.join(COHORTS)}; "
            f"found {', '.join(unknown) or 'none'}"
        )
    notes = [reason for name in peers.NAMES if (reason := peers.missing(name))]
    plans = [
        _plan(cohort, seed, out, data, device, workers, quick)
        for cohort in dict.fromkeys(cohorts)
        for seed in dict.fromkeys(seeds)
    ]
    notes += [
        f"{name}: no lesion masks in {data / 'lesions'}; implants of the kind lesion are left out"
        for name in dict.fromkeys(plan.cohort for plan in plans)
        if COHORTS[name] and LESION not in next(p for p in plans if p.cohort == name).config.evaluation.kinds
    ]
    finished = {plan.folder: _is_finished(plan, resume=resume) for plan in plans}
    failed = 0
    words: dict[str, str] = {}
    with bars(progress) as tick:
        for plan in plans:
            if not finished[plan.folder]:
                failed += anomaly.run(plan.config, resume=resume, progress=progress, save_measurements=True).exit_code
            _score_others(plan, plan in _refitted(plans), partial(_named_tick, tick, f"{plan.cohort} seed {plan.seed}"))
            words |= {f"{plan.cohort}, seed {plan.seed}, {name}": text for name, text in _peer_words(plan).items()}
        results = [
            _results(name, [plan for plan in plans if plan.cohort == name], partial(_named_tick, tick, name))
            for name in dict.fromkeys(cohorts)
        ]
    speed = None
    try:
        speed = _speed(plans)
    except MedgenError as error:
        # Hours of runs must not be lost to it.
        notes.append(str(error))
    bench = bench_report.Bench(
        cohorts=results,
        seeds=tuple(dict.fromkeys(seeds)),
        command=_command(cohorts, seeds, quick),
        quick=quick,
        notes=notes,
        peer_words=words,
        speed=speed,
    )
    written = bench_report.write(out, bench)
    lines = [*notes, *bench_report.headlines(bench), *(f"written: {path}" for path in written)]
    if failed:
        lines.append("some scans could not be prepared or were refused, see failures.csv of the runs")
    return RunSummary(out, 1 if failed else 0, tuple(lines))


def _plan(cohort: str, seed: int, out: Path, data: Path, device: str, workers: int, quick: bool) -> Plan:
    configs = Path(str(files("medgen.configs")))
    settings = read_yaml(configs / "anomaly" / f"{cohort}.yaml")
    tiny = read_yaml(configs / "bench" / "quick.yaml") if quick else {"run": {}, "peers": {}}
    settings |= tiny["run"]
    settings |= {"data": str(_data(cohort, data, out, quick)), "out": str(out / f"{cohort}-{seed}"), "seed": seed}
    settings |= {"device": device, "workers": workers}
    source = f"configuration of {cohort}"
    config = parse_config(AnomalyRunConfig, settings, source)
    if COHORTS[cohort] and (data / "lesions").is_dir():
        evaluation = dict(settings.get("evaluation", {}))
        evaluation |= {"kinds": [*config.evaluation.kinds, LESION], "masks": str(data / "lesions")}
        config = parse_config(AnomalyRunConfig, {**settings, "evaluation": evaluation}, source)
    # As many steps of as many scans, and steps as long, as a fold of our own main model.
    own = {"steps": config.training.steps, "batch_size": config.training.batch_size, "lr": config.training.lr}
    given = {**own, **tiny["peers"]}
    return Plan(cohort, seed, config, parse_config(PeerSettings, given, source))


def _data(cohort: str, data: Path, out: Path, quick: bool) -> Path:
    folder = data / cohort
    if cohort != "simulated" or folder.is_dir():
        return folder
    made = out / "cohort"
    if not (made / "manifest.csv").is_file():
        n, spacing = _SIMULATED[quick]
        simulate(made, n=n, seed=0, spacing=spacing)
    return made


def _is_finished(plan: Plan, *, resume: bool) -> bool:
    """Whether a run can be kept; one of another configuration is refused, and so is any without ``resume``."""
    if not plan.folder.exists():
        return False
    if not resume:
        raise ConfigError(f"{plan.folder}: already holds a run; pass --resume to keep it, or choose another folder")
    if not ((plan.folder / RECORD).is_file() and (plan.folder / measurement_file.FILE).is_file()):
        return False
    check_unchanged(plan.folder, plan.config)
    return True


def _refitted(plans: Sequence[Plan]) -> list[Plan]:
    """The runs whose self-supervised score is refitted: the first seed of every cohort, since it takes long."""
    return [plan for number, plan in enumerate(plans) if plan.cohort not in {own.cohort for own in plans[:number]}]


def _score_others(plan: Plan, refit: bool, tick: Tick) -> None:
    """Peers, and if asked for the refitted self-supervised score, on the same test scans, once."""
    names = [name for name in peers.NAMES if peers.missing(name) is None]
    with_peers = not _holds(plan.beside("peers"), [_row(name) for name in names], healthy=True)
    refit = refit and not _holds(plan.beside("left-out"), [leave_one_type_out.ZSCORE], healthy=False)
    if not with_peers and not refit:
        return
    detector = from_artifact(TrainedModel.load(plan.folder / "model", "cpu"), plan.folder / "model")
    development, test = _prepared(plan, detector, tick)
    config = plan.config
    refitted = None
    if refit:
        refitted = leave_one_type_out.refit(
            development,
            config.anomaly.smoothing,
            config.anomaly.corruptions,
            progress=partial(tick, "refitting without each group"),
        )
    fitted = []
    for number, name in enumerate(names if with_peers else [], start=1):
        fitted.append(peers.fit(name, development, plan.peers, derive(config.seed, "bench")))
        tick("fitting peers", number, len(names))
    scans = scans_to_test(test, development, detector.preprocess.spacing, config.evaluation, config.seed)
    measured: dict[str, list[Measurement]] = {"peers": [], "left-out": []}
    total = len(test) * (1 + config.evaluation.per_scan)
    for done, scan in enumerate(scans, start=1):
        region = scan.foreground[0].cpu().numpy().astype(bool) & detector.support
        if with_peers:
            maps = {
                _row(own.name): score(own, scan.image, scan.foreground, region, config.anomaly.smoothing)
                for own in fitted
            }
            measured["peers"].append(_measurement(scan, region, maps))
        if refitted is not None and scan.kind != HEALTHY:
            maps = refitted.maps(scan.image, scan.foreground, region)
            measured["left-out"].append(_measurement(scan, region, maps))
        tick("scoring test scans with peers", done, total)
    if refitted is not None:
        measurement_file.save(plan.beside("left-out"), measured["left-out"])
    if with_peers:
        write_json(plan.beside("peers").with_suffix(".json"), {own.name: own.words for own in fitted})
        measurement_file.save(plan.beside("peers"), measured["peers"])


def _holds(path: Path, rows: Sequence[str], *, healthy: bool) -> bool:
    """Whether a file of measurements is there with these rows, and with healthy scans if they are asked for."""
    if not path.is_file():
        return False
    found = measurement_file.MeasurementFile.open(path)
    return set(rows) <= set(found.names) and (not healthy or any(fact["kind"] == HEALTHY for fact in found.facts))


def _prepared(plan: Plan, detector: AnomalyDetector, tick: Tick) -> tuple[Dataset, Dataset]:
    """Development and test scans as the run had them: its split, its recipe, its template, its gate."""
    config = plan.config
    manifest = load_cohort(config.data, config.cohort)
    shares = {"development": 1 - config.test, "test": config.test}
    parts = split_subjects(manifest, shares, derive(config.seed, "split"))
    prepared = {}
    for name, part in parts.items():
        prepared[name], _ = prepare_dataset(
            part,
            detector.preprocess,
            detector.template,
            config.workers,
            progress=partial(tick, f"preparing {name} scans"),
        )
    return prepared["development"], screen(detector.gate, prepared["test"], detector.covariates).passed


def _measurement(scan: TestScan, region: NDArray[np.bool_], maps: Mapping[str, NDArray[np.float32]]) -> Measurement:
    return Measurement(
        case=scan.case,
        subject=scan.subject,
        kind=scan.kind,
        radius_mm=scan.radius_mm,
        contrast=scan.contrast,
        region=region,
        truth=scan.truth[region],
        rows={name: half(values[region]) for name, values in maps.items()},
        scores={},
        p_values={},
    )


def _row(name: str) -> str:
    return f"{name} (raw)"


def _peer_words(plan: Plan) -> dict[str, str]:
    path = plan.beside("peers").with_suffix(".json")
    return {str(name): str(text) for name, text in read_json(path).items()} if path.is_file() else {}


def _results(cohort: str, plans: Sequence[Plan], tick: Tick) -> bench_report.CohortResult:
    config = plans[0].config
    own = [measurement_file.MeasurementFile.open(plan.folder / measurement_file.FILE) for plan in plans]
    seed = derive(plans[0].seed, "bench")

    def pooled(what: str, chosen: Sequence[Plan]) -> voxels_over_seeds.Runs:
        files_of = [[measurement_file.MeasurementFile.open(plan.beside(what))] for plan in chosen]
        together = [[run, *others] for run, others in zip(own, files_of, strict=False)]
        return voxels_over_seeds.Runs.of(together, config.evaluation.bootstrap, seed)

    runs = pooled("peers", plans)
    rows = voxels_over_seeds.compare(runs)
    names = ["fused", voxels_over_seeds.best(rows, "raw"), voxels_over_seeds.best(rows, "z")]
    target = config.anomaly.calibration.target_fpr
    cells, limits = voxels_over_seeds.cells(runs, names, config.anomaly.scan_score)
    findings = config.anomaly.findings
    grids = [TrainedModel.load(plan.folder / "model", "cpu").preprocess.canonical() for plan in plans]
    return bench_report.CohortResult(
        name=cohort,
        grid=own[0].measurements()[0].region.shape,
        subjects=len(runs.resampler.names),
        healthy=len(runs.healthy),
        implanted=len(runs.implanted),
        prevalence=float(np.concatenate([item.truth for item in runs.implanted]).mean()),
        rows=rows,
        compared=tuple(names),
        cells=cells,
        size_limits_mm=limits,
        findings=findings_over_seeds.compare(runs, grids, findings.separation_mm, tick),
        calibrated=sensitivity_of(
            [*runs.healthy, *runs.implanted], findings.false_findings, config.evaluation.bootstrap, seed
        ),
        scan_score=config.anomaly.scan_score,
        target=target,
        scans=scans_over_seeds.scan_levels(runs, target, sorted({target, *_TARGETS})),
        any_hot=scans_over_seeds.family_wise(runs),
        controls=voxels_over_seeds.chance_controls(runs),
        left_out=voxels_over_seeds.leave_out(pooled("left-out", _refitted(plans))),
    )


def _speed(plans: Sequence[Plan]) -> Speed:
    """The speed of the first run's detector, on its first healthy test scan as it comes."""
    plan = plans[0]
    case = next(
        fact["case"]
        for fact in measurement_file.MeasurementFile.open(plan.folder / measurement_file.FILE).facts
        if fact["kind"] == HEALTHY
    )
    manifest = load_cohort(plan.config.data, plan.config.cohort)
    found: Any = next((entry for entry in manifest if entry.id == case), None)
    if found is None:
        raise DataError(f"{plan.config.data}: case {case!r} of the run {plan.folder} is gone; restore it")
    return measure_apart(plan.folder / "model", found.images[0])


def _command(cohorts: Sequence[str], seeds: Sequence[int], quick: bool) -> str:
    listed = ",".join(map(str, dict.fromkeys(seeds)))
    flags = " --quick" if quick else ""
    return (
        f"medgen bench anomaly bench --data DATA --seeds {listed} --cohorts {','.join(dict.fromkeys(cohorts))}{flags}"
    )


def _named_tick(tick: Tick, where: str, what: str, done: int, total: int) -> None:
    tick(f"{where}: {what}", done, total)
