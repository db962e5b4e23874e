"""Finished runs as their records show them, without training anything: small, and with every kind of entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from medgen.runs.outputs import RECORD
from medgen.system import files


def interval(estimate: float, n: int = 4) -> dict[str, Any]:
    return {"estimate": estimate, "low": estimate / 2, "high": min(1.5 * estimate, 9.0), "n": n, "level": 0.95}


RECIPE = {
    "shape": [20, 24, 20],
    "spacing": [8.0, 8.0, 8.0],
    "align": "center",
    "percentiles": [1.0, 99.0],
    "window": None,
    "mask_background": True,
    "modality": "MR",
    "brain": "auto",
    "bias_field": "none",
    "intensity": "percentiles",
}
TRAINING = {"steps": 30, "batch_size": 4, "lr": 0.001, "weight_decay": 0.0, "ema": 0.9}
PEOPLE = [f"sim-{number:04d}" for number in range(6)]


def _shares(found: int) -> list[dict[str, Any]]:
    return [{"level": 0.25, "found": 0, "share": interval(0.1)}, {"level": 0.5, "found": found, "share": interval(0.3)}]


ANOMALY_METRICS: Mapping[str, Any] = {
    "preprocess": RECIPE,
    "models": [{"family": "vae", "parameters": 1234}],
    "init": {},
    "threshold": 3.353,
    "false_findings": {"false_findings": 0.5, "threshold": 2.937, "measured": interval(0.5)},
    "calibration_subjects": 4,
    "channels": ["selfsup", "nll"],
    "scan_score": "top",
    "excluded": [],
    "adjusted": {"words": "not adjusted for any covariate"},
    "healthy": 2,
    "implanted": 4,
    "kinds": {"foreign": 2, "hypointense": 2},
    "target_fpr": 0.2,
    "voxel": [
        {"name": "blur (z)", "ap": interval(0.1), "auroc": interval(0.2), "dice": interval(0.3)},
        {"name": "fused", "ap": interval(0.31), "auroc": interval(0.8), "dice": interval(0.35)},
    ],
    "scan": [
        {
            "name": "top",
            "auroc": interval(0.62),
            "ap": interval(0.83),
            "fpr": interval(0.11),
            "detected": interval(0.25),
        }
    ],
    "best_raw": "blur (raw)",
    "best_z": "blur (z)",
    "gain_raw": interval(0.21),
    "gain_z": interval(0.2),
    "dice_at_threshold": interval(0.05),
    "findings": {
        "level": 0.5,
        "groups": [
            {"by": "all", "name": "all", "scans": 4, "shares": _shares(1)},
            {"by": "kind", "name": "foreign", "scans": 2, "shares": _shares(0)},
            {"by": "kind", "name": "hypointense", "scans": 2, "shares": _shares(1)},
        ],
        "healthy": [{"level": 0.5, "measured": interval(0.33)}],
        "missed": [{"kind": "foreign"}, {"kind": "foreign"}, {"kind": "hypointense"}],
    },
    "any_hot": interval(0.02),
    "controls": {"zero amplitude": interval(1.2), "permuted masks": interval(0.7)},
    "gate": {"abstained": interval(0.03), "scans_abstained": 0, "limits": {"coverage": {}, "likeness": {}}},
    "groups": [{"column": "sex", "group": "female", "source": "test", "subjects": 2, "flagged": 1}],
    "suspects": [{"case": PEOPLE[0]}],
    "detectability": {
        "smallest": [
            {"region": "left deep", "contrast": -3.0, "radius_mm": 16.0, "subjects": 2, "detected": 2},
            {"region": "right deep", "contrast": 3.0, "radius_mm": None, "subjects": 2, "detected": 0},
        ]
    },
    "leverage": {"decides": True, "found": 2, "found_without": 3},
    "artefacts": {"rows": [{"artefact": "motion", "scans": 4, "named": 3, "refused": 1}]},
}
AUGMENT_METRICS: Mapping[str, Any] = {
    "grid": {"shape": [16, 24, 16], "spacing": [12.0, 10.0, 12.0]},
    "generators": {
        "deform": {"sha256": "a" * 64, "accepted": 2, "rejected": 1, "acceptance": 2 / 3, "alarms": []},
        "joint": {"sha256": "b" * 64, "accepted": 0, "rejected": 4, "acceptance": 0.0, "alarms": ["collapsed"]},
    },
    "audit": {
        "valid": True,
        "backends": {
            "deform": {"stamp": "internal use only", "reason": "its scans are transformed patient scans"},
            "joint": {"stamp": "not audited", "reason": "no scan passed the filter"},
        },
    },
    "fidelity": {
        "comparisons": {
            "deform": {"held-out": {"measures": {"kid": {"goal": [None, 3.0], "ratio": interval(2.5), "met": True}}}}
        }
    },
    "value": [
        {"arm": "standard", "subjects": 3, "metric": "dice", "label": None, "interval": interval(0.7)},
        {"arm": "standard", "subjects": 3, "metric": "dice", "label": 1, "interval": interval(0.6)},
    ],
    "comparisons": [
        {
            "arm": "standard+synthetic",
            "ordinary": "standard",
            "subjects": 3,
            "difference": interval(0.01),
            "p_holm": 0.4,
        }
    ],
    "choices": [{"subjects": 3, "arm": "standard+synthetic", "on": "validation"}],
    "best_ordinary": {"3": "standard"},
    "caution": "2 seeds cannot show how much trainings differ by chance.",
    "init": None,
    "verdict": "NO EVIDENCE",
    "sentence": "NO EVIDENCE: the difference may be chance.",
}
TRAIN_METRICS: Mapping[str, Any] = {"steps": 6, "last.loss": -0.9379, "last.validation": -0.55, "last.rmse": 0.06}


def anomaly_run(out: Path) -> Path:
    """The records of an anomaly run."""
    artifact = {
        "sha256": "c" * 64,
        "models": [{"family": "vae"}, {"family": "vae"}],
        "preprocess": RECIPE,
        "meta": {
            "kind": "anomaly",
            "channels": ["1"],
            "cases": PEOPLE[:4],
            "lineage": {"subjects": PEOPLE[:4]},
            "gate": True,
            "models_per_fold": 1,
            "scores": ["selfsup", "knn_pca"],
            "choice": {"words": "No candidate is clearly better."},
            "calibration": {
                "subjects": 4,
                "target_fpr": 0.2,
                "threshold": 3.353,
                "false_findings": 0.5,
                "findings_threshold": 2.937,
            },
        },
    }
    config = {"training": TRAINING, "anomaly": {"folds": 2}, "evaluation": {"bootstrap": 200}, "data": "cohort"}
    parts = ["fold-1", "fold-1", "fold-2", "fold-2", "test", "test"]
    return _write(out, ANOMALY_METRICS, config, parts, {"model/artifact.json": artifact})


def augment_run(out: Path) -> Path:
    """The records of an augment run with a synthetic cohort of two scans, without its card."""
    learnt = [
        {"case": name, "subject": name, "labelled": True, "sha256": {f"{name}.nii": "d" * 64}} for name in PEOPLE[:3]
    ]
    scan = {"backend": "deform", "modality": "MR T1"}
    documents = {
        "model/deform/backend.json": {
            "meta": {"labels": "deform", "painter": "parent", "contains_patient_scans": True}
        },
        "synthetic/provenance/syn-0001.json": scan,
        "synthetic/provenance/syn-0002.json": scan,
        "synthetic/provenance/learnt_from.json": {"cases": learnt},
        "synthetic/provenance/audit.json": {},
        "synthetic/dataset.json": {"labels": {"background": 0, "CSF": 1}},
    }
    config = {
        "modality": "MR T1",
        "value": {"bootstrap": 200},
        "preprocess": {"shape": [16, 24, 16], "spacing": [12, 10, 12]},
    }
    return _write(out, AUGMENT_METRICS, config, ["labelled"] * 3 + ["validation", "test", "test"], documents)


def train_run(out: Path) -> Path:
    """The records of the training of one model."""
    artifact = {
        "sha256": "e" * 64,
        "models": [{"family": "vae"}],
        "preprocess": RECIPE,
        "meta": {"kind": "generative", "init": None, "cases": PEOPLE[:4], "lineage": {"subjects": PEOPLE[:4]}},
    }
    config = {"training": {**TRAINING, "steps": 8}}
    return _write(out, TRAIN_METRICS, config, ["train"] * 4 + ["validation"] * 2, {"model/artifact.json": artifact})


RUNS = {"anomaly": anomaly_run, "augment": augment_run, "train": train_run}


def seal(out: Path, **changes: Any) -> None:
    """Write ``outputs.json`` as the end of a run does, with the hashes of what is there."""
    names = [path.relative_to(out).as_posix() for path in sorted(out.rglob("*")) if path.is_file()]
    body = {
        "format": 1,
        "run_id": "f" * 32,
        "config_sha256": "1" * 64,
        "manifest_digest": "2" * 64,
        "seed": 7,
        "commit": "3" * 40,
        "dirty": True,
        "versions": {"python": "3.11.7", "medgen": "0.1.0", "torch": "2.8"},
        **changes,
        "files": {name: files.sha256_file(out / name) for name in names if name != RECORD},
    }
    files.write_json(out / RECORD, files.sealed(body))


def _write(
    out: Path, metrics: Mapping[str, Any], config: Mapping[str, Any], parts: list[str], documents: Mapping[str, Any]
) -> Path:
    named = {"metrics.json": metrics, "manifest.json": {"name": "simulated", "labels": {"1": "CSF"}}, **documents}
    for name, content in named.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(json.dumps(content), encoding="utf-8")
    (out / "config.yaml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    rows = "".join(f"{name},{name},{part}\n" for name, part in zip(PEOPLE, parts, strict=True))
    (out / "splits.csv").write_text(f"case,subject,part\n{rows}", encoding="utf-8")
    (out / "manifest.csv").write_text("id,subject\n" + "".join(f"{name},{name}\n" for name in PEOPLE), encoding="utf-8")
    (out / "failures.csv").write_text("case,stage,reason\n", encoding="utf-8")
    (out / "model").mkdir(exist_ok=True)
    (out / "model" / "weights-0.safetensors").write_bytes(b"weights")
    seal(out)
    return out
