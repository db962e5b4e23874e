"""The metadata of an exported run as RO-Crate 1.2 and Workflow Run Crate: JSON-LD that catalogues read."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from typing import Any

from medgen.audit.record import RunRecord

METADATA = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.2"
_BEFORE = "https://w3id.org/ro/crate/1.1"
_WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
_WORKFLOW_PROFILE = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
# Process Run Crate, Workflow Run Crate and the Workflow RO-Crate that the second rests on.
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    _WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0"),
}
_FORMATS = {
    ".yaml": "application/yaml",
    ".md": "text/markdown",
    ".diff": "text/x-diff",
    ".jsonl": "application/jsonl",
    ".gz": "application/gzip",
    ".safetensors": "application/octet-stream",
    ".sig": "application/json",
}


def crate(
    record: RunRecord,
    contents: Mapping[str, bytes],
    described: Mapping[str, str],
    *,
    run: str,
    workflow: str,
    author: str = "",
    licence: str = "",
) -> dict[str, Any]:
    """The metadata of an export.

    Args:
        record: The run.
        contents: Path in the export → content, of every file that is in it.
        described: Path in the export → what the file is.
        run: The folder of the export that holds the files of the run.
        workflow: The configuration in the export.
        author: Who made the run; empty if that is not to be said.
        licence: Address of the terms under which the export may be used; empty if none are stated.
    """
    told = record.content
    versions = told.get("versions") or {}
    name = f"medgen {told.get('pipeline') or 'run'} {record.run_id[:8]}".strip()
    when = told.get("ended") or told.get("started")
    graph: list[dict[str, Any]] = [
        {
            "@id": METADATA,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            # The profiles below were written for RO-Crate 1.1, which 1.2 goes on with.
            "conformsTo": [{"@id": SPECIFICATION}, {"@id": _BEFORE}],
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": name,
            "description": f"Record of a run of medgen, {told.get('pipeline') or 'run'}: configuration, environment, "
            "code, metrics, hashes of every input and output. Research use only, not for clinical use.",
            "datePublished": when or "1970-01-01T00:00:00Z",
            "license": {"@id": licence or "#license"},
            **({"author": {"@id": "#author"}} if author else {}),
            "conformsTo": [{"@id": profile} for profile in PROFILES],
            "hasPart": [{"@id": item} for item in sorted(contents)],
            "mainEntity": {"@id": workflow},
            "mentions": [{"@id": "#run"}, {"@id": "#medgen"}],
        },
        {
            "@id": licence or "#license",
            "@type": "CreativeWork",
            "name": licence or "No licence stated",
            "description": "The terms under which this export may be used."
            if licence
            else "Who exported the run has not stated under which terms it may be used: ask them.",
        },
        *([{"@id": "#author", "@type": "Person", "name": author}] if author else []),
        *(
            {"@id": profile, "@type": ["CreativeWork", "Profile"], "name": title, "version": version}
            for profile, (title, version) in PROFILES.items()
        ),
        _workflow(workflow, record, contents[workflow]),
        {
            "@id": "#medgen-configuration",
            "@type": "ComputerLanguage",
            "name": "medgen configuration (YAML)",
            "alternateName": "medgen",
            "version": str(versions.get("medgen")),
            "url": {"@id": "README.md"},
        },
        {
            "@id": "#medgen",
            "@type": "SoftwareApplication",
            "name": "medgen",
            "description": "3D medical image synthesis and anomaly detection for small cohorts.",
            "version": str(versions.get("medgen")),
            "url": {"@id": "README.md"},
            "identifier": f"commit {told.get('commit')}",
            "softwareRequirements": ", ".join(f"{key} {value}" for key, value in versions.items() if key != "medgen"),
        },
        _action(record, contents, run, workflow, author),
        {
            "@id": _WORKFLOW_PROFILE,
            "@type": "CreativeWork",
            "name": "Bioschemas ComputationalWorkflow",
            "version": "1.0-RELEASE",
        },
        *_parameters(record),
    ]
    graph += [
        _file(path, content, described.get(path, f"Output {path.removeprefix(f'{run}/')} of the run."))
        for path, content in sorted(contents.items())
        if path != workflow
    ]
    return {"@context": f"{SPECIFICATION}/context", "@graph": graph}


def _workflow(workflow: str, record: RunRecord, content: bytes) -> dict[str, Any]:
    """The configuration, which is the workflow that medgen carries out."""
    return {
        **_file(workflow, content, "The configuration as resolved, with which the run can be repeated."),
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": f"configuration of {record.content.get('pipeline') or 'the run'}",
        "version": str(record.content.get("config_sha256")),
        "programmingLanguage": {"@id": "#medgen-configuration"},
        "conformsTo": {"@id": _WORKFLOW_PROFILE},
    }


def _action(record: RunRecord, contents: Mapping[str, bytes], run: str, workflow: str, author: str) -> dict[str, Any]:
    told = record.content
    results = [name for name in record.files if f"{run}/{name}" in contents and f"{run}/{name}" != workflow]
    action: dict[str, Any] = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Run {record.run_id or record.out.name}",
        "description": f"medgen {told.get('pipeline') or ''}".strip(),
        "identifier": record.run_id or record.out.name,
        "instrument": {"@id": workflow},
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "object": [{"@id": "cohort.csv"}, *({"@id": own["@id"]} for own in _parameters(record))],
        "result": [{"@id": f"{run}/{name}"} for name in sorted(results)],
    }
    if author:
        action["agent"] = {"@id": "#author"}
    for key, name in (("startTime", "started"), ("endTime", "ended")):
        if told.get(name):
            action[key] = str(told[name]).replace("Z", "+00:00")
    return action


def _parameters(record: RunRecord) -> list[dict[str, Any]]:
    """What decides the results beside the scans: seed, digests of settings and cohort, the model that was used."""
    told = record.content
    values = {
        "seed": told.get("seed"),
        "config_sha256": told.get("config_sha256"),
        "manifest_digest": told.get("manifest_digest"),
        "model_sha256": record.model.get("sha256"),
    }
    return [
        {"@id": f"#parameter-{name}", "@type": "PropertyValue", "name": name, "value": str(value)}
        for name, value in values.items()
        if value is not None
    ]


def _file(path: str, content: bytes, description: str) -> dict[str, Any]:
    suffix = f".{path.rpartition('.')[2]}"
    kind = _FORMATS.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
    return {
        "@id": path,
        "@type": "File",
        "name": path,
        "description": description,
        "encodingFormat": kind,
        "contentSize": str(len(content)),
        "sha256": hashlib.sha256(content).hexdigest(),
        **({"about": {"@id": "./"}} if path == "README.md" else {}),
    }
