"""Small finished runs, made by hand: one that trained a model, one that scored with it, one that made scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgen.runs import outputs, tracking
from medgen.system import files


def digest(text: str) -> str:
    """A hash to tell files apart by."""
    return files.sha256_json(text)


CASES = {name: {"image": digest(f"{name} image"), "mask": digest(f"{name} mask")} for name in ("a", "b", "a-b")}


def finished(out: Path, pipeline: str, contents: dict[str, str], inputs: Any = None, model: Any = None) -> Path:
    """A tracked run that left files, and its record."""
    with tracking.start(pipeline, out, config={"seed": 3}, seed=3, manifest_digest="cd" * 32) as run:
        files.write_text(out / "config.yaml", "seed: 3\n")
        for name, text in contents.items():
            files.write_text(out / name, text.replace("RUN_ID", run.id))
        if inputs is not None:
            outputs.write_inputs(out, inputs, model)
    outputs.write_outputs_record(out)
    return out


def trained(root: Path) -> Path:
    """An anomaly run that learnt from ``a`` and ``a-b`` and held ``b`` out."""
    meta = {"run_id": "RUN_ID", "inputs": {name: CASES[name] for name in ("a", "a-b")}, "kind": "anomaly"}
    artifact = files.sealed({"format": "medgen-artifact", "meta": meta})
    artifact["sha256"] = digest("the model")
    contents = {
        "model/artifact.json": files.json_text(artifact),
        "model/weights-0.safetensors": "weights",
        "heatmaps/b.nii.gz": "heat of b",
        "truth/b-implant1-blur.nii.gz": "truth",
        "scans.csv": "case,p\nb,0.1\nb-implant1-blur,0.02\n",
        "calibration.csv": "subject,top\na,1\na-b,2\n",
        "splits.csv": "case,subject,part\na,a,fold-1\na-b,a-b,fold-1\nb,b,test\n",
        "metrics.json": '{"auroc": 0.7}\n',
        "report.html": '<p>b</p><img alt="x" src="data:image/png;base64,AAAA"><p>end</p>',
    }
    return finished(root / "anomaly", "anomaly", contents, CASES)


def scored(root: Path, run: Path) -> Path:
    """A scoring of ``new`` by that model."""
    record = files.read_json(run / outputs.RECORD)
    model = {
        "sha256": digest("the model"),
        "weights": {"model/weights-0.safetensors": record["files"]["model/weights-0.safetensors"]},
        "run_id": record["run_id"],
        "cases": ["a", "a-b"],
        "inputs": {name: CASES[name] for name in ("a", "a-b")},
    }
    contents = {
        "heatmaps/new.nii.gz": "heat of new",
        "dicom/new/sr.dcm": "report",
        "bids/sub-new/anat/sub-new_heat.nii.gz": "heat as BIDS",
        "findings.csv": "case,finding,peak\nnew,1,5.5\n",
        "metrics.json": '{"scans": {"new": {}}}\n',
    }
    return finished(root / "scored", "anomaly-score", contents, {"new": {"image": digest("new image")}}, model)


def generated(root: Path) -> Path:
    """An augment run whose generator learnt from all cases, and whose only scan is ``b`` in another shape."""
    backend = {"format": "medgen-backend", "meta": {"name": "deform"}, "sha256": digest("the generator")}
    learnt = {"cases": [{"case": name, "subject": name, "sha256": own} for name, own in CASES.items()], "sha256": "x"}
    scans = {"imagesTr/syn-0001_0000.nii.gz": "image", "labelsTr/syn-0001.nii.gz": "labels"}
    record = files.sealed(
        {
            "format": "medgen-synthetic-scan",
            "version": 1,
            "id": "syn-0001",
            "backend": "deform",
            "generator_sha256": digest("the generator"),
            "seed": 11,
            "stamp": "internal use only",
            "parents": [{"case": "b", "subject": "b", "sha256": CASES["b"]}],
            "files": {name: digest(text) for name, text in scans.items()},
        }
    )
    contents = {
        "model/deform/backend.json": files.json_text(backend),
        "model/deform/arrays.safetensors": "arrays",
        "model/filter/backend.json": files.json_text({"meta": {}, "sha256": digest("the filter")}),
        "synthetic/provenance/learnt_from.json": files.json_text(learnt),
        "synthetic/provenance/syn-0001.json": files.json_text(record),
        **{f"synthetic/{name}": text for name, text in scans.items()},
        "splits.csv": "case,subject,part\na,a,labelled\nb,b,labelled\na-b,a-b,test\n",
    }
    return finished(root / "augment", "augment", contents, CASES)
