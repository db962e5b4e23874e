import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from medgen.errors import ConfigError, TrainingError
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset
from medgen.training.batches import augmented, batch_indices
from medgen.training.checkpoint import CHECKPOINT
from medgen.training.schedule import learning_rate
from medgen.training.trainer import Terminated, TrainingConfig, device_of, fit
from medgen.transforms.augmentation import AugmentConfig

SHAPE = (8, 12, 8)
MODEL = {"family": "vaegan", "shape": SHAPE, "widths": [16], "latent": 4, "narrow": 2, "discriminator_widths": [16]}
CONFIG = TrainingConfig(
    steps=6,
    batch_size=2,
    precision="32",
    log_every=1,
    checkpoint_every=3,
    augment=AugmentConfig(),
)


def dataset(n=5, prefix="c"):
    generator = torch.Generator().manual_seed(0)
    names = tuple(f"{prefix}{k}" for k in range(n))
    images = torch.rand((n, 1, *SHAPE), generator=generator)
    labels = torch.randint(0, 3, (n, 1, *SHAPE), generator=generator).to(torch.uint8)
    return Dataset(names, names, images, images > 0.1, labels)


def run(config=CONFIG, model=MODEL, data=None, **options):
    return fit(build(model, seed=0), data or dataset(), config, seed=1, device="cpu", **options)


def digest(model):
    state = model.state_dict()
    content = b"".join(name.encode() + state[name].contiguous().numpy().tobytes() for name in sorted(state))
    return hashlib.sha256(content).hexdigest()


class Stop(Exception):
    pass


def stop_at(step):
    def log(numbers, now):
        if now == step:
            raise Stop

    return log


def test_resume_is_bit_identical(tmp_path):
    options = {"validation": dataset(3, "v"), "config": CONFIG.model_copy(update={"validate_every": 2, "patience": 5})}
    straight = run(out=tmp_path / "a", **options)
    with pytest.raises(Stop):
        run(out=tmp_path / "b", log=stop_at(5), **options)
    resumed = run(out=tmp_path / "b", resume=True, **options)
    assert digest(straight.model) == digest(resumed.model)
    assert straight.history == resumed.history
    assert [record["step"] for record in resumed.history] == [1, 2, 3, 4, 5, 6]
    # A finished training resumes to itself.
    assert digest(run(out=tmp_path / "b", resume=True, **options).model) == digest(straight.model)


def test_the_seed_decides_and_the_global_stream_does_not(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = run()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert digest(run().model) == digest(first.model)


def test_another_run_is_not_resumed(tmp_path):
    run(out=tmp_path)
    with pytest.raises(TrainingError, match="another training"):
        run(CONFIG.model_copy(update={"lr": 0.1}), out=tmp_path, resume=True)
    with pytest.raises(TrainingError, match="another training"):
        run(data=dataset(4), out=tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path, content):
    path = tmp_path / CHECKPOINT
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="remove it to start again") as caught:
        run(out=tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_names_step_and_cases_and_is_not_kept(tmp_path):
    data = dataset()
    images = data.images.clone()
    images[3, 0, 0, 0, 0] = float("nan")
    spoiled = Dataset(data.ids, data.subjects, images, data.foregrounds)
    config = CONFIG.model_copy(update={"augment": None, "checkpoint_every": 1, "batch_size": 1})
    order = [batch_indices(5, 1, step, seed=1)[0] for step in range(5)]
    bad = order.index(3) + 1
    # Without a start from the cohort's mean, so that the first steps are sound.
    model = build(MODEL, seed=0)
    model.initialize = lambda dataset: None
    with pytest.raises(TrainingError, match=rf"at step {bad} with the cases c3;"):
        fit(model, spoiled, config, seed=1, device="cpu", out=tmp_path)
    if bad > 1:
        kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)
        assert kept["step"] == bad - 1
        assert all(torch.isfinite(tensor).all() for tensor in kept["model"].values())
    else:
        assert not (tmp_path / CHECKPOINT).exists()


def test_sigterm_checkpoints_and_exits_with_143(tmp_path):
    def log(numbers, step):
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as caught:
        run(out=tmp_path, log=log)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 2
    assert digest(run(out=tmp_path, resume=True).model) == digest(run().model)


def test_early_stop_returns_the_best_weights():
    config = TrainingConfig(
        steps=40, batch_size=2, precision="32", lr=0.05, ema=0.0, validate_every=2, patience=3, clip=0.0, warmup=0.0
    )
    data, validation = dataset(2), dataset(3, "v")
    vae = {"family": "vae", "shape": SHAPE, "widths": [16], "latent": 2, "codes": [[2, 2]]}
    result = run(config, vae, data, validation=validation)
    looks = [record["validation"] for record in result.history if "validation" in record]
    assert result.steps < 40
    assert len(looks) - 1 - looks.index(min(looks)) == 3


def test_averaged_weights_lag_behind_and_the_discriminator_is_not_averaged():
    averaged = run(CONFIG.model_copy(update={"ema": 0.9})).model.state_dict()
    live = run(CONFIG.model_copy(update={"ema": 0.0})).model.state_dict()
    differs = {name.split(".")[0] for name in live if not torch.equal(live[name], averaged[name])}
    assert {"encoder", "decoder"} <= differs
    assert "discriminator" not in differs


def test_training_learns():
    vae = {"family": "vae", "shape": SHAPE, "widths": [16], "latent": 4, "codes": [[2, 2]]}
    result = run(TrainingConfig(steps=40, batch_size=4, precision="32", lr=3e-3, log_every=10), vae)
    losses = [record["loss"] for record in result.history]
    assert losses[-1] < losses[0] - 0.05
    assert not result.model.training


def test_bfloat16_trains_to_about_the_same():
    exact, rounded = (run(CONFIG.model_copy(update={"precision": name})) for name in ("32", "bf16"))
    key = "generator/nll"
    assert rounded.history[-1][key] == pytest.approx(exact.history[-1][key], abs=0.05)


@pytest.mark.parametrize(("n", "size"), [(5, 2), (3, 7), (4, 4)])
def test_every_epoch_sees_every_case_once(n, size):
    row = [index for step in range(2 * n) for index in batch_indices(n, size, step, seed=0)]
    assert all(sorted(row[start : start + n]) == list(range(n)) for start in range(0, len(row) - n + 1, n))


def test_learning_rate_rises_then_falls_to_zero():
    config = TrainingConfig(steps=100, lr=1.0, warmup=0.1)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_augmentation_moves_everything_through_one_grid():
    data = dataset()
    batch = data.batch([0, 1])
    flip = AugmentConfig(spatial=0.0, flip=(1.0, 0.0, 0.0), intensity=0.0)
    moved = augmented(batch, flip, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved.image, batch.image.flip(2), atol=1e-5, rtol=1e-5)
    assert torch.equal(moved.foreground, batch.foreground.flip(2))
    assert torch.equal(moved.labels, batch.labels.flip(2))


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "cuda:99", ""])
def test_devices_that_are_not_there(name):
    with pytest.raises(ConfigError, match="device"):
        device_of(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validate_every": 2}, "no validation cases"),
        ({"patience": 2}, "needs training.validate_every"),
    ],
)
def test_settings_that_do_not_fit_together(change, message):
    with pytest.raises(TrainingError, match=message):
        run(CONFIG.model_copy(update=change))


def test_data_of_another_shape_are_refused():
    with pytest.raises(TrainingError, match=r"expects scans of shape \(1, 16, 12, 8\), found \(1, 8, 12, 8\)"):
        run(model={**MODEL, "shape": (16, 12, 8)})


SCRIPT = """
    import hashlib, os, sys, torch
    torch.set_num_threads(1)
    sys.path.insert(0, sys.argv[2])
    from test_trainer import CONFIG, MODEL, dataset, digest
    from medgen.models.catalogue import build
    from medgen.training.trainer import fit
    rank = int(os.environ["RANK"])
    model = build({**MODEL, "ada_target": 0.6}, seed=rank)  # different on purpose: rank 0's weights must win
    result = fit(model, dataset(), CONFIG.model_copy(update={"ema": 0.9}), seed=1, device="cpu", out=None)
    with open(f"{sys.argv[1]}/rank{rank}", "w") as file:
        file.write(digest(result.model))
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*command, str(tmp_path), str(Path(__file__).parent)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"rank{rank}").read_text() for rank in (0, 1))
    assert first == second
    alone = {**MODEL, "ada_target": 0.6}
    assert first != digest(run(CONFIG.model_copy(update={"ema": 0.9}), alone).model)
