"""The value study alone: ordinary arms, scans made elsewhere, scans of an earlier run; refusals and leaks by name."""

from __future__ import annotations

import csv
import html
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.config import load_config, parse_config
from medgen.data.cases import Case, Manifest
from medgen.data.layouts.detect import load_cohort
from medgen.data.simulation import simulate
from medgen.errors import AuditError, ConfigError, DataError, MedgenError
from medgen.models.artifact import TrainedModel
from medgen.pipelines import pretrain
from medgen.pipelines.augment import run as augment
from medgen.pipelines.augment import value as augment_value
from medgen.pipelines.augment.config import AugmentRunConfig
from medgen.pipelines.augment.intake import split
from medgen.pipelines.augment.stages import VALUE
from medgen.pipelines.augment.value_config import ValueRunConfig
from medgen.pipelines.pretrain_settings import PretrainRunConfig
from medgen.synthesis.value.study import _keep
from medgen.system.files import read_json, write_json
from tests.builders.run_outputs import undeclared

CONFIGS = Path(__file__).parents[3] / "configs"
TINY = CONFIGS / "tiny" / "value.yaml"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "cohort"
    simulate(out, n=10, seed=0, spacing=8.0)
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs: they share its MLflow store, which is slow to set up."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody else's scans, on another grid, as a plain folder of images and masks."""
    out = tmp_path_factory.mktemp("elsewhere")
    simulate(out / "made", n=2, seed=77, spacing=10.0)
    cases = []
    for number, case in enumerate(load_cohort(out / "made")):
        cases.append(Case(f"gan-{number}", f"gan-{number}", case.images, case.mask))
    Manifest("elsewhere", out, tuple(cases), {1: "csf", 2: "grey matter", 3: "white matter"}).write_csv(
        out / "manifest.csv"
    )
    return out


def config(cohort: Path, out: Path, *settings: str) -> ValueRunConfig:
    return load_config(ValueRunConfig, TINY, [f"data={cohort}", f"out={out}", "device=cpu", "seed=1", *settings])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(cohort: Path, elsewhere: Path, runs: Path) -> tuple[Path, tuple[str, ...]]:
    out = runs / "value"
    arms = "value.arms=[standard, real+gan, synthetic]"
    summary = augment_value.run(config(cohort, out, f"synthetic.gan={elsewhere}", arms))
    assert summary.exit_code == 0, summary.lines
    return out, summary.lines


def test_outputs_and_cells(finished: tuple[Path, tuple[str, ...]]) -> None:
    out, lines = finished
    assert undeclared(out, VALUE) == []
    names = ["report.html", "metrics.json", "config.yaml", "manifest.csv", "splits.csv", "failures.csv"]
    names += ["value.csv", "value_cases.csv", "figures/learning-curve.png", "figures/differences.png"]
    assert [name for name in names if not (out / name).is_file()] == []
    cells = {(row["arm"], int(row["subjects"]), row["seed"]) for row in rows(out / "value.csv")}
    expected = {(arm, n, seed) for arm in ("standard", "real+gan", "synthetic") for n in (2, 3) for seed in "01"}
    # At the further number of subjects only ordinary arms are run.
    assert cells == expected | {("standard", 4, seed) for seed in "01"}
    assert {row["part"] for row in rows(out / "value.csv")} == {"test", "validation"}
    held_out = {(row["subject"], row["part"]) for row in rows(out / "splits.csv")}
    assert {(row["subject"], row["part"]) for row in rows(out / "value_cases.csv")} <= held_out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["verdict"] in ("USE", "HARMFUL", "NO EVIDENCE")
    assert [choice["on"] for choice in metrics["choices"]] == ["validation", "validation"]
    assert {item["reference"] for item in metrics["worth"]} >= {"standard"}
    assert all("real subjects" in item["sentence"] for item in metrics["worth"])
    page = (out / "report.html").read_text()
    for word in (
        "gan",
        "worth",
        "Holm",
        "Learning curve",
        "not recorded",
        "The verdict is about the synthetic arm with the highest",
    ):
        assert word in page
    assert any("are worth" in line for line in lines)


def test_every_cell_is_a_child_run(finished: tuple[Path, tuple[str, ...]]) -> None:
    entries = [json.loads(line) for line in (finished[0] / "journal.jsonl").read_text().splitlines()]
    started = {entry["name"]: entry for entry in entries if entry["kind"] == "start"}
    cell = started["real+gan-n2-seed1"]
    assert cell["parent"] == started["value"]["run"]
    assert sum("-seed" in name for name in started) == 2 * (3 * 2 + 1)
    (measured,) = [entry for entry in entries if entry["run"] == cell["run"] and entry["kind"] == "metrics"]
    assert {"dice", "hd95_mm", "nsd", "seconds"} == set(measured["values"])


def test_ordinary_arms_alone_and_an_interrupted_study_goes_on(
    cohort: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = runs / "interrupted"
    settings = config(cohort, out, "value.subjects=[3]", "value.real_only=[]", "validation=0")
    with monkeypatch.context() as patch:
        patch.setattr(
            "medgen.pipelines.augment.stages.value.write_value", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            augment_value.run(settings)
    kept = sorted((out / "checkpoints" / "value").iterdir())
    assert len(kept) == 4
    for path in kept:
        content = read_json(path)
        _keep(path, content["key"], [{**row, "seconds": 1234.0} for row in content["rows"]], content["span"])
    summary = augment_value.run(settings, resume=True)
    assert {float(row["seconds"]) for row in rows(out / "value.csv")} == {1234.0}
    assert any("NOT MEASURED: no arm had synthetic scans. Best ordinary arm:" in line for line in summary.lines)


def test_leaks_and_unusable_scans_are_refused_by_name(
    cohort: Path, elsewhere: Path, runs: Path, tmp_path: Path
) -> None:
    plain = config(cohort, tmp_path / "plain")
    manifest = load_cohort(cohort).with_hashes()
    parts = split(plain, manifest)
    test, train = next(iter(parts.test)), next(iter(parts.labelled))

    def pool(name: str, *, mask: bool = True, image: Path | None = None, id_: str = "other") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        source = next(iter(load_cohort(elsewhere)))
        assert source.mask is not None
        shutil.copy(image or source.images[0], folder / f"{id_}.nii.gz")
        if mask:
            shutil.copy(source.mask, folder / f"{id_}_mask.nii.gz")
        return folder

    def refused(folder: Path, error: type[MedgenError], text: str) -> None:
        out = runs / f"leak-{folder.name}"
        with pytest.raises(error, match=text):
            augment_value.run(config(cohort, out, f"synthetic.gan={folder}", "value.arms=[standard, standard+gan]"))

    refused(pool("unmasked", mask=False), DataError, "no mask for other")
    refused(pool("namesake", id_=test.id), AuditError, f"bears the name of '{test.id}' of the test part")
    held = pool("copied")
    shutil.copy(test.images[0], held / "other.nii.gz")
    assert test.mask is not None
    shutil.copy(test.mask, held / "other_mask.nii.gz")
    refused(held, AuditError, f"holds a file of {test.id} of the test part")
    child = pool("child")
    (child / "provenance").mkdir()
    write_json(child / "provenance" / "other.json", {"parents": [{"case": train.id}, {"case": test.id}]})
    refused(child, AuditError, f"was made from {test.id}, which is in the test part")
    strange = pool("strange")
    mask = io.read(strange / "other_mask.nii.gz")
    io.write(mask.with_data(np.where(mask.data == 2, 7, mask.data).astype(np.uint8)), strange / "other_mask.nii.gz")
    refused(strange, DataError, "other has the label 7, which the cohort does not")


def test_an_earlier_run_lends_its_scans(cohort: Path, runs: Path) -> None:
    earlier = runs / "augment"
    settings = [f"data={cohort}", f"out={earlier}", "device=cpu", "seed=1", "test=0.3", "validation=0.2"]
    settings += ["generators.joint=null", "value.enabled=false", "labelled_subjects=3", "scans=2"]
    assert augment.run(load_config(AugmentRunConfig, CONFIGS / "tiny" / "augment.yaml", settings)).exit_code == 0
    made = len(list((earlier / "synthetic" / "labelsTr").glob("*.nii.gz")))
    assert made
    options = [f"run={earlier}", "value.real_only=[]", "value.arms=[standard, standard+deform]", "value.seeds=1"]
    summary = augment_value.run(config(cohort, runs / "study", *options, "value.subjects=[3]"))
    assert summary.exit_code == 0
    assert {row["synthetic_scans"] for row in rows(runs / "study" / "value.csv")} == {"0", str(made)}
    for extra, error, text in (
        # Its generator saw three subjects' masks.
        (["value.subjects=[2]"], AuditError, "saw the masks of 3 subjects"),
        (["value.subjects=[3]", "seed=5"], AuditError, "which this study holds out"),
        (["value.subjects=[3]", "preprocess.shape=[16, 24, 24]"], DataError, "lies on a grid of 16x24x16"),
        (["value.subjects=[3]", "value.arms=[standard, standard+joint]"], ConfigError, "needs the scans 'joint'"),
    ):
        with pytest.raises(error, match=text):
            augment_value.run(config(cohort, runs / "refused", *options, *extra), overwrite=True)


def test_bad_settings_are_refused(cohort: Path, runs: Path, tmp_path: Path) -> None:
    base = {"data": str(cohort), "out": str(tmp_path / "out")}
    for extra, text in (
        (
            {"value": {"arms": ["standard", "standard+gan"]}, "synthetic": {"other": "x"}},
            "needs the synthetic scans 'gan'",
        ),
        ({"value": {"arms": ["standard", "synthetic"]}}, "there are none"),
        ({"value": {"enabled": False}}, "expected true"),
        ({"synthetic": {"a+b": "x"}}, "cannot name a pool"),
        ({"test": 0.7, "validation": 0.3}, "less than 1"),
        ({"labelled_subjects": 4, "value": {"real_only": [8]}}, "at most labelled_subjects"),
    ):
        with pytest.raises(ConfigError, match=text):
            parse_config(ValueRunConfig, {**base, **extra}, source="test")
    with pytest.raises(DataError, match="30 labelled subjects wanted"):
        augment_value.run(config(cohort, runs / "many", "value.subjects=[30]"))


def test_plan_counts_the_cells(cohort: Path, tmp_path: Path) -> None:
    lines = augment_value.plan(config(cohort, tmp_path / "out"))
    assert any(line.startswith("value study: 12 segmenters") for line in lines)
    assert any("3 test" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_shipped_configurations_are_valid() -> None:
    for path in sorted((CONFIGS / "value").glob("*.yaml")):
        assert load_config(ValueRunConfig, path).value.seeds >= 5


def test_segmenters_start_from_one_that_was_pretrained_on_other_anatomy(
    cohort: Path, runs: Path, tmp_path: Path
) -> None:
    """A segmenter of painted label maps is the start of every cell; one that knows this cohort's people is refused."""
    simulate(tmp_path / "brains", n=3, seed=5, spacing=16.0)
    made = {"family": "segmenter", "channels": [8, 16]}
    steps = ["training.steps=2", "training.validate_every=0", "validation=0", "painting.scans=3", "device=cpu"]
    for name, data in (("other", tmp_path / "brains"), ("same", cohort)):
        settings = [f"data={data}", f"out={tmp_path / name}", f"model={json.dumps(made)}", *steps]
        pretrain.run(load_config(PretrainRunConfig, CONFIGS / "tiny" / "train_vae.yaml", settings))
    given = ["value.subjects=[2]", "value.real_only=[]", "value.seeds=1", "value.arms=[real]", "validation=0"]
    given.append("value.segmenter.channels=[8, 16]")
    with pytest.raises(AuditError, match="has learnt from subject sim-"):
        augment_value.plan(config(cohort, runs / "started", *given, f"value.init={tmp_path / 'other' / 'model'}"))
    for key in ("artifact", "other_people"):
        value = tmp_path / "same" / "model" if key == "artifact" else "true"
        given.append(f"value.init.{key}={value}")
    with pytest.raises(AuditError, match="has learnt from the very file of case"):
        augment_value.run(config(cohort, runs / "started", *given))
    given[-2] = f"value.init.artifact={tmp_path / 'other' / 'model'}"
    summary = augment_value.run(config(cohort, runs / "started", *given))
    assert summary.exit_code == 0
    digest = TrainedModel.load(tmp_path / "other" / "model").sha256
    record = read_json(runs / "started" / "metrics.json")["init"]
    assert record["sha256"] == digest
    report = html.unescape((runs / "started" / "report.html").read_text())
    assert f"The training started from the segmenter of artifact {digest[:12]}" in report
    assert "value.init" in report
    assert digest in (runs / "started" / "journal.jsonl").read_text()
