"""Runs that start from a trained model: ``medgen train --from`` and ``training.init`` from the command line."""

import html
import json
import shutil
import sys

import pytest

from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.models.artifact import TrainedModel
from medgen.pipelines.cli.app import _run
from medgen.pipelines.cli.carry_out import find_config
from medgen.pipelines.sources import inits
from medgen.pipelines.train import TrainRunConfig

TINY = ["training.steps=2", "training.validate_every=2", "device=cpu", "workers=1", "-q"]


@pytest.fixture(scope="module")
def config():
    return find_config("tiny", "train_vae")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two cohorts whose cases have the same names."""
    folder = tmp_path_factory.mktemp("transfer")
    for name, seed in (("one", 0), ("other", 1)):
        simulate(folder / name, n=4, seed=seed, spacing=16.0)
    return folder


def medgen(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["medgen", *map(str, words)])
    code = _run()
    said = capsys.readouterr()
    return code, said.out, said.err


def last_line(error):
    """What the command says went wrong; above it stands what the cohort was taken for."""
    return error.rstrip("\n").rpartition("\n")[2]


@pytest.fixture(scope="module")
def source(places, config):
    with pytest.MonkeyPatch.context() as patch:
        run = ["train", config, f"data={places / 'one'}", f"out={places / 'source'}", *TINY]
        patch.setattr(sys, "argv", ["medgen", *map(str, run)])
        assert _run() == 0
    return places / "source" / "model"


def test_a_training_starts_from_another_and_says_so_everywhere(monkeypatch, capsys, places, config, source):
    out = places / "run"
    arguments = ["train", config, f"data={places / 'other'}", f"out={out}", "--from", source]
    # Who is held out follows from names and seed, and with this seed it is somebody else.
    arguments.append("seed=1")
    code, said, error = medgen(monkeypatch, capsys, *arguments, *TINY)
    assert (code, said) == (2, "")
    assert last_line(error).startswith("medgen: ")
    assert "has learnt from subject sim-" in last_line(error)
    assert "is held out for validation" in last_line(error)
    assert not out.exists()
    code, said, _ = medgen(monkeypatch, capsys, *arguments, "training.init.other_people=true", *TINY)
    assert code == 0
    digest = TrainedModel.load(source).sha256
    sentence = f"The training started from the vae of artifact {digest[:12]}"
    assert sentence in said
    assert sentence in html.unescape((out / "report.html").read_text())
    model = TrainedModel.load(out / "model")
    assert model.meta["init"]["sha256"] == digest
    assert json.loads((out / "metrics.json").read_text())["init"]["sha256"] == digest
    assert json.dumps({"medgen.init.sha256": digest})[1:-1] in (out / "journal.jsonl").read_text()
    before = TrainedModel.load(source).meta["lineage"]
    assert {*before["files"]} < {*model.meta["lineage"]["files"]}


def test_a_source_without_the_held_out_is_taken_and_one_that_saw_them_is_refused_by_content(
    monkeypatch, capsys, places, config, source
):
    """The same cohort and split: what was held out then is held out now. Another split holds out others."""
    arguments = ["train", config, f"data={places / 'one'}", "--dry-run", "--from", source, *TINY]
    code, _, error = medgen(monkeypatch, capsys, *arguments, f"out={places / 'a'}")
    assert code == 0, error
    arguments = [*arguments, "training.init.other_people=true"]
    codes = [medgen(monkeypatch, capsys, *arguments, f"out={places / 'a'}", f"seed={seed}") for seed in range(1, 9)]
    refusals = [error for code, _, error in codes if code == 2]
    assert refusals
    assert all("has learnt from the very file of case" in error for error in refusals)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", ["no such folder", "expected the model/ folder of a run"]),
        ("one", ["no artifact.json"]),
        ("altered", ["weights-0.safetensors"]),
    ],
)
def test_what_is_no_sound_artifact_is_refused_in_one_line(monkeypatch, capsys, places, config, source, name, words):
    if name == "altered":
        path = shutil.copytree(source, places / name, dirs_exist_ok=True) / "weights-0.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    arguments = ["train", config, f"data={places / 'other'}", f"out={places / 'refused'}", "--from", places / name]
    code, _, error = medgen(monkeypatch, capsys, *arguments, *TINY)
    assert code == 2
    assert error.count("\n") == 1
    assert all(word in error for word in words)
    assert not (places / "refused").exists()


def test_another_family_is_refused_before_anything_is_written(monkeypatch, capsys, places, source):
    arguments = ["train", find_config("tiny", "train_vaegan"), f"data={places / 'other'}", f"out={places / 'refused'}"]
    code, _, error = medgen(monkeypatch, capsys, *arguments, f"training.init={source}", *TINY)
    assert code == 2
    assert "holds a model of the family vae, and vaegan is to be trained" in last_line(error)
    assert not (places / "refused").exists()


def test_every_pipeline_that_trains_finds_its_sources(places):
    """Groups of trainings in all pipelines have the key, and the guard finds it wherever it is."""
    from medgen.pipelines.anomaly.config import AnomalyRunConfig
    from medgen.pipelines.augment.config import AugmentRunConfig

    train = load_config(TrainRunConfig, find_config("tiny", "train_vae"), ["training.init=a"])
    further = 'further={"more": {"model": {"family": "dae"}, "training": {"init": "b"}}}'
    anomaly = load_config(AnomalyRunConfig, find_config("tiny", "anomaly"), ["training.init=a", further])
    halves = '{"labels": {"mask_training": {"init": "a"}}, "painter": {"training": {"init": "b"}}}'
    pairs = f'generators={{"shape+flow": {halves}}}'
    augment = load_config(AugmentRunConfig, find_config("tiny", "augment"), [pairs, "value.enabled=false"])
    assert [key for key, *_ in inits(train)] == ["training.init"]
    assert [(key, family) for key, _, family in inits(anomaly)] == [
        ("training.init", anomaly.model["family"]),
        ("further.more.training.init", "dae"),
    ]
    assert {key.partition(".")[2]: str(init.artifact) for key, init, _ in inits(augment)} == {
        "shape+flow.labels.mask_training.init": "a",
        "shape+flow.painter.training.init": "b",
    }


@pytest.fixture(scope="module")
def many(places):
    simulate(places / "many", n=14, seed=2, spacing=8.0)
    return places / "many"


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["anomaly", "run", "tiny/anomaly.yaml", "training.init={source}"], "held out for development"),
        (
            ["augment", "run", "tiny/augment.yaml", 'generators={{"joint": {{"training": {{"init": "{source}"}}}}}}'],
            "held out for test",
        ),
    ],
    ids=["anomaly", "augment"],
)
def test_other_pipelines_refuse_a_source_that_knows_the_held_out(
    monkeypatch, capsys, places, many, source, words, where
):
    """Names are enough: the source's cohort and this one both count from 1."""
    group, run, config, setting = words
    path = find_config("tiny", "anomaly").parent.parent / config
    # Most of the 14 subjects are held out, and the source has learnt from three of these names.
    share = "test=0.7" if group == "augment" else "test=0.3"
    given = [f"data={many}", f"out={places / 'refused'}", setting.format(source=source), share, "workers=1"]
    code, _, error = medgen(monkeypatch, capsys, group, run, path, *given, "--dry-run", "-q")
    assert code == 2
    assert "has learnt from subject sim-000" in last_line(error)
    assert where in last_line(error)
    assert not (places / "refused").exists()


@pytest.mark.slow
def test_an_anomaly_run_starts_every_fold_from_the_source_and_records_it(monkeypatch, capsys, places, many, source):
    out = places / "anomaly"
    given = [f"data={many}", f"out={out}", "training.steps=2", "detectability.enabled=false", "workers=1", "device=cpu"]
    init = f'training.init={{"artifact": "{source}", "other_people": true}}'
    code, _, error = medgen(monkeypatch, capsys, "anomaly", "run", find_config("tiny", "anomaly"), *given, init, "-q")
    assert code == 0, error
    digest = TrainedModel.load(source).sha256
    meta = TrainedModel.load(out / "model").meta
    (record,) = meta["init"].values()
    assert record["sha256"] == digest
    # The source has two grids of codes, and its principal components are others'.
    assert record["mismatches"]
    assert {*meta["cases"]} <= {*meta["lineage"]["cases"]}
    assert len(meta["lineage"]["files"]) == len(meta["cases"]) + len(TrainedModel.load(source).meta["cases"])
    assert f"from the vae of artifact {digest[:12]}" in html.unescape((out / "report.html").read_text())
    assert json.loads((out / "metrics.json").read_text())["init"]["vae"]["sha256"] == digest
    # Calibrated anew, the models are taken over with what they started from.
    code, _, error = medgen(
        monkeypatch, capsys, "anomaly", "run", find_config("tiny", "anomaly"), *given, init, "--resume", "-q"
    )
    assert code == 0, error
    assert TrainedModel.load(out / "model").meta["init"] == meta["init"]
