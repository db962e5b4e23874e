"""Both train the same network for as many steps."""

from __future__ import annotations

import torch

from medgen.pipelines.bench.speed.contest import Contest, Settings
from medgen.pipelines.bench.speed.contests import value_study


def test_both_train_the_same_network(tmp_path):
    (contest,) = value_study.entries(Settings("cpu", 3, quick=True, data=None, scratch=tmp_path))
    assert isinstance(contest, Contest)
    own, peer = (contender.work() for contender in contest.contenders)
    shapes = [{name: weights.shape for name, weights in found.network.state_dict().items()} for found in (own, peer)]
    assert shapes[0] == shapes[1]
    image = torch.rand(1, 1, 32, 32, 32)
    assert own.classes == peer.classes
    assert own.predict(image).shape == peer.predict(image).shape == image.shape
