"""Several processes are one training: the same losses and weights as one process with as many batches a step."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen.errors import ConfigError
from medgen.models.catalogue import build
from medgen.training.ranks import Started
from medgen.training.trainer import fit
from tests.training.test_trainer import CONFIG, SHAPE, dataset

# Draws of its own in every step, and batches that are augmented.
MODEL = {"family": "vae", "shape": SHAPE, "widths": [16, 16], "latent": 4}
TOLD = {"steps": 6, "batch_size": 2, "log_every": 2}
SCRIPT = """
    import json, os, sys
    import torch
    torch.set_num_threads(1)
    sys.path.insert(0, sys.argv[2])
    from tests.training.test_ranks import trained
    rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "-1")))
    # Initial weights are different on purpose: those of rank 0 must win.
    told = trained(seed=rank, accumulate=int(sys.argv[3]))
    with open(f"{sys.argv[1]}/rank{rank}.json", "w") as file:
        json.dump(told, file)
    torch.distributed.destroy_process_group()
"""


def trained(seed: int, accumulate: int) -> dict[str, list[float]]:
    """Losses and gradients as logged, and every weight, of a small training."""
    config = CONFIG.model_copy(update={**TOLD, "accumulate": accumulate, "ema": 0.9})
    result = fit(build(MODEL, seed=seed), dataset(7), config, seed=1, device="cpu", out=None)
    state = result.model.state_dict()
    weights = torch.cat([state[name].double().reshape(-1) for name in sorted(state)])
    keys = ("loss", "gradient")
    return {key: [float(row[key]) for row in result.history] for key in keys} | {"weights": weights.tolist()}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def torchrun(script: Path, *arguments: str, count: int = 2) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), *arguments], env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr


def srun(script: Path, *arguments: str) -> None:
    """Two processes with what ``srun`` puts in their environment; there is no SLURM here."""
    common = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "medgen",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NODEID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    alone = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**alone, **common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=250)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("start", [torchrun, srun])
def test_losses_and_weights_are_those_of_one_process_at_equal_global_batch(start, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    start(script, str(tmp_path), str(Path(__file__).parents[2]), "1")
    both = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    # All processes have the same numbers and the same weights, to the last bit.
    assert both[0] == both[1]
    alone = trained(seed=0, accumulate=2)
    assert len(alone["loss"]) == 4
    for key in ("loss", "gradient"):
        np.testing.assert_allclose(both[0][key], alone[key], rtol=2e-5, err_msg=key)
    np.testing.assert_allclose(both[0]["weights"], alone["weights"], rtol=0, atol=2e-5)
    # Half of the cases in a step is another training: the comparison can tell.
    other = trained(seed=0, accumulate=1)
    assert max(abs(np.array(other["loss"]) - alone["loss"])) > 1e-3
    assert max(abs(np.array(other["weights"]) - alone["weights"])) > 1e-3


def test_the_environment_says_who_one_is() -> None:
    assert Started.of({}) == Started("", 0, 1, 0, 1)
    step = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
    assert Started.of(step) == Started("srun", 5, 8, 1, 4)
    # torchrun inside of a job is what has started it.
    torch_run = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert Started.of({**step, **torch_run}) == Started("torchrun", 1, 2, 1, 2)
    # A job script has the numbers of the job, and is one process.
    assert Started.of({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).count == 1
    with pytest.raises(ConfigError, match="7 processes on 2 machines"):
        Started.of({**step, "SLURM_STEP_NUM_TASKS": "7"})
