"""The augmentation pipeline end to end on a tiny cohort: outputs, provenance, traces, refusals."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medgen import io
from medgen.audit.lineage.affected import affected
from medgen.audit.lineage.trace import trace
from medgen.audit.replay import _as_recorded
from medgen.audit.verify import verify_run
from medgen.config import load_config, parse_config
from medgen.data.cards.card import lint
from medgen.data.integrity import check
from medgen.data.layouts.detect import load_cohort
from medgen.data.simulation import simulate
from medgen.errors import AuditError, ConfigError, DataError
from medgen.pipelines.augment import run as augment
from medgen.pipelines.augment.config import AugmentRunConfig
from medgen.pipelines.augment.plan import plan
from medgen.pipelines.augment.stages import AUGMENT
from medgen.runs.outputs import write_outputs_record
from medgen.synthesis import load_backend
from medgen.system.files import sha256_file
from tests.builders.intervals import check as check_intervals
from tests.builders.intervals import walk
from tests.builders.printed_numbers import unknown
from tests.builders.run_outputs import undeclared, unlike_the_run
from tests.builders.tracked_run import Tracked

TINY = Path(__file__).parents[3] / "configs" / "tiny" / "augment.yaml"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "cohort"
    simulate(out, n=8, seed=0, spacing=8.0)
    return out


@pytest.fixture(scope="module")
def finished(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    out = tmp_path_factory.mktemp("runs") / "augment"
    config = load_config(AugmentRunConfig, TINY, [f"data={cohort}", f"out={out}", "device=cpu"])
    summary = augment.run(config)
    assert summary.exit_code == 0, summary.lines
    return out, summary.lines


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_output_is_there(finished: tuple[Path, tuple[str, ...]]) -> None:
    out, lines = finished
    assert undeclared(out, AUGMENT) == []
    assert unlike_the_run(out) == []
    assert unlike_the_run(out, "synthetic/card.md") == []
    names = ["report.html", "metrics.json", "config.yaml", "manifest.csv", "splits.csv", "failures.csv"]
    names += ["value.csv", "value_cases.csv", "rejections.csv", "synthetic/dataset.json", "synthetic/card.md"]
    assert [name for name in names if not (out / name).is_file()] == []
    text = "\n".join(lines)
    assert re.search(r"^(USE|HARMFUL|NO EVIDENCE)", text, re.MULTILINE)
    assert "standard+synthetic" in text
    page = (out / "report.html").read_text()
    for word in (
        "not for clinical use",
        "Value study",
        "How like real scans are they?",
        "Filter",
        "Samples",
        "Limits",
        "data:image/png;base64",
    ):
        assert word in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    for backend in ("deform", "joint"):
        assert load_backend(out / "model" / backend, "cpu").name == backend


def test_the_text_for_a_methods_section_has_the_numbers_of_the_run(finished: tuple[Path, tuple[str, ...]]) -> None:
    out, _ = finished
    said = (out / "methods.md").read_text(encoding="utf-8")
    assert re.search(r"^(USE|HARMFUL|NO EVIDENCE)", said, re.MULTILINE)
    accepted = sum(path.name.startswith("syn-") for path in (out / "synthetic" / "labelsTr").iterdir())
    told = [int(number) for number in re.findall(r"(\d+) of \d+ by `", said)]
    assert len(told) == 2
    assert sum(told) == accepted
    assert "Arm `standard`" in said
    assert "Zhao et al." in said


def test_parts_share_no_subject(finished: tuple[Path, tuple[str, ...]]) -> None:
    parts: dict[str, set[str]] = {}
    for row in rows(finished[0] / "splits.csv"):
        parts.setdefault(row["part"], set()).add(row["subject"])
    assert len(parts["labelled"]) == 3
    assert not parts["labelled"] & parts["test"]
    assert not parts["unlabelled"] & (parts["test"] | parts["labelled"])


def test_value_has_every_cell(finished: tuple[Path, tuple[str, ...]]) -> None:
    cells = {(row["arm"], row["seed"], row["label"]) for row in rows(finished[0] / "value.csv")}
    arms, labels = ("real", "standard", "standard+synthetic"), ("1", "2", "3", "mean")
    assert cells == {(arm, seed, label) for arm in arms for seed in "01" for label in labels}
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    assert metrics["verdict"] in ("USE", "HARMFUL", "NO EVIDENCE")
    assert metrics["comparisons"][0]["difference"]["low"] <= metrics["comparisons"][0]["difference"]["high"]


def test_fidelity_stands_beside_real_scans(finished: tuple[Path, tuple[str, ...]]) -> None:
    out, lines = finished
    found = json.loads((out / "metrics.json").read_text())["fidelity"]
    accepted = {
        name: item["accepted"] for name, item in json.loads((out / "metrics.json").read_text())["generators"].items()
    }
    few = {name: count for name, count in accepted.items() if count < 4}
    assert found["too_few_scans"] == few
    measured = set(accepted) - set(few)
    assert measured
    assert measured <= set(found["comparisons"]) <= {*measured, "all backends"}
    for name in measured:
        numbers = found["comparisons"][name]["training"]
        assert numbers["scans"] == accepted[name]
        assert {"kid", "mmd", "density", "coverage", "ms_ssim", "volume_1"} <= set(numbers["measures"])
        assert numbers["measures"]["kid"]["floor"] > 0
        assert 0 <= numbers["measures"]["coverage"]["synthetic"]["estimate"] <= 1
        assert any(line.startswith(f"{name}, likeness to") for line in lines)
    for name in few:
        assert any("too few to compare" in line for line in lines if line.startswith(name))
    table = rows(out / "fidelity.csv")
    assert {(row["synthetic"], row["label"]) for row in table} >= {(name, "2") for name in measured}


def test_synthetic_cohort_is_read_back_and_marked(finished: tuple[Path, tuple[str, ...]]) -> None:
    folder = finished[0] / "synthetic"
    manifest = load_cohort(folder)
    assert len(manifest) >= 1
    assert all(case.id.startswith("syn-") for case in manifest)
    assert lint(folder / "card.md") == []
    case = next(iter(manifest))
    image, mask = case.read_image(), case.read_mask()
    assert mask is not None
    assert np.isfinite(image.data).all()
    assert set(np.unique(mask.data)) <= {0, 1, 2, 3}
    header = nib.load(case.images[0]).header
    assert b"SYNTHETIC" in bytes(header["descrip"])


def test_provenance_leads_back_to_generator_and_parents(finished: tuple[Path, tuple[str, ...]]) -> None:
    out = finished[0]
    manifest = {row["id"]: row for row in rows(out / "manifest.csv")}
    labelled = {row["case"] for row in rows(out / "splits.csv") if row["part"] == "labelled"}
    records = sorted((out / "synthetic" / "provenance").glob("syn-*.json"))
    assert records
    for path in records:
        record = json.loads(path.read_text())
        backend = load_backend(out / "model" / record["backend"], "cpu")
        assert backend.sha256 == record["generator_sha256"]
        again = backend.sample(record["seed"])
        image = io.read(out / "synthetic" / "imagesTr" / f"{record['id']}_0000.nii.gz")
        assert np.array_equal(again.image, image.data)
        for name, digest in record["files"].items():
            assert sha256_file(out / "synthetic" / name) == digest
        for parent in record["parents"]:
            assert parent["case"] in labelled
            hashes = set(parent["sha256"].values())
            assert hashes == {manifest[parent["case"]]["sha256_image"], manifest[parent["case"]]["sha256_mask"]}
        assert record["filter"]["scores"]["agreement"] >= 0
        assert "internal use only" in record["use"] or "memorisation audit" in record["use"]


def test_same_seed_same_bytes_without_the_study(
    finished: tuple[Path, tuple[str, ...]], cohort: Path, tmp_path: Path
) -> None:
    # Features of another program go by the ids, which are the same again.
    real = [row["case"] for row in rows(finished[0] / "splits.csv")]
    made = [path.name.removesuffix(".json") for path in (finished[0] / "synthetic" / "provenance").iterdir()]
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "real.npz", ids=real, features=rng.normal(size=(len(real), 6)))
    np.savez(tmp_path / "all.npz", ids=[*real, *made], features=rng.normal(size=(len(real) + len(made), 6)))
    settings = [f"data={cohort}", f"out={tmp_path / 'again'}", "device=cpu", "value.enabled=false"]
    with pytest.raises(DataError, match=r"no features of 'syn-\d+'"):
        augment.run(load_config(AugmentRunConfig, TINY, [*settings, f"fidelity.features={tmp_path / 'real.npz'}"]))
    settings.append(f"fidelity.features={tmp_path / 'all.npz'}")
    summary = augment.run(load_config(AugmentRunConfig, TINY, settings), overwrite=True)
    assert "NOT MEASURED" in "\n".join(summary.lines)
    assert "all.npz" in json.loads((tmp_path / "again" / "metrics.json").read_text())["fidelity"]["features"]
    assert not (tmp_path / "again" / "value.csv").exists()
    files = sorted(path.relative_to(finished[0]) for path in (finished[0] / "synthetic").glob("*Tr/*.nii.gz"))
    assert files
    for name in files:
        assert (finished[0] / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_bad_settings_are_refused_by_name(cohort: Path, tmp_path: Path) -> None:
    base = {"data": str(cohort), "out": str(tmp_path / "out")}
    for extra, text in (
        ({"generators": {"deform": None, "joint": None}}, "at least one"),
        ({"generators": {"deform": {}}, "value": {"arms": ["real", "standard+joint"]}}, "not configured"),
        ({"labelled_subjects": 4, "value": {"subjects": [8]}}, "at most labelled_subjects"),
        ({"generatorz": {}}, "unknown key"),
    ):
        with pytest.raises(ConfigError, match=text):
            parse_config(AugmentRunConfig, {**base, **extra}, source="test")
    with pytest.raises(DataError, match="labelled training subjects wanted"):
        augment.run(parse_config(AugmentRunConfig, {**base, "labelled_subjects": 30}, source="test"))


def test_plan_says_what_it_would_cost(cohort: Path, tmp_path: Path) -> None:
    config = load_config(AugmentRunConfig, TINY, [f"data={cohort}", f"out={tmp_path / 'out'}", "device=cpu"])
    lines = plan(config)
    assert any(line.startswith("value study: 6 segmenters") for line in lines)
    assert any("3 labelled subjects" in line for line in lines)
    assert any(line.startswith("comparison with real scans: about") for line in lines)
    assert not (tmp_path / "out").exists()


def test_shipped_configurations_are_valid() -> None:
    for path in sorted((TINY.parents[1] / "augment").glob("*.yaml")):
        generators = load_config(AugmentRunConfig, path).generators
        assert generators.auto or generators.names


def test_every_interval_holds_its_estimate(finished: tuple[Path, tuple[str, ...]]) -> None:
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    assert len(list(walk(metrics))) > 40
    assert check_intervals(metrics) == []


def test_every_number_of_the_report_is_in_a_file_of_the_run(finished: tuple[Path, tuple[str, ...]]) -> None:
    assert unknown(finished[0]) == []


def test_what_is_said_is_what_metrics_hold_and_goes_with_the_scans(finished: tuple[Path, tuple[str, ...]]) -> None:
    out, lines = finished
    metrics = json.loads((out / "metrics.json").read_text())
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", (out / "report.html").read_text())))
    assert metrics["comparisons"]
    for comparison in metrics["comparisons"]:
        assert comparison["sentence"] in lines
        assert comparison["role"] != "verdict" or comparison["sentence"] in text
        # Four steps teach nothing: the study says so instead of a word.
        assert comparison["word"] == "NO EVIDENCE"
        assert comparison["undecided"] == "its segmenters were trained for 4 steps, fewer than 50"
    assert lines.count(metrics["sentence"]) >= 1
    for sentence in (metrics["sentence"], metrics["caution"], metrics["consensus"]["sentence"]):
        assert sentence in text
    for item in metrics["consensus"]["bias"]:
        assert ("not inferred" in item["sentence"]) is item["biased"]
    declared = json.loads((out / "synthetic" / "dataset.json").read_text())["medgen"]
    said = {"word": metrics["verdict"], "sentence": metrics["sentence"]}
    assert declared["verdict"] == said
    for path in (out / "synthetic" / "provenance").glob("syn-*.json"):
        assert json.loads(path.read_text())["verdict"] == said
    card = (out / "synthetic" / "card.md").read_text()
    assert metrics["sentence"] in card
    assert any(line == f"synthetic cohort: {out / 'synthetic'} ({metrics['verdict']})" for line in lines)


def test_harmful_scans_leave_the_run_only_when_they_are_wanted(
    finished: tuple[Path, tuple[str, ...]], tmp_path: Path
) -> None:
    from medgen.pipelines.augment import sample as augment_sample
    from medgen.synthesis.export.nnunet import write_nnunet

    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {"verdict": "HARMFUL", "sentence": "HARMFUL: said so."}
    metrics["generators"]["joint"]["accepted"] = 0
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_outputs_record(run)
    with pytest.raises(ConfigError, match=r"more: lies in .*run, all of whose files"):
        augment_sample.run(run / "model" / "deform", run / "model" / "more", n=1, device="cpu", harmful=True)
    with pytest.raises(DataError, match=r"HARMFUL: said so\..*--harmful"):
        augment_sample.run(run / "model", tmp_path / "more", n=1, device="cpu")
    with pytest.raises(DataError, match=r"HARMFUL: said so\..*--harmful"):
        write_nnunet([run], tmp_path / "raw", number=7, name="Blobs")
    assert not (tmp_path / "more").exists()
    assert not (tmp_path / "raw" / "Dataset007_Blobs").exists()
    made = write_nnunet([run], tmp_path / "raw", number=7, name="Blobs", harmful=True)
    assert made.verdicts == ("HARMFUL: said so.",)
    verdicts = json.loads((made.folder / "dataset.json").read_text())["medgen"]["verdicts"]
    assert verdicts == [{"word": "HARMFUL", "sentence": "HARMFUL: said so."}]
    more = augment_sample.run(run / "model", tmp_path / "more", n=1, attempts=20, device="cpu", harmful=True)
    assert "HARMFUL: said so." in more.lines
    assert any(line.startswith("joint: not sampled") for line in more.lines)
    card = (tmp_path / "more" / "card.md").read_text()
    assert "HARMFUL: said so." in card
    assert "none: they made segmentation worse" in card
    metrics["generators"]["deform"]["accepted"] = 0
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_outputs_record(run)
    with pytest.raises(DataError, match="accepted no scan of deform, joint"):
        augment_sample.run(run / "model", tmp_path / "none", n=1, device="cpu", harmful=True)
    # A verdict that was changed after the run is not believed, whatever it says.
    (run / "metrics.json").write_text(json.dumps({**metrics, "verdict": "USE"}))
    with pytest.raises(AuditError, match="is not as the run wrote it"):
        write_nnunet([run], tmp_path / "raw", number=8, name="Blobs")


def test_audit_is_reported_with_controls_first(finished: tuple[Path, tuple[str, ...]]) -> None:
    out, lines = finished
    audit = json.loads((out / "metrics.json").read_text())["audit"]
    assert {control["kind"] for control in audit["controls"]} == {"positive", "negative"}
    assert set(audit["backends"]) == {"deform", "joint"}
    assert audit["backends"]["deform"]["stamp"] == "internal use only"
    assert any(line.startswith("deform: stamp: internal use only") for line in lines)
    assert "Memorisation audit" in (out / "report.html").read_text()
    assert (out / "figures" / "audit-deform.png").is_file()
    learnt = json.loads((out / "synthetic" / "provenance" / "learnt_from.json").read_text())["cases"]
    parts = {row["case"]: row["part"] for row in rows(out / "splits.csv")}
    assert {parts[item["case"]] for item in learnt} == {"labelled", "unlabelled"}


def test_commands_replay_sample_and_find_leaks(finished: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from medgen.pipelines.cli.app import app

    out, runner = finished[0], CliRunner()
    record = sorted((out / "synthetic" / "provenance").glob("syn-*.json"))[0]
    result = runner.invoke(app, ["audit", "replay", str(record), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == f"{record.stem}: identical"
    assert runner.invoke(app, ["audit", "leaks", str(out / "synthetic"), str(out / "splits.csv")]).exit_code == 0
    known = next(row["case"] for row in rows(out / "splits.csv") if row["part"] == "labelled")
    (tmp_path / "val.txt").write_text(f"{known}\n")
    result = runner.invoke(app, ["audit", "leaks", str(out / "synthetic"), str(tmp_path / "val.txt")])
    assert result.exit_code == 2
    arguments = ["augment", "sample", "--model", str(out / "model" / "deform"), "-n", "2", "--seed", "5", "-q"]
    arguments += ["--attempts", "20"]
    more = [*arguments, "--layout", "bids", "--out", str(tmp_path / "more")]
    result = runner.invoke(app, [*more, "deform.strength=0.5"])
    assert result.exit_code == 0, result.output
    assert "deform: sampled with labels.strength 0.5 (1.0 in the run)" in result.output
    first = sorted((tmp_path / "more" / "provenance").glob("syn-*.json"))[0]
    assert json.loads(first.read_text())["sampling"]["labels"]["strength"] == 0.5
    # The record alone makes it again, with the options that it was sampled by.
    replayed = ["audit", "replay", str(first), "--model", str(out / "model"), "--device", "cpu"]
    assert runner.invoke(app, replayed).output.strip() == f"{first.stem}: identical"
    # It is a run of its own, whose scans lead back to the scans and the generator of the first.
    assert verify_run(tmp_path / "more", model=out / "model").problems == ()
    image = next(name for name in json.loads(first.read_text())["files"] if "T1w" in name or "anat" in name)
    found = trace(tmp_path / "more" / image, runs=[out.parent])
    assert {node.facts["pipeline"] for node in found.of_kind("run")} == {"augment", "augment-sample"}
    for kind in ("parent scan", "model", "weights", "training scan", "record", "settings", "code", "environment"):
        assert found.of_kind(kind), kind
    assert all(node.sha256 for node in found.of_kind("parent scan", "model", "weights", "training scan"))
    parent = found.of_kind("parent scan")[0].label.split()[0]
    made = {own.record.out.name: own for own in affected(parent, [out, tmp_path / "more"])}
    assert first.stem in made["more"].copies
    assert made["more"].by_model
    result = runner.invoke(app, [*arguments, "--out", str(tmp_path / "none"), "deform.strenth=0.5"])
    assert "unknown key 'strenth'" in str(result.exception)
    result = runner.invoke(app, [*arguments, "--out", str(tmp_path / "none"), "spade.style_spread=0.5"])
    assert "expected backend.option=value with a backend of deform" in str(result.exception)
    checked = check(tmp_path / "more")
    assert checked.ok
    assert checked.cases == 2
    for given in (3, {"labels": {"strenth": 1}}, {"labels": {"strength": -1}}):
        with pytest.raises(AuditError, match=r"^syn-1: its record names options that its generator has not: "):
            _as_recorded(load_backend(out / "model" / "deform", "cpu"), {"id": "syn-1", "sampling": given})
    bare = tmp_path / "bare"
    load_backend(out / "model" / "deform", "cpu").save(bare / "deform")
    result = runner.invoke(app, ["augment", "sample", "--model", str(bare), "-n", "2", "--out", str(tmp_path / "x")])
    assert "no filter/" in str(result.exception)
    assert not (tmp_path / "x").exists()


def test_the_store_is_told_the_verdict_the_parts_and_every_generator(finished: tuple[Path, tuple[str, ...]]) -> None:
    out, _ = finished
    run, numbers = Tracked.of(out), json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert run.undeclared(AUGMENT) == []
    (told,) = (item for item in numbers["comparisons"] if item["role"] == "verdict")
    own = run.numbers
    assert own["value.dice_difference"] == pytest.approx(told["difference"]["estimate"])
    assert own["value.dice_difference"] == pytest.approx(own["value.dice"] - own["value.dice_ordinary"])
    assert own["synthetic.accepted"] == sum(item["accepted"] for item in numbers["generators"].values())
    assert run.tags["mlflow.note.content"].startswith(f"> **{told['word']}")
    assert {entry["context"] for entry in run.of_kind("dataset")} >= {"training", "test"}
    assert {entry["path"] for entry in run.of_kind("model")} == {f"model/{name}" for name in numbers["generators"]}
    assert {entry["sha256"] for entry in run.of_kind("model")} == {
        item["sha256"] for item in numbers["generators"].values()
    }
    sent = {f"{entry['folder']}/{Path(entry['path']).name}" for entry in run.of_kind("file")}
    assert {path.relative_to(out).as_posix() for path in (out / "model").rglob("*") if path.is_file()} <= sent


def test_trainings_of_the_study_have_their_own_times(finished: tuple[Path, tuple[str, ...]]) -> None:
    run = Tracked.of(finished[0])
    starts = {entry["run"]: entry for entry in run.entries if entry["kind"] == "start" and "began" in entry}
    ends = {entry["run"]: entry["ended"] for entry in run.entries if entry["kind"] == "end" and entry["run"] in starts}
    seconds = {
        entry["run"]: entry["values"]["seconds"]
        for entry in run.entries
        if entry["kind"] == "metrics" and entry["run"] in starts
    }
    assert len(starts) == len({entry["name"] for entry in starts.values()}) >= 4
    assert all(ends[name] - starts[name]["began"] >= 1000 * seconds[name] - 20 for name in starts)
