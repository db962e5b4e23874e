"""Commands that verify, trace and remake the outputs of a run, and look for leaks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from medgen.errors import ConfigError, DataError

from .answer import Answer
from .carry_out import bar, group
from .options import Device, command

audit_app = group("audit", "Verify and trace the outputs of a run.", "Example: medgen audit verify runs/anomaly")


_RUN = "the output folder of a finished run"

Runs = Annotated[
    list[Path] | None,
    typer.Option("--runs", metavar="FOLDER", help="Where other runs are; default: beside the run. Repeatable."),
]


@command(audit_app, "verify", "medgen audit verify runs/anomaly")
def audit_verify(
    target: Annotated[Path, typer.Argument(help="Output folder of a run, or one file in it.")],
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="PATH", help="Where the scans are that the run has read. Repeatable."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="Model that the run has used; default: in the run that trained it.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Public key of who should have signed the run, PEM or OpenSSH.")
    ] = None,
) -> Answer:
    """Compare outputs, inputs, weights, journal and signature of a run with its record; exit 2 on any difference."""
    from ..preflight import check_path

    check_path(target, _RUN)
    from medgen.audit.verify import verify_run

    found = verify_run(target, data=data or (), model=model, key=key)
    told = found.lines if not found.problems else []
    lines = () if found.problems else (f"{target}: every output is as the run left it{found.apart_from}", *told)
    facts = {
        "target": target,
        "problems": found.problems,
        "outputs": found.outputs,
        "inputs": {"same": found.inputs, "not_looked_at": found.unseen_inputs},
        "weights": {"same": found.weights, "not_looked_at": found.unseen_weights},
        "journal": found.journal,
        "signed": found.signed,
        "forgotten": found.forgotten,
    }
    return Answer(facts, lines, tuple(map(str, found.problems)), 2 if found.problems else 0)


@command(audit_app, "trace", "medgen audit trace runs/anomaly/heatmaps/case-001.nii.gz")
def audit_trace(
    target: Annotated[Path, typer.Argument(help="A run's folder, a file of it or a copy of one; with --down a scan.")],
    case: Annotated[
        str | None, typer.Option("--case", help="Of a table or report of many cases, the one that is meant.")
    ] = None,
    row: Annotated[
        int | None, typer.Option("--row", help="Of a CSV table, the row that is meant; 1 is below the header.")
    ] = None,
    down: Annotated[
        bool,
        typer.Option("--down", help="The other way: all that was made from a scan, given by its file or its name."),
    ] = False,
    runs: Runs = None,
    graph: Annotated[
        Path | None, typer.Option("--graph", metavar="FILE.svg", help="Also draw what the file was made from.")
    ] = None,
) -> Answer:
    """Name every scan, weight, setting, code and machine that an output comes from, each with its hash."""
    from medgen.system.files import write_text

    if down:
        if case is not None or row is not None or graph is not None:
            raise ConfigError("--down goes with --runs alone; leave --case, --row and --graph out")
        return _down(target, runs or [Path()])
    from ..preflight import check_path

    if not any((folder / "outputs.json").is_file() for folder in target.absolute().parents):
        # What a run wrote and is gone is in its record all the same.
        check_path(target, "a file that medgen wrote, or the folder of its run")
    from medgen.audit.lineage.graph import svg
    from medgen.audit.lineage.text import lines
    from medgen.audit.lineage.trace import trace

    if graph is not None and graph.suffix != ".svg":
        raise ConfigError(f"{graph}: expected a name that ends with .svg")
    if case == "":
        raise ConfigError("--case: expected what a case of the table is called, found nothing")
    found = trace(target, case=case or "", row=row, runs=runs or ())
    drawn = []
    if graph is not None:
        write_text(graph, svg(found))
        drawn.append(f"graph: {graph}")
    return Answer({"lineage": found, "graph": graph}, (*lines(found), *drawn))


def _down(scan: Path, runs: list[Path]) -> Answer:
    from medgen.audit.lineage.affected import affected

    found = affected(str(scan), runs)
    lines = [line for own in found for line in own.lines]
    return Answer(
        {"scan": scan, "runs": [own.to_plain() for own in found]}, tuple(lines) or (f"{scan}: no run has read it",)
    )


@command(audit_app, "forget", "medgen audit forget case-001 runs --dry-run")
def audit_forget(
    case: Annotated[str, typer.Argument(help="What the case is called in the runs, or its file.")],
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders with runs below them.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
) -> Answer:
    """Remove a case and what was made from it from runs; says what cannot be undone; exit 1 if work is left."""
    from ..preflight import check_folder

    for folder in runs:
        check_folder(folder, "a run or a folder of runs")
    from medgen.audit.forgetting.cohorts import cohorts_with, prepared_with
    from medgen.audit.forgetting.forget import check_unaltered, forget, forgotten_already, plan, still_named, unfinished
    from medgen.audit.forgetting.names import Names

    left = [f"{out}: has not ended and names the case; finish or delete it" for out in unfinished(case, runs)]
    names = Names([case], "")
    left += [
        f"{folder}: a cohort that holds the case; delete its files and its row" for folder in cohorts_with(names, runs)
    ]
    if dry_run:
        found = plan(case, runs)
        for own in found:
            check_unaltered(own.record)
        lines = tuple(line for own in found for line in own.lines)
        lines += tuple(f"{folder}: a prepared cohort that holds the case" for folder in prepared_with(names, runs))
        return Answer({"runs": [own.to_plain() for own in found], "left": left}, lines, tuple(left), 1 if left else 0)
    done = forget(case, runs)
    told = [line for own in done for line in own.said]
    if not done and not forgotten_already(case, runs):
        raise DataError(f"{case}: no run below {', '.join(map(str, runs))} has read it; expected a scan that one has")
    if not done:
        told.append(f"{case}: forgotten already ({', '.join(forgotten_already(case, runs))})")
    for path in still_named(done, case, runs):
        left.append(f"{path}: names the case; its run calls it otherwise: forget it there by that name")
    facts = [
        {"run": own.out, "removed": len(own.removed), "edited": sorted(own.edited), "remains": own.remains}
        for own in done
    ]
    return Answer({"runs": facts, "left": left}, tuple(told), tuple(left), 1 if left else 0)


@command(audit_app, "key", "medgen audit key ~/medgen.pem")
def audit_key(
    path: Annotated[Path, typer.Argument(help="File of the private key; FILE.pub becomes the public one.")],
) -> Answer:
    """Make a pair of keys to sign runs with; its passphrase is taken from MEDGEN_KEY_PASSPHRASE, or there is none."""
    if path.exists():
        raise ConfigError(f"{path}: exists already; choose another name for the key")
    from medgen.audit.signature import new_key

    found = new_key(path, _passphrase())
    locked = "encrypted" if _passphrase() else "not encrypted: keep it where nobody else can read it"
    lines = (f"private key: {path} ({locked})", f"public key:  {path}.pub", f"fingerprint: {found}")
    return Answer({"private": path, "public": f"{path}.pub", "fingerprint": found}, lines)


@command(audit_app, "sign", "medgen audit sign runs/anomaly --key medgen.pem")
def audit_sign(
    target: Annotated[Path, typer.Argument(help="Output folder of a finished run.")],
    key: Annotated[Path, typer.Option("--key", help="Private Ed25519 key, PEM or OpenSSH, as medgen audit key makes.")],
) -> Answer:
    """Sign the record of a run, and so all that it lists; a run that is not as its record says is not signed."""
    from ..preflight import check_path

    check_path(target, _RUN)
    check_path(key, "a private key, as medgen audit key makes")
    from medgen.audit.signature import sign
    from medgen.audit.verify import verify_run

    found = verify_run(target)
    if found.problems:
        problems = tuple(map(str, found.problems))
        return Answer({"target": target, "problems": problems}, (), (*problems, f"{target}: not signed"), 2)
    signed = sign(target, key, _passphrase())
    return Answer({"target": target, **vars(signed)}, (f"{target}: signed with the key {signed.key}",))


def _passphrase() -> str:
    return os.environ.get("MEDGEN_KEY_PASSPHRASE", "")


@command(audit_app, "sync", "medgen audit sync runs/anomaly")
def audit_sync(target: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> Answer:
    """Send what a run could not deliver to the MLflow store; what has arrived is not sent twice."""
    from medgen.runs.tracking import sync

    sent = sync(target)
    return Answer({"target": target, "sent": sent}, (f"{sent} record(s) sent",))


@command(audit_app, "replay", "medgen audit replay runs/augment/synthetic/provenance/syn-0001.json")
def audit_replay(
    target: Annotated[
        Path,
        typer.Argument(help="Folder of a run; or a record, a synthetic scan, or the folder of a synthetic cohort."),
    ],
    model: Annotated[
        Path | None, typer.Option("--model", help="Model that was used; default: where the record says, or near it.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="PATH", help="Of a run, where the scans are that it has read. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep what is made again here.")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", min=0, help="Of a run, differences to accept, as a share of each number's range."),
    ] = None,
    device: Device = None,
) -> Answer:
    """Make a run, or synthetic scans, again from the record and compare every byte; exit 1 if any differs."""
    from medgen.runs.outputs import RECORD

    from ..preflight import check_path

    check_path(target, "a run, a record, a synthetic scan or the folder of a cohort")
    if target.is_dir() and (target / RECORD).is_file():
        return _replay_run(target, model=model, data=data or (), out=out, tolerance=tolerance, device=device)
    if data or tolerance is not None:
        raise ConfigError(f"{target}: is no run; --data and --tolerance are for runs")
    from medgen.audit.replay import replay

    with tempfile.TemporaryDirectory() as temporary, bar("replaying") as tick:
        results = replay(target, out or Path(temporary), model=model, device=device or "auto", tick=tick)
    found = [{"id": item.id, "identical": item.identical, "differences": item.differences} for item in results]
    code = 0 if all(item.identical for item in results) else 1
    return Answer({"target": target, "scans": found}, tuple(map(str, results)), exit_code=code)


def _replay_run(target: Path, **how: Any) -> Answer:
    from ..replay.again import replay_run

    found = replay_run(target, **how)
    facts = {"target": target, "files": found.files, "other": found.other, "tolerance": found.tolerance}
    return Answer(facts, tuple(found.lines), exit_code=1 if found.differing else 0)


@command(audit_app, "export", "medgen audit export runs/anomaly --out anomaly-run.zip")
def audit_export(
    target: Annotated[Path, typer.Argument(help="Output folder of a finished run.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.zip", help="The zip; must not exist.")],
    patient_data: Annotated[
        bool, typer.Option("--patient-data", help="Put images, weights and tables of single scans in as well.")
    ] = False,
    author: Annotated[str, typer.Option("--author", help="Who made the run, for the metadata.")] = "",
    licence: Annotated[
        str, typer.Option("--license", metavar="URL", help="Terms under which the export may be used.")
    ] = "",
) -> Answer:
    """Write the record of a run as one zip (RO-Crate) that others verify with Python alone; no patient unless asked."""
    if out.suffix != ".zip":
        raise ConfigError(f"{out}: expected a name that ends with .zip")
    from ..preflight import check_path

    check_path(target, _RUN)
    from medgen.audit.export.zipped import export_run

    made = export_run(target, out, patient_data=patient_data, author=author, licence=licence)
    lines = (
        f"{out}: {len(made.contents)} files; {len(made.left_out)} of {len(made.record.files)} outputs are left out",
        f"to verify: python -m zipfile -e {out} unpacked && python unpacked/verify.py",
    )
    return Answer({"out": out, "files": sorted(made.contents), "left_out": made.left_out}, lines)


@command(audit_app, "leaks", "medgen audit leaks runs/augment/synthetic splits_final.json")
def audit_leaks(
    cohort: Annotated[Path, typer.Argument(metavar="SYNTHETIC", help="Folder of a synthetic cohort.")],
    held_out: Annotated[
        Path,
        typer.Argument(
            metavar="HELD_OUT",
            help="splits.csv, nnU-Net's splits_final.json, a list of case ids, or a folder of held-out scans.",
        ),
    ],
) -> Answer:
    """Say whether anybody in validation or test is a parent of, or was learnt from for, a synthetic cohort."""
    from ..preflight import check_folder, check_path

    check_folder(cohort, "a synthetic cohort")
    check_path(held_out, "splits.csv, splits_final.json, a list of case ids, or a folder of scans")
    from medgen.audit.leaks import find_leaks

    leaks, count = find_leaks(cohort, held_out)
    line = f"{count} held-out case(s), {len(leaks)} known to the synthetic cohort"
    data = {"held_out": count, "leaks": [vars(leak) for leak in leaks]}
    return Answer(data, (line,), tuple(map(str, leaks)), 2 if leaks else 0)
