from __future__ import annotations

import numpy as np
import pytest
import torch

from medgen.anomaly.comparison import leave_one_type_out, peers
from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import get
from medgen.anomaly.scores.corruptions import KINDS
from medgen.anomaly.scores.settings.corruptions import DEFAULT
from medgen.errors import ConfigError
from medgen.implants.catalogue import registered
from medgen.preprocessing.dataset import Dataset
from medgen.transforms.masked_smoothing import smooth

# Not a multiple of 8 along any axis.
SHAPE = (14, 17, 13)
SETTINGS = peers.PeerSettings(voxels=3000, steps=2)


def dataset(n=4, seed=0):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(1, 0.2, size=(n, 1, *SHAPE)).astype(np.float32))
    foregrounds = torch.zeros(n, 1, *SHAPE, dtype=torch.bool)
    foregrounds[:, :, 2:-2, 2:-2, 2:-2] = True
    names = tuple(f"case-{number}" for number in range(n))
    return Dataset(names, names, images, foregrounds)


def spotted(data):
    image, foreground = data.images[0].clone(), data.foregrounds[0]
    image[0, 6:9, 7:10, 5:8] += 5
    return image, foreground


def ready(name):
    if reason := peers.missing(name):
        pytest.skip(reason)


def test_features_are_intensity_local_mean_and_place():
    image = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    mask = np.random.default_rng(1).random((4, 5, 6)) < 0.5
    table = peers.features(image, mask)
    assert table.shape == (mask.sum(), 7)
    np.testing.assert_array_equal(table[:, 0], image[0][mask])
    np.testing.assert_allclose(table[:, 3], smooth(image[1], mask, 2.0)[mask], rtol=1e-6)
    np.testing.assert_array_equal(table[:, 4:], np.argwhere(mask))


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
    maps = [peers.score(peers.fit(name, data, SETTINGS, 0), image, foreground, region, 1.0) for _ in range(2)]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-4, atol=1e-5)
    assert maps[0].shape == SHAPE
    assert maps[0].dtype == np.float32
    assert np.isfinite(maps[0]).all()
    assert not maps[0][~region].any()
    # A cube five standard intensities too bright is what all of them must see.
    assert maps[0][6:9, 7:10, 5:8].mean() > np.quantile(maps[0][region], 0.9)


def test_pyod_knn_equals_scikit_learn():
    ready("pyod-knn")
    from sklearn.neighbors import NearestNeighbors

    data = dataset()
    fitted = peers.fit("pyod-knn", data, peers.PeerSettings(voxels=10**6), 0)
    image, foreground = spotted(data)
    tables = [peers.features(data.images[n].numpy(), data.foregrounds[n, 0].numpy()) for n in range(4)]
    table = np.concatenate(tables)
    mean, sd = table.mean(axis=0), table.std(axis=0)
    rows = (peers.features(image.numpy(), foreground[0].numpy()) - mean) / sd
    distance, _ = NearestNeighbors(n_neighbors=5).fit((table - mean) / sd).kneighbors(rows)
    found = fitted.peer(image, foreground)[foreground[0].numpy()]
    np.testing.assert_allclose(found, distance[:, -1], rtol=1e-3, atol=1e-4)


def test_training_of_a_peer_stops_at_its_steps_or_its_time():
    data = dataset()
    assert "3 of 3 steps" in peers.fit("monai-vae", data, peers.PeerSettings(steps=3), 0).words
    assert "1 of 500 steps" in peers.fit("monai-vae", data, peers.PeerSettings(steps=500, seconds=1e-9), 0).words


def test_a_peer_that_is_not_installed_is_a_sentence_and_an_unknown_one_an_error(monkeypatch):
    monkeypatch.setitem(peers.PYOD, "pyod-pca", ("no_such_module_at_all", "PCA", {}))
    assert "medgen[peers]" in peers.missing("pyod-pca")
    with pytest.raises(ConfigError, match="is left out"):
        peers.fit("pyod-pca", dataset(), SETTINGS, 0)
    with pytest.raises(ConfigError, match="unknown peer 'pyod'"):
        peers.missing("pyod")


def test_groups_name_corruptions_and_implants_that_exist_each_once():
    corruptions = [name for group in leave_one_type_out.GROUPS for name in group]
    implants = [name for kinds in leave_one_type_out.GROUPS.values() for name in kinds]
    assert sorted(corruptions) == sorted(DEFAULT)
    assert set(corruptions) <= set(KINDS)
    assert len(implants) == len(set(implants))
    assert set(implants) <= set(registered())


def test_left_out_versions_are_the_registered_score_with_other_corruptions():
    data = dataset(6)
    fitted = leave_one_type_out.refit(data, 1.0)
    assert len(fitted.selfsup) == 1 + len(leave_one_type_out.GROUPS)
    image, foreground = spotted(data)
    region = foreground[0].numpy()
    maps = fitted.maps(image, foreground, region)
    group = ("offset",)
    kinds = tuple(kind for kind in DEFAULT if kind not in group)
    training = Inputs(data.images, data.foregrounds, (), {"corruptions": kinds})
    state = {**get("descriptors").fit(training), **get("selfsup").fit(training)}
    expected = get("selfsup")(Inputs(image[None], foreground[None]), state)[0]
    np.testing.assert_allclose(
        maps[leave_one_type_out.label(group)], smooth(expected, region, 1.0), rtol=1e-4, atol=1e-4
    )
    assert not np.allclose(maps[leave_one_type_out.label(group)], maps[leave_one_type_out.label()])
    zscore = get("zscore")(Inputs(image[None], foreground[None]), get("zscore").fit(training))[0]
    np.testing.assert_allclose(maps[leave_one_type_out.ZSCORE], smooth(zscore, region, 1.0), rtol=1e-4, atol=1e-4)
