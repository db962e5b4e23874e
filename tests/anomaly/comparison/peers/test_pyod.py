from __future__ import annotations

import numpy as np

from medgen.anomaly.comparison.peers import pyod
from medgen.anomaly.comparison.peers.base import PeerSettings
from medgen.transforms.masked_smoothing import smooth
from tests.builders.peer_scans import dataset, ready, spotted


def test_features_are_intensity_local_mean_and_place():
    image = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    mask = np.random.default_rng(1).random((4, 5, 6)) < 0.5
    table = pyod.features(image, mask)
    assert table.shape == (mask.sum(), 7)
    np.testing.assert_array_equal(table[:, 0], image[0][mask])
    np.testing.assert_allclose(table[:, 3], smooth(image[1], mask, 2.0)[mask], rtol=1e-6)
    np.testing.assert_array_equal(table[:, 4:], np.argwhere(mask))


def test_pyod_knn_equals_scikit_learn():
    ready("pyod-knn")
    from sklearn.neighbors import NearestNeighbors

    data = dataset()
    fitted = pyod.fit("pyod-knn", data, PeerSettings(voxels=10**6), 0)
    image, foreground = spotted(data)
    tables = [pyod.features(data.images[n].numpy(), data.foregrounds[n, 0].numpy()) for n in range(4)]
    table = np.concatenate(tables)
    mean, sd = table.mean(axis=0), table.std(axis=0)
    rows = (pyod.features(image.numpy(), foreground[0].numpy()) - mean) / sd
    distance, _ = NearestNeighbors(n_neighbors=5).fit((table - mean) / sd).kneighbors(rows)
    found = fitted.peer(image, foreground)[foreground[0].numpy()]
    np.testing.assert_allclose(found, distance[:, -1], rtol=1e-3, atol=1e-4)
