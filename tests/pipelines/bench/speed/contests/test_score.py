"""One network over a volume: windows do more work for about the same result."""

from __future__ import annotations

import math

import pytest
import torch

from medgen.pipelines.bench.speed.contest import Contest, Growth, Settings
from medgen.pipelines.bench.speed.contests import score


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return list(score.entries(Settings("cpu", 3, quick=True, data=None, scratch=tmp_path_factory.mktemp("scratch"))))


def test_windows_see_the_same_network_and_about_the_same_result(measured):
    contest = measured[0]
    assert isinstance(contest, Contest)
    rows = contest.equal()
    assert len(set(rows["parameters"].values())) == len(set(rows["voxels"].values())) == 1
    differences = rows["difference to one pass"]
    assert differences["medgen"] == 0
    # A window of half the side sees less around a voxel and pads where the volume goes on.
    others = [value for name, value in differences.items() if name != "medgen"]
    assert all(0 < value < 0.3 for value in others)


def test_the_network_sees_its_surroundings():
    settings = Settings("cpu", 3, quick=True, data=None, scratch=None)
    network = score._network(settings)
    volume = score._volume((16, 16, 16), settings)
    other = volume.clone()
    other[..., 4, 8, 8] += 1
    change = (score._whole(network, volume) - score._whole(network, other)).abs()[0, 0]
    assert change[8, 8, 8] > 0


def test_operations_are_those_of_one_pass():
    settings = Settings("cpu", 3, quick=True, data=None, scratch=None)
    network, shape = score._network(settings), (16, 24, 16)
    stem = 2 * 16 * 8 * 27 * math.prod(shape) / 8
    assert stem < score._demand(network, shape).flops < 30 * stem
    assert not any(module._forward_hooks for module in network.modules())


def test_work_grows_with_voxels(measured):
    growth = measured[1]
    assert isinstance(growth, Growth)
    assert growth.make(16.0**3)().shape == torch.Size((1, 1, 16, 16, 16))
