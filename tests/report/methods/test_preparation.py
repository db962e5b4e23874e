"""The recipe and the training in words follow their settings."""

from __future__ import annotations

import pytest

from medgen.models.catalogue import build
from medgen.preprocessing.recipe import Preprocess
from medgen.report.methods import references
from medgen.report.methods.preparation import MODELS, networks, preparation, training
from medgen.report.methods.text import MethodsText
from medgen.training.config import TrainingConfig


def told(**settings):
    text = MethodsText("Methods")
    preparation(text, Preprocess(**{"shape": (20, 24, 16), "spacing": (2, 2.5, 3), **settings}))
    return text.markdown


def test_grid_and_scale_are_those_of_the_recipe():
    said = told()
    assert "20 x 24 x 16 voxels of 2 x 2.5 x 3 mm" in said
    assert "Percentiles 1 and 99" in said
    assert "0 and 1" in said
    assert "Percentiles 2 and 98" in told(percentiles=(2, 98))
    assert "centre of their field of view" in said
    assert "centre of their foreground" in told(center_on="foreground")


@pytest.mark.parametrize(
    ("settings", "words", "source"),
    [
        ({"bias_field": "n4"}, "N4", references.N4),
        ({"brain": "extract"}, "brain was extracted from every head", references.MNI),
        ({"brain": "auto"}, "brain was extracted from each scan with the size", references.MNI),
        ({"coregister": True}, "rigid motion", references.MUTUAL_INFORMATION),
        ({"intensity": "nyul", "landmarks": tuple(range(1, 12))}, "landmarks", references.NYUL),
        ({"modality": "CT", "window": (-200, 300)}, "Intensities from -200 to 300 HU", ""),
        ({"align": "affine", "min_similarity": 0.7}, "below 0.7", ""),
    ],
)
def test_a_step_is_told_with_its_source_where_it_was_taken_and_only_there(settings, words, source):
    assert words in told(**settings)
    assert source in told(**settings)
    assert words not in told()
    assert not source or source not in told()


def test_the_model_is_named_with_parameters_and_source():
    model = build({"family": "vae", "shape": (16, 16, 16), "widths": (16, 16)}, seed=0)
    text = MethodsText("Methods")
    networks(text, MODELS, [model])
    assert "Model `vae` [1, 2]" in text.markdown
    assert f"{model.parameter_count} parameters" in text.markdown
    assert "Kingma and Welling" in text.markdown


def test_the_training_is_told_as_configured():
    text = MethodsText("Methods")
    training(text, MODELS, "`vae`", TrainingConfig(steps=123, batch_size=7, lr=0.02, ema=0, augment={}), 5)
    said = text.markdown
    for words in ("123 steps", "5 times", "batches of 7", "at most 0.02", "random augmentation"):
        assert words in said
    assert "moving average" not in said
    assert "started from" not in said
    other = MethodsText("Methods")
    training(other, MODELS, "It", TrainingConfig(ema=0.9, init={"artifact": "model"}), 1)
    assert "moving average of the weights (decay 0.9)" in other.markdown
    assert "started from a trained model" in other.markdown
    assert "times" not in other.markdown
