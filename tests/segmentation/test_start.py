"""Segmenters that start from a trained one: what is taken, what moves, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medgen.errors import ConfigError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build
from medgen.preprocessing.recipe import Preprocess
from medgen.segmentation.ordinary import Setting
from medgen.segmentation.ordinary.arms import ensemble_labels
from medgen.segmentation.segmenter import SegmenterConfig, train_segmenter
from medgen.segmentation.start import segmenter_start
from medgen.training.config import InitConfig
from tests.builders.labelled_scans import SHAPE, blobs

# So small a rate that weights stay where they began, to float precision.
STILL = SegmenterConfig(channels=(8, 16), steps=1, batch_size=2, lr=1e-12, weight_decay=0.0, precision="32")
MOVING = STILL.model_copy(update={"lr": 1e-2, "steps": 3})
LABELS = (1, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three artifacts: of two labels as here, of five, and no segmenter."""
    place = tmp_path_factory.mktemp("sources")
    common: dict[str, Any] = {"shape": SHAPE}
    tiny = {**common, "family": "segmenter", "channels": (8, 16)}
    for name, settings in {
        "two": {**tiny, "n_labels": 2},
        "five": {**tiny, "n_labels": 5},
        "vae": {**common, "family": "vae", "widths": (16, 16), "latent": 4},
    }.items():
        model = build(settings, seed=7)
        TrainedModel([model], Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0))).save(place / name)
    return place


def started(folder: Path, config: SegmenterConfig, **init: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights after a training that starts from an artifact, and the record of the start."""
    data = blobs(3, 0, "a")
    start = segmenter_start(InitConfig(**init), config, data.images, LABELS)
    network = train_segmenter(data, config, 0, labels=LABELS, start=start, device="cpu").network
    record = start.record(config.model(data.images.shape[1:], 3))
    return dict(network.state_dict()), record


def source(folder: Path, name: str) -> dict[str, torch.Tensor]:
    (model,) = TrainedModel.load(folder / name).models
    return {key.removeprefix("network."): tensor for key, tensor in model.state_dict().items()}


def test_every_weight_is_taken_where_all_fit(folder: Path) -> None:
    weights, record = started(folder, STILL, artifact=folder / "two")
    assert record["mismatches"] == []
    assert record["weights_taken"] == record["weights"]
    for key, tensor in source(folder, "two").items():
        torch.testing.assert_close(weights[key], tensor, atol=1e-9, rtol=0)


def test_a_last_layer_of_other_labels_is_the_seeds_own(folder: Path) -> None:
    weights, record = started(folder, STILL, artifact=folder / "five")
    before, taken = source(folder, "five"), 0
    scratch = train_segmenter(blobs(3, 0, "a"), STILL, 0, labels=LABELS, device="cpu").network.state_dict()
    for key, tensor in weights.items():
        fits = before[key].shape == tensor.shape
        torch.testing.assert_close(tensor, before[key] if fits else scratch[key], atol=1e-9, rtol=0)
        taken += fits
    assert record["tensors_taken"] == taken
    assert record["mismatches"]
    assert all("starts anew" in line for line in record["mismatches"])


def test_frozen_weights_stay_and_all_others_move(folder: Path) -> None:
    weights, record = started(folder, MOVING, artifact=folder / "two", frozen=("network.body.model.0.*",))
    before = source(folder, "two")
    frozen = [key for key in weights if key.startswith("body.model.0.")]
    assert record["weights_frozen"] == sum(weights[key].numel() for key in frozen) > 0
    for key, tensor in weights.items():
        # A bias before an instance norm has no gradient.
        if key in frozen:
            assert torch.equal(tensor, before[key])
        elif key.endswith("weight") and tensor.ndim == 5:
            assert not torch.equal(tensor, before[key])


def test_what_is_no_segmenter_or_of_other_sizes_is_refused(folder: Path) -> None:
    images = blobs(1, 0, "a").images
    with pytest.raises(ConfigError, match="holds a model of the family vae, and segmenter is to be trained"):
        segmenter_start(InitConfig(artifact=folder / "vae"), STILL, images, LABELS)
    other = STILL.model_copy(update={"residual_units": 2})
    with pytest.raises(ConfigError, match="no weight of it fits this model"):
        segmenter_start(InitConfig(artifact=folder / "two"), other, images, LABELS)


def test_larger_teachers_start_from_random_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ensemble_labels` has two residual units: what was trained without fits none of its weights."""
    seen: list[bool] = []
    trained = ensemble_labels.train_segmenter
    monkeypatch.setattr(ensemble_labels, "_TEACHERS", 1)

    def noted(*given: Any, **options: Any) -> Any:
        seen.append(options["start"] is not None)
        return trained(*given, **options)

    monkeypatch.setattr(ensemble_labels, "train_segmenter", noted)
    real, other = blobs(3, 0, "a"), blobs(2, 1, "b")
    unlabelled = type(other)(other.ids, other.subjects, other.images, other.foregrounds)
    start = segmenter_start(InitConfig(artifact=folder / "two"), STILL, real.images, LABELS)
    ensemble_labels.recipe(Setting(real, unlabelled, LABELS, STILL, start=start, device="cpu"))
    assert seen == [False]
