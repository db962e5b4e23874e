"""Make a whole run again from its record: the same settings, the same scans, the same code if it is here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from medgen.audit.compared import Compared, compare_runs
from medgen.audit.inputs import digests_of, weights_in
from medgen.audit.record import RunRecord, find_record, records_below
from medgen.config import parse_config, read_yaml
from medgen.data.layouts.detect import load_cohort
from medgen.errors import AuditError, DataError
from medgen.runs import environment, tracking
from medgen.runs.outputs import CONFIG
from medgen.runs.recorded_environment import ENVIRONMENT, computing_threads, machine
from medgen.system.files import plain, read_json, sha256_file

# Share of the range of an array, or of a number, by which results may differ on another machine or with other versions:
# sums are rounded in another order there, and training carries that on.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Cohort:
    """A run that is told by its configuration alone: ``module:name`` below ``pipelines``, and its function."""

    config: str
    run: str


_COHORTS: Mapping[str, _Cohort] = {
    "anomaly": _Cohort("anomaly.config:AnomalyRunConfig", "anomaly.run:run"),
    "augment": _Cohort("augment.config:AugmentRunConfig", "augment.run:run"),
    "augment-value": _Cohort("augment.value_config:ValueRunConfig", "augment.value:run"),
    "train": _Cohort("train_settings:TrainRunConfig", "train:run"),
    "pretrain": _Cohort("pretrain_settings:PretrainRunConfig", "pretrain:run"),
}


@dataclass(frozen=True)
class Replayed:
    """What came of making a run again.

    Attributes:
        record: The run.
        files: What came of comparing each output.
        other: How this machine or code differs from the run's, a line each; empty if it does not.
        tolerance: Largest difference of a number that was accepted; None where equal bytes were asked for.
    """

    record: RunRecord
    files: Sequence[Compared]
    other: Sequence[str]
    tolerance: float | None

    @property
    def differing(self) -> list[Compared]:
        """The outputs that are not the same."""
        return [item for item in self.files if not item.agrees]

    @property
    def lines(self) -> list[str]:
        """What was found, in words."""
        counts: dict[str, int] = {}
        for item in self.files:
            counts[item.state] = counts.get(item.state, 0) + 1
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        how = "equal bytes were asked for: machine class, code and versions are those of the run"
        if self.tolerance is not None:
            why = "; what it was made with is not here:" if self.other else ""
            how = f"numbers may differ by {self.tolerance:g} of their range{why}"
        unlike = [str(item) for item in self.files if item.state not in ("identical", "same but for times")]
        return [f"{self.record.called}: {len(self.files)} output(s): {told}", how, *self.other, *unlike]


def replay_run(
    target: Path,
    *,
    data: Sequence[Path] = (),
    model: Path | None = None,
    out: Path | None = None,
    device: str | None = None,
    tolerance: float | None = None,
    progress: bool = False,
) -> Replayed:
    """Make a run again and compare every output with the run's.

    On the same machine class, with the same code and versions, every byte must be the same, measured times apart; else
    numbers are compared within a tolerance.

    Args:
        target: Folder of a finished run.
        data: The scans or the cohort that the run has read; default: where its configuration says.
        model: Model that the run has used; default: where its configuration says, or in the run that trained it.
        out: Keeps what is made; default: it is removed.
        device: ``auto``, ``cpu`` or ``cuda[:N]``; default: as the run was told.
        tolerance: Accept differences of numbers up to this share of their range; default: none on the same machine
            class, else :data:`TOLERANCE`.
        progress: Show progress bars.

    Raises:
        AuditError: If there is no record, the scans or the model are not those of the run, or such runs cannot be made
            again.
        MedgenError: As the run itself.
    """
    record, part = find_record(target)
    if part:
        raise AuditError(f"{target}: is a part of a run; expected the folder of the run, {record.out}")
    settings = read_yaml(record.out / CONFIG) | ({} if device is None else {"device": device})
    again = _maker(record, settings, data, model, progress)
    other = differences(record)
    with _place(record, out) as folder, _same_threads(record), tracking.replaying(record.run_id or "replayed"):
        again(folder)
        accepted = tolerance if tolerance is not None else (TOLERANCE if other else None)
        found = compare_runs(record.out, folder, record.files, accepted)
    return Replayed(record, found, other, accepted)


def differences(record: RunRecord) -> list[str]:
    """How machine, code and versions differ from those of a run, as far as results depend on them, a line each."""
    told, source = record.content, environment.commit()
    lines = []
    if told.get("commit") != source.id or told.get("dirty") or source.dirty:
        state = {True: " with changes", False: "", None: ""}
        lines.append(
            f"code: commit {str(told.get('commit'))[:12]}{state[bool(told.get('dirty'))]} then, "
            f"{source.id[:12]}{state[source.dirty]} now"
        )
    now, then = plain(environment.versions()), told.get("versions") or {}
    lines += [
        f"{name}: {then.get(name)} then, {now.get(name)} now"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    path = record.out / ENVIRONMENT
    made = read_json(path).get("machine") or {} if path.is_file() else {}
    here = plain(machine())
    if not made:
        lines.append("machine: not recorded by the run")
    lines += [
        f"{name}: {made[name] or 'none'} then, {here.get(name) or 'none'} now"
        for name in sorted(made)
        if made[name] != here.get(name)
    ]
    return lines


def _maker(
    record: RunRecord, settings: dict[str, Any], data: Sequence[Path], model: Path | None, progress: bool
) -> Callable[[Path], object]:
    """What makes a run again in a folder, once its scans and models are known to be here."""
    kind = str(record.content.get("pipeline"))
    if (cohort := _COHORTS.get(kind)) is not None:
        place = _cohort(record, settings, data)
        config_class, run = _find(cohort.config), _find(cohort.run)
        return lambda folder: run(
            parse_config(config_class, {**settings, "data": place, "out": folder}, str(record.out / CONFIG)),
            progress=progress,
        )
    if kind == "anomaly-score":
        return _scoring(record, settings, data, model, progress)
    if kind == "augment-sample":
        return _sampling(record, settings, model, progress)
    known = ", ".join([*_COHORTS, "anomaly-score", "augment-sample"])
    raise AuditError(f"{record.out}: is a run of the kind {kind}, which is not made again; expected one of {known}")


def _cohort(record: RunRecord, settings: Mapping[str, Any], data: Sequence[Path]) -> Path:
    """The cohort of a run, by its digest.

    Raises:
        AuditError: If it is not here, or is another one.
    """
    if len(data) > 1:
        raise AuditError(f"{data[1]}: expected one cohort for --data")
    named = Path(str(settings.get("data")))
    tried = [*data] or [named, record.out.parent / named.name, record.out.parent.parent / named.name]
    place = next((path for path in tried if path.exists()), None)
    if place is None:
        raise AuditError(f"{named}: the cohort of the run is not here; say where it is with --data")
    config_class = _find(_COHORTS[str(record.content["pipeline"])].config)
    config = parse_config(config_class, {**settings, "data": place}, str(record.out / CONFIG))
    found = load_cohort(place, config.cohort).with_hashes().digest()
    if found != record.content.get("manifest_digest"):
        raise AuditError(
            f"{place}: is not the cohort that the run has read: digest {found[:12]}..., expected "
            f"{str(record.content.get('manifest_digest'))[:12]}...; medgen audit verify --data names what differs"
        )
    return place


def _scoring(
    record: RunRecord, settings: Mapping[str, Any], data: Sequence[Path], model: Path | None, progress: bool
) -> Callable[[Path], object]:
    given = _scans(record, settings, data)
    trained = _model(record, settings, model)
    score = _find("anomaly.score:score")
    rest = {key: value for key, value in settings.items() if key not in ("scans", "model", "model_sha256", "out")}
    return lambda folder: score(given, model=trained, out=folder, progress=progress, **rest)


def _sampling(
    record: RunRecord, settings: Mapping[str, Any], model: Path | None, progress: bool
) -> Callable[[Path], object]:
    trained = _model(record, settings, model)
    sample = _find("augment.sample:run")
    rest = {key: value for key, value in settings.items() if key not in ("model", "generators", "out")}
    return lambda folder: sample(trained, folder, progress=progress, **rest)


def _scans(record: RunRecord, settings: Mapping[str, Any], data: Sequence[Path]) -> list[Path]:
    """The scans of a scoring, each by its name in the configuration and its hash in the record.

    Raises:
        AuditError: If one is not here.
    """
    below = [path for root in data for path in ([root] if not root.is_dir() else [root, *sorted(root.rglob("*"))])]
    wanted = {digest for parts in record.inputs.values() for digest in parts.values()}
    found = []
    for text in settings["scans"]:
        names = [piece.partition("=") for piece in str(text).split(",")] if "=" in str(text) else [("", "", str(text))]
        parts = []
        for channel, sign, file in names:
            name = Path(file).name
            tried = [path for path in below if path.name == name] if data else [Path(file)]
            place = next((path for path in tried if path.exists() and digests_of(path) & wanted), None)
            if place is None:
                state = "is not here" if not any(path.exists() for path in tried) else "is not what the run has read"
                raise AuditError(f"{file}: {state}; say with --data in which folder the scans of the run are")
            parts.append(f"{channel}{sign}{place}")
        found.append(Path(",".join(parts)))
    return found


def _model(record: RunRecord, settings: Mapping[str, Any], model: Path | None) -> Path:
    """The model that a run has used, by the hashes of its weights.

    Raises:
        AuditError: If it is not here.
    """
    named = Path(str(settings.get("model")))
    run = record.model.get("run_id")
    beside = [other.out / "model" for other in records_below(record.out.parent) if run and other.run_id == run]
    weights = record.model.get("weights") or {}
    for path in [model] if model is not None else [named, *beside, *(own / named.name for own in beside)]:
        found = [(weights_in(path, name, digest), digest) for name, digest in weights.items()]
        if path.is_dir() and all(file.is_file() and sha256_file(file) == digest for file, digest in found):
            return path
    where = model if model is not None else named
    raise AuditError(f"{where}: is not the model that the run has used; say where it is with --model")


def _find(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"medgen.pipelines.{module}"), attribute)


@contextmanager
def _place(record: RunRecord, out: Path | None) -> Iterator[Path]:
    """A folder of the run's own name, which its report holds; a temporary one where none is given."""
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out}: exists and is not empty; expected a new folder for the run made again")
        yield out / record.out.name
        return
    with tempfile.TemporaryDirectory(prefix="medgen-replay-") as temporary:
        yield Path(temporary) / record.out.name


@contextmanager
def _same_threads(record: RunRecord) -> Iterator[None]:
    """As many threads as the run computed with, since the order of sums depends on them."""
    import torch

    path = record.out / ENVIRONMENT
    told = read_json(path).get("threads") if path.is_file() else None
    before = computing_threads() or torch.get_num_threads()
    if isinstance(told, int) and told > 0:
        torch.set_num_threads(told)
    try:
        yield
    finally:
        torch.set_num_threads(before)
