from __future__ import annotations

from medgen.anomaly.comparison.peers import monai
from medgen.anomaly.comparison.peers.base import PeerSettings
from tests.builders.peer_scans import dataset


def test_training_of_a_peer_stops_at_its_steps_or_its_time():
    data = dataset()
    assert "3 of 3 steps" in monai.fit("monai-vae", data, PeerSettings(steps=3), 0).words
    assert "1 of 500 steps" in monai.fit("monai-vae", data, PeerSettings(steps=500, seconds=1e-9), 0).words
