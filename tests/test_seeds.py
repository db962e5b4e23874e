import subprocess
import sys

import numpy as np
import torch

from medgen.seeds import derive, numpy_rng, torch_rng


def test_streams_differ_by_every_key_and_repeat():
    names = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", "1"), (0, "a", 2), (0, "a/i", 1)]
    seeds = [derive(*name) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [derive(*name) for name in names]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_same_in_another_process():
    command = "from medgen.seeds import derive; print(derive(7, 'train', 3))"
    found = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert int(found) == derive(7, "train", 3)


def test_generators():
    np.testing.assert_array_equal(numpy_rng(1, "x").random(3), numpy_rng(1, "x").random(3))
    assert torch.equal(torch.rand(3, generator=torch_rng(1, "x")), torch.rand(3, generator=torch_rng(1, "x")))
    assert not torch.equal(torch.rand(3, generator=torch_rng(1, "x")), torch.rand(3, generator=torch_rng(1, "y")))
