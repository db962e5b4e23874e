"""One zip that proves a run to somebody else: what it did and with what, without patients unless they are asked for."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import yaml

from medgen.audit.export.crate import METADATA, crate
from medgen.audit.record import RunRecord, find_record
from medgen.audit.verify import verify_run
from medgen.config import read_yaml
from medgen.data.cases import COLUMNS
from medgen.errors import AuditError, DataError
from medgen.runs.chain import tombstone
from medgen.runs.journal import NAME as JOURNAL
from medgen.runs.outputs import CONFIG, RECORD, SIGNATURE
from medgen.system.files import atomic_path, json_text

MANIFEST = "manifest-sha256.txt"
VERIFIER = "verify.py"
README = "README.md"
COHORT = "cohort.csv"
LEFT_OUT = "left-out.csv"
REPORT = "report-without-pictures.html"
CONFIGURATION = "configuration-without-scans.yaml"
# Below this folder of the zip lie the files of the run, byte for byte.
RUN = "run"
# Text that says what was done, not what was seen in a patient.
_TEXT = (".json", ".yaml", ".md", ".csv", ".diff", ".jsonl", ".txt")
_PER_CASE = {"case", "scan", "subject", "id"}
_NAMING = ("scans", "covariates")
_PER_CASE_FILES = ("findings.json", "inputs.json")
_PICTURE = re.compile(r"<img\b[^>]*\bsrc=[\"']data:image/[^>]*>", re.IGNORECASE)
_EMBEDDED = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=\s]+")


@dataclass
class Export:
    """What goes into the zip.

    Attributes:
        record: The run.
        contents: Path in the zip → content.
        left_out: Output of the run → why it is not in the zip.
    """

    record: RunRecord
    contents: dict[str, bytes] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def export_run(target: Path, out: Path, *, patient_data: bool = False, author: str = "", licence: str = "") -> Export:
    """Write a run's record and all that may be shown to others as one zip, with a program that verifies it.

    The zip is a Workflow Run RO-Crate (Leo et al., Recording provenance of workflow runs with RO-Crate, PLoS ONE 19,
    2024). Without ``patient_data``, images, weights, pages with pictures and tables with a row for each scan stay out;
    their hashes are in the record all the same.

    Args:
        target: Folder of a finished run.
        out: The zip; must not exist.
        patient_data: Put every output in.
        author: Who made the run; empty if that is not to be said.
        licence: Address of the terms under which the export may be used; empty if none are stated.

    Raises:
        AuditError: If there is no run, or it is not as its record says.
        DataError: If the zip exists or cannot be written.
    """
    record, part = find_record(target)
    if part:
        raise AuditError(f"{target}: is a part of a run; expected the folder of the run, {record.out}")
    if problems := verify_run(record.out).problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise AuditError(f"{record.out}: is not as its record says, so it is not exported: {problems[0]}{more}")
    if out.absolute().is_relative_to(record.out.absolute()):
        raise DataError(f"{out}: lies in the run, all of whose files are recorded; choose a place elsewhere")
    if not out.absolute().parent.is_dir():
        raise DataError(f"{out}: its folder is not there; make it, or choose another")
    if out.exists():
        raise DataError(f"{out}: exists already; choose another name")
    made = _collected(record, patient_data)
    workflow = CONFIGURATION if CONFIGURATION in made.contents else f"{RUN}/{CONFIG}"
    about = {"run": RUN, "workflow": workflow, "author": author, "licence": licence}
    made.contents[METADATA] = json_text(crate(record, made.contents, dict(_held(made)), **about)).encode()
    listing = "".join(f"{_sha(content)}  {name}\n" for name, content in sorted(made.contents.items()))
    made.contents[MANIFEST] = listing.encode()
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(made.contents.items()):
            # One date for all, so that the same run gives the same zip.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return made


def _collected(record: RunRecord, patient_data: bool) -> Export:
    made, out = Export(record), record.out
    for name in (RECORD, SIGNATURE, JOURNAL):
        if (out / name).is_file():
            made.contents[f"{RUN}/{name}"] = (out / name).read_bytes()
    single = bool(record.inputs) and bool(record.model)
    if single and not patient_data and f"{RUN}/{JOURNAL}" in made.contents:
        made.contents[f"{RUN}/{JOURNAL}"] = _journal_of_single_scans(made.contents[f"{RUN}/{JOURNAL}"])
    for name in record.files:
        content = (out / name).read_bytes()
        if not patient_data and (why := _reason(name, content, single=single)):
            made.left_out[name] = why
        else:
            made.contents[f"{RUN}/{name}"] = content
    if "report.html" in made.left_out and not single:
        made.contents[REPORT] = _without_pictures((out / "report.html").read_bytes())
    if f"{RUN}/{CONFIG}" not in made.contents:
        made.contents[CONFIGURATION] = _configuration(record)
    made.contents[COHORT] = _cohort(record)
    rows = sorted(made.left_out.items())
    made.contents[LEFT_OUT] = _table(
        ["output", "sha256", "why"], [[name, record.files[name], why] for name, why in rows]
    )
    verifier = package_files("medgen.audit.export").joinpath("stand_alone.py").read_bytes()
    made.contents[VERIFIER] = verifier
    made.contents[README] = _readme(record, made, patient_data).encode()
    return made


def _reason(name: str, content: bytes, *, single: bool) -> str:
    """Why an output stays out of an export without patients; empty if it does not."""
    file = name.rpartition("/")[2]
    if name.endswith(".safetensors"):
        return "weights may hold what they have learnt from patients"
    if not name.endswith(_TEXT):
        return "images, pages with pictures and objects for other programs show patients"
    if single and file in ("metrics.json", "scans.csv", CONFIG):
        return "what was found in single scans, or their names"
    if file in _PER_CASE_FILES or (name.endswith(".csv") and _PER_CASE & set(_header(content))):
        return "it has a row for each scan or subject"
    return ""


def _journal_of_single_scans(content: bytes) -> bytes:
    """A journal that says when what began and ended, and nothing of what was found; its chain holds as before."""
    lines = []
    for line in content.splitlines():
        try:
            entry = json.loads(line)
            kept = entry["kind"] in ("start", "end")
            lines.append(line if kept else tombstone(entry, line))
        except (LookupError, TypeError, ValueError):
            # A torn line is part of the chain.
            lines.append(line)
    return b"".join(line + b"\n" for line in lines)


def _header(content: bytes) -> list[str]:
    first = content.split(b"\n", 1)[0].decode("utf-8", "replace")
    return next(csv.reader([first]), [])


def _without_pictures(page: bytes) -> bytes:
    """A report without anything that shows a scan: pictures, and whatever else is embedded in it."""
    text = page.decode("utf-8")
    text = _PICTURE.sub("<em>[a picture was left out, since it shows patients]</em>", text)
    return _EMBEDDED.sub("data:,", text).encode()


def _configuration(record: RunRecord) -> bytes:
    """The configuration without what names scans or people."""
    settings = read_yaml(record.out / CONFIG)
    kept = {key: value for key, value in settings.items() if key not in _NAMING}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).encode()


def _cohort(record: RunRecord) -> bytes:
    """Who was in the run: id, subject and hashes, without names of files and without age, sex or scanner."""
    path = record.out / "manifest.csv"
    columns = [name for name in COLUMNS if name not in ("image", "mask")]
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            return _table(columns, [[row.get(name) or "" for name in columns] for row in csv.DictReader(file)])
    rows = [[case, part, digest] for case, parts in record.inputs.items() for part, digest in parts.items()]
    return _table(["id", "part", "sha256"], rows)


def _table(columns: list[str], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def _readme(record: RunRecord, made: Export, patient_data: bool) -> str:
    told: Mapping[str, Any] = record.content
    versions = told.get("versions") or {}
    lines = [
        f"# {record.called}",
        "",
        f"A run of medgen {versions.get('medgen')} (commit {told.get('commit')}), from {told.get('started')} to "
        f"{told.get('ended')}, seed {told.get('seed')}. Research use only, not for clinical use.",
        "",
        "## Verify",
        "",
        f"Python 3.9 or newer is enough, nothing needs to be installed: `python {VERIFIER}` in this folder, or",
        f"`python {VERIFIER} EXPORT.zip [PUBLIC_KEY.pub]`. What it checks stands at its beginning.",
        "",
        "## What is here",
        "",
        *(f"* `{name}`: {words}" for name, words in _held(made)),
        "",
        f"{len(made.left_out)} of the run's {len(record.files)} outputs are left out"
        + (", and none because it shows patients." if patient_data else f", for the reasons in `{LEFT_OUT}`."),
        "Scans are called by the ids that the run knows them by, and told by the hash of their files.",
        "",
    ]
    return "\n".join(lines)


def _held(made: Export) -> Iterator[tuple[str, str]]:
    """What the files of an export are, of those that are there."""
    known = {
        README: "what is here, and how it is verified",
        VERIFIER: "verifies all this with Python alone",
        METADATA: "the run as a Workflow Run RO-Crate, for programs",
        MANIFEST: "the hash of every file of this export",
        f"{RUN}/{RECORD}": "the record of the run: the hash of every output, input and weight, and the journal's end",
        f"{RUN}/{SIGNATURE}": "who signed the record",
        f"{RUN}/{JOURNAL}": "what was tracked, a chain of hashes; without what a scoring has found",
        f"{RUN}/{CONFIG}": "the configuration as resolved, with every seed",
        CONFIGURATION: "the configuration as resolved, without what names scans or people",
        f"{RUN}/environment.json": "packages, processor and settings of the system",
        f"{RUN}/code.diff": "how the code differed from its commit",
        f"{RUN}/metrics.json": "every number of the report",
        f"{RUN}/methods.md": "what was done, for a paper",
        REPORT: "the report without anything that shows a scan",
        COHORT: "the scans that were read, by id and hash",
        LEFT_OUT: "outputs that are not here, with their hashes and the reason",
    }
    yield from ((name, words) for name, words in known.items() if name in made.contents or name in (METADATA, MANIFEST))


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
