"""What a machine does to a run: numbers that are not finite, a clock that is set back, no memory, a signal."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medgen.data.simulation import simulate
from medgen.errors import TrainingError
from medgen.models.catalogue import available, build, family_class
from medgen.preprocessing.dataset import Dataset
from medgen.runs import journal as journals
from medgen.runs.journal import NAME, Journal, entries
from medgen.seeds import torch_rng
from medgen.segmentation.recipe import Consistency, Extra, LabelledBatch, LabelledSet, Recipe
from medgen.segmentation.segmenter import SegmenterConfig, train_segmenter
from medgen.system.files import TEMPORARY
from medgen.training.batches import batch_indices
from medgen.training.checkpoint import CHECKPOINT
from medgen.training.finite_watch import FiniteWatch
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 16, 16)
HERE = Path(__file__).parent
CONFIG = HERE.parents[1] / "configs" / "tiny" / "train_vae.yaml"
# A port on this machine where nobody answers.
NO_STORE = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}


# ------------------------------------------------------------------------------------------------ trainings of models


def dataset(n: int = 5) -> Dataset:
    generator = torch_rng(0, "machine")
    names = tuple(f"case-{number}" for number in range(n))
    images = torch.rand((n, 1, *SHAPE), generator=generator)
    labels = torch.randint(0, 3, (n, 1, *SHAPE), generator=generator).to(torch.uint8)
    return Dataset(names, names, images, images > 0.1, labels)


def training(**changes: object) -> TrainingConfig:
    return TrainingConfig(steps=5, batch_size=2, precision="32", checkpoint_every=1, log_every=100).model_copy(
        update=changes
    )


def names_at(step: int, n: int = 5) -> str:
    return ", ".join(f"case-{row}" for row in batch_indices(n, 2, step - 1, seed=1))


def kept(out: Path) -> dict[str, object]:
    state = torch.load(out / CHECKPOINT, weights_only=True)
    assert all(tensor.isfinite().all() for tensor in tensors_of(state))
    return state


def tensors_of(data: object) -> list[Tensor]:
    if isinstance(data, Tensor):
        return [data] if data.is_floating_point() else []
    children = data.values() if isinstance(data, dict) else data if isinstance(data, list | tuple) else ()
    return [tensor for child in children for tensor in tensors_of(child)]


# One family learns from masks alone, and integers are finite.
@pytest.mark.parametrize("family", [name for name in available() if name != "maskvae"])
def test_a_batch_that_is_not_finite_names_its_cases_at_once(tmp_path, monkeypatch, family):
    drawn, calls = Dataset.batch, [0]

    def batch(self, rows, progress=0.0, device=None):
        found = drawn(self, rows, progress, device)
        calls[0] += 1
        # A model may look at single scans between stages.
        if calls[0] < 3 or len(rows) == 1:
            return found
        image = found.image.clone()
        image[1, 0, 3, 4, 5] = float("nan")
        return replace(found, image=image)

    # A prior of discrete codes does not see intensities: the third step is one of the stage that does.
    settings = {**family_class(family).tiny, **({"prior_share": 0.1} if family == "vqvae" else {})}
    model = build({"family": family, "shape": SHAPE, **settings}, seed=0)
    # Nothing is drawn before the first step.
    model.initialize = lambda dataset: None
    monkeypatch.setattr(Dataset, "batch", batch)
    with pytest.raises(TrainingError) as caught:
        fit(model, dataset(), training(checkpoint_every=2), seed=1, device="cpu", out=tmp_path)
    # No further step was done in vain.
    assert calls == [3]
    assert re.search(rf"at step 3 with the cases {names_at(3)};", str(caught.value)), str(caught.value)
    assert kept(tmp_path)["step"] == 2


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    model = build({"family": "vae", "shape": SHAPE, **family_class("vae").tiny}, seed=0)

    def log(numbers, step):
        # After the loss of step 4 was seen to be finite, and before anything is kept.
        if step == 4:
            next(model.parameters()).data.fill_(float("inf"))

    with pytest.raises(TrainingError) as caught:
        fit(model, dataset(), training(), seed=1, device="cpu", out=tmp_path, log=log)
    assert "weights are not finite after step 4" in str(caught.value)
    assert names_at(4) in str(caught.value)
    assert kept(tmp_path)["step"] == 3


# --------------------------------------------------------------------------------------------------------- segmenters


@dataclass
class Scans:
    images: Tensor
    labels: Tensor
    ids: tuple[str, ...] = ()


SEGMENTER = SegmenterConfig(channels=(4, 8), steps=12, batch_size=2, precision="32")


def scans(n: int = 4, spoiled: int | None = None, ids: bool = True) -> Scans:
    images = torch.rand((n, 1, *SHAPE), generator=torch_rng(1, "machine"))
    labels = (images > 0.5).to(torch.uint8)
    if spoiled is not None:
        images[spoiled, 0, 1, 2, 3] = float("nan")
    return Scans(images, labels, tuple(f"case-{number}" for number in range(n)) if ids else ())


def refused(*arguments: object, **options: object) -> tuple[int, list[str]]:
    """Step and cases that the segmenter's one line names."""
    with pytest.raises(TrainingError) as caught:
        train_segmenter(*arguments, labels=[1], device="cpu", **options)
    found = re.fullmatch(r"the segmenter's loss .* at step (\d+) with the cases (.*); check .*", str(caught.value))
    assert found, str(caught.value)
    return int(found[1]), found[2].split(", ")


@pytest.mark.parametrize("ids", [True, False])
def test_a_segmenter_names_the_cases_of_the_first_bad_step(ids):
    draws = [torch.randint(4, (2,), generator=torch_rng(0, "segmenter", "order", step)).tolist() for step in range(12)]
    first = next(step for step, rows in enumerate(draws) if 2 in rows)
    expected = [f"case-{row}" if ids else f"real scan {row + 1}" for row in dict.fromkeys(draws[first])]
    assert refused(scans(spoiled=2, ids=ids), SEGMENTER, 0) == (first + 1, expected)


def test_a_segmenter_names_generated_and_further_and_unlabelled_scans():
    _, names = refused(scans(), SEGMENTER, 0, synthetic=scans(1, spoiled=0, ids=False), p_synthetic=1.0)
    assert "synthetic scan 1" in names

    def sound() -> LabelledSet:
        made = scans(1, spoiled=0)
        return LabelledSet(made.images, made.labels, None, ("further-1",))

    class Unnamed:
        def draw(self, count: int, generator: torch.Generator) -> LabelledBatch:
            return replace(sound().draw(count, generator), ids=())

    for source, name in ((sound(), "further-1"), (Unnamed(), "a further scan")):
        _, names = refused(scans(), SEGMENTER, 0, recipe=Recipe(extra=Extra(source, 1.0)))
        assert set(names) == {name}
    unlabelled = Consistency(scans(1, spoiled=0).images, ids=("unlabelled-1",))
    step, names = refused(scans(), SEGMENTER, 0, recipe=Recipe(consistency=unlabelled))
    assert (step, names[-1]) == (1, "unlabelled-1")


def test_looking_later_still_names_the_first_bad_step():
    watch, one, nan = FiniteWatch("lr"), torch.tensor(1.0), torch.tensor(float("nan"))
    watch.add(1, ("a",), {"loss": one, "gradient": one})
    watch.pending.append((2, ("b", "c"), {"loss": one, "gradient": nan}))
    with pytest.raises(TrainingError, match=r"^gradient is nan at step 2 with the cases b, c;"):
        watch.add(3, ("d",), {"loss": nan, "gradient": nan})
    network = nn.Linear(1, 1)
    watch.check_weights(network.parameters())
    network.weight.data.fill_(float("inf"))
    with pytest.raises(TrainingError, match="not finite after step 3 with the cases d;"):
        watch.check_weights(network.parameters())


# ------------------------------------------------------------------------------------------------------------- clocks


def test_a_clock_that_is_set_back_leaves_the_journal_in_order(tmp_path, monkeypatch):
    start = 1_700_000_000_000
    now = [start]
    monkeypatch.setattr(journals.time, "time_ns", lambda: now[0] * 1_000_000)
    for back in (0, 3_600_000, 86_400_000):
        journal = Journal(tmp_path)
        for number in range(3):
            journal.append("r", "metrics", values={"loss": 1.0}, step=number)
            now[0] -= back
        journal.close()
    found = [entry for entry, _ in entries(tmp_path / NAME)]
    times = [entry["time"] for entry in found]
    assert [entry["seq"] for entry in found] == list(range(9))
    assert all(before < after for before, after in itertools.pairwise(times))
    assert start <= times[0]
    assert times[-1] < start + 60_000


# --------------------------------------------------------------------------------------- memory, disk and signals


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("machine") / "cohort"
    simulate(folder, n=6, seed=0, spacing=15.0)
    return folder


def test_too_little_memory_or_disk_is_one_sentence(cohort, tmp_path):
    command = [sys.executable, str(HERE / "limited.py"), str(cohort), str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, **NO_STORE}, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = {run["name"]: run for run in map(json.loads, done.stdout.splitlines())}
    expected = {
        "grid": "out of memory; use fewer workers",
        "model": "out of memory; use fewer workers",
        "estimate": "of memory",
        "disk": "the disk or quota is full",
        "no disk": "the disk or quota is full",
    }
    assert found.keys() == expected.keys()
    for name, words in expected.items():
        own = [line for line in found[name]["said"].splitlines() if line.startswith("medgen: ")]
        assert found[name]["code"] == 2, found[name]
        assert len(own) == 1, found[name]
        assert words in own[0]
        assert "Traceback" not in found[name]["said"]
        assert TEMPORARY not in own[0]
        assert not list((tmp_path / name.replace(" ", "-")).rglob(f"{TEMPORARY}*"))
    assert "no-disk/config.yaml" in found["no disk"]["said"]


def test_sigterm_keeps_a_checkpoint_and_marks_the_run_killed(cohort, tmp_path):
    out = tmp_path / "run"
    state = out / "checkpoints" / CHECKPOINT
    code = "from medgen.pipelines.cli.app import main; main()"
    # More than can be done before the signal comes.
    arguments = ["train", str(CONFIG), f"data={cohort}", f"out={out}", "training.steps=100000", "device=cpu", "-q"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **NO_STORE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 120
        while not state.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert "medgen: ended by SIGTERM; pass --resume to go on" in said
    assert "Traceback" not in said
    assert kept(out / "checkpoints")["step"] >= 3
    found = [entry for entry, _ in entries(out / NAME)]
    assert {entry["run"] for entry in found if entry["kind"] == "start"} == {
        entry["run"] for entry in found if entry["kind"] == "end"
    }
    names = {entry["run"]: entry["name"] for entry in found if entry["kind"] == "start"}
    ended = {names[entry["run"]]: entry["status"] for entry in found if entry["kind"] == "end"}
    assert ended == {"train": "KILLED", "divide": "FINISHED", "prepare": "FINISHED", "training": "KILLED"}
    assert not list(out.rglob(f"{TEMPORARY}*"))
    assert not (out / "model").exists()
