from __future__ import annotations

import numpy as np
import pytest
import torch

from medgen.anomaly.comparison.peers import catalogue as peers
from medgen.anomaly.comparison.peers import pyod
from medgen.anomaly.comparison.peers.base import PeerSettings, score
from medgen.errors import ConfigError
from tests.builders.peer_scans import SHAPE, dataset, ready, spotted

SETTINGS = PeerSettings(voxels=3000, patches=1000, steps=2)


@pytest.mark.parametrize("name", peers.NAMES)
def test_peers_score_inside_the_scan_are_repeatable_and_leave_random_streams_alone(name):
    ready(name)
    data = dataset()
    image, foreground = spotted(data)
    region = foreground[0].numpy().copy()
    region[3] = False
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    maps = [score(peers.fit(name, data, SETTINGS, 0), image, foreground, region, 1.0) for _ in range(2)]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-4, atol=1e-5)
    assert maps[0].shape == SHAPE
    assert maps[0].dtype == np.float32
    assert np.isfinite(maps[0]).all()
    assert not maps[0][~region].any()
    # A cube five standard intensities too bright is what all of them must see.
    assert maps[0][6:9, 7:10, 5:8].mean() > np.quantile(maps[0][region], 0.9)


def test_a_peer_that_is_not_installed_is_a_sentence_and_an_unknown_one_an_error(monkeypatch):
    monkeypatch.setitem(pyod.DETECTORS, "pyod-pca", ("no_such_module_at_all", "PCA", {}))
    assert "medgen[peers]" in peers.missing("pyod-pca")
    with pytest.raises(ConfigError, match="is left out"):
        peers.fit("pyod-pca", dataset(), SETTINGS, 0)
    with pytest.raises(ConfigError, match="unknown peer 'pyod'"):
        peers.missing("pyod")
