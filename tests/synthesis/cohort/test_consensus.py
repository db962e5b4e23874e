"""Unlabelled scans get labels that several segmenters agree on, and only those that are credible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen.metrics.segmentation import mean_dice
from medgen.segmentation.ensemble import in_one_piece, one_piece_labels
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.synthesis.backend import FitContext
from medgen.synthesis.backends import backend_class
from medgen.synthesis.cohort.consensus import Consensus, ConsensusConfig, label_unlabelled
from medgen.synthesis.sources import Sources
from medgen.transforms.augmentation import AugmentConfig
from tests.builders.labelled_scans import blobs

CONFIG = ConsensusConfig(
    members=3,
    segmenter=SegmenterConfig(channels=(8, 16), steps=60, batch_size=2, lr=0.02),
    augment=AugmentConfig(rotate_degrees=5, translate=1, intensity=0.1),
)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that have hardly learnt see no label as it is; here it is not asked."""
    monkeypatch.setattr("medgen.synthesis.cohort.consensus._bias", lambda *given, **named: ())


@pytest.fixture(scope="module")
def found(sources: Sources) -> Consensus:
    return label_unlabelled(sources, CONFIG, seed=0, device="cpu")


def test_labels_are_close_to_the_hidden_ones(found: Consensus) -> None:
    truth = blobs(4, 1, "u")
    assert found.scans is not None
    assert found.scans.labels is not None
    assert truth.labels is not None
    assert set(found.scans.ids) | set(found.left_out) == set(truth.ids)
    for row, name in enumerate(found.scans.ids):
        hidden = truth.labels[truth.ids.index(name), 0].numpy()
        assert mean_dice(found.scans.labels[row, 0].numpy(), hidden, (1, 4)) > 0.8
    confidence = found.scans.confidence
    assert confidence is not None
    # Three classes: the winner has at least a third of the probability, and the middle of a structure nearly all.
    assert int(confidence.min()) >= 255 // 3 - 1
    assert float((confidence > 240).float().mean()) > 0.5


def test_equal_seeds_give_equal_labels_and_others_differ(found: Consensus, sources: Sources) -> None:
    again = label_unlabelled(sources, CONFIG, seed=0, device="cpu")
    other = label_unlabelled(sources, CONFIG, seed=1, device="cpu")
    assert found.scans is not None
    assert again.scans is not None
    assert other.scans is not None
    assert torch.equal(again.scans.confidence, found.scans.confidence)  # type: ignore[arg-type]
    assert not torch.equal(other.scans.confidence, found.scans.confidence)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unmeasured")
def test_members_do_not_depend_on_how_many_are_trained_at_once(sources: Sources) -> None:
    quick = CONFIG.model_copy(update={"members": 2, "segmenter": CONFIG.segmenter.model_copy(update={"steps": 3})})
    alone = label_unlabelled(sources, quick, seed=0, device="cpu")
    both = label_unlabelled(sources, quick, seed=0, device="cpu", workers=2)
    assert alone.agreement == both.agreement
    assert alone.members is not None
    assert both.members is not None
    for first, second in zip(alone.members.segmenters, both.members.segmenters, strict=True):
        weights = second.network.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in first.network.state_dict().items())


def test_scans_without_the_organ_are_left_out(sources: Sources) -> None:
    strange = blobs(4, 1, "u", labelled=False)
    images = strange.images.clone()
    images[2] = 0.1 * torch.rand(images[2].shape, generator=torch.Generator().manual_seed(0))
    ticks: list[tuple[int, int]] = []
    spoilt = replace(sources, unlabelled=replace(strange, images=images))
    found = label_unlabelled(spoilt, CONFIG, seed=0, device="cpu", tick=lambda done, of: ticks.append((done, of)))
    assert "u-2" in found.left_out
    assert found.scans is not None
    assert len(found.scans) >= 2
    # Two judges of each of three held-out groups, then three members.
    assert ticks == [(number, 9) for number in range(1, 10)]


def test_labels_that_are_always_in_one_piece_stay_so() -> None:
    real = torch.zeros(2, 1, 8, 8, 8, dtype=torch.uint8)
    real[:, :, 1:4, 1:4, 1:4] = 2
    real[0, :, 6, 6, 6] = 5
    real[1, :, 6, 6, 1:8:3] = 5
    assert one_piece_labels(real, (2, 5)) == (2,)
    guess = real.clone()
    guess[0, :, 6, 1, 1] = 2
    cleaned = in_one_piece(guess, (2,))
    assert torch.equal(cleaned, real)
    assert int(guess[0, 0, 6, 1, 1]) == 2
    assert torch.equal(in_one_piece(guess, ()), guess)


def test_a_second_round_learns_from_the_first(sources: Sources, found: Consensus) -> None:
    twice = CONFIG.model_copy(update={"rounds": 2, "p_unlabelled": 1.0})
    second = label_unlabelled(sources, twice, seed=0, device="cpu")
    assert second.agreement != found.agreement
    assert second.scans is not None


@pytest.mark.usefixtures("unmeasured")
def test_an_interrupted_run_does_not_train_again(sources: Sources, found: Consensus, tmp_path: Path) -> None:
    quick = CONFIG.model_copy(update={"members": 1, "segmenter": CONFIG.segmenter.model_copy(update={"steps": 5})})
    calls: list[int] = []
    for config, seed, trained in ((quick, 0, 1), (quick, 0, 0), (quick, 1, 1), (quick, 1, 0)):
        calls.clear()
        made = label_unlabelled(sources, config, seed=seed, store=tmp_path, tick=lambda done, of: calls.append(done))
        assert len(calls) == trained
        again = label_unlabelled(sources, config, seed=seed)
        assert made.agreement == again.agreement
        if made.scans is not None and again.scans is not None:
            assert torch.equal(made.scans.labels, again.scans.labels)  # type: ignore[arg-type]
    (tmp_path / "arrays.safetensors").write_bytes(b"broken")
    calls.clear()
    label_unlabelled(sources, quick, seed=1, store=tmp_path, tick=lambda done, of: calls.append(done))
    # Three judges of held-out groups that are not asked here count as done.
    assert calls == [4]


def test_a_biased_label_is_not_inferred_and_scans_lend_their_images_only(
    sources: Sources, found: Consensus, tmp_path: Path
) -> None:
    assert [item.label for item in found.bias] == [1, 4]
    assert found.biased == ()
    assert all(abs(item.volume_ratio.estimate - 1) < 0.2 for item in found.bias)
    # Segmenters of two steps see nothing as it is.
    quick = CONFIG.model_copy(update={"members": 1, "segmenter": CONFIG.segmenter.model_copy(update={"steps": 2})})
    ticks: list[tuple[int, int]] = []
    for trained in (3, 0):
        ticks.clear()
        made = label_unlabelled(
            sources, quick, seed=0, device="cpu", store=tmp_path / "kept", tick=lambda *done: ticks.append(done)
        )
        assert made.biased
        assert made.scans is None
        assert made.members is None
        assert made.left_out == ()
        assert len(ticks) == trained
        assert sources.unlabelled is not None
        assert replace(sources, consensus=made.scans).pairs.ids == sources.labelled.ids


def test_nothing_to_label(sources: Sources) -> None:
    assert label_unlabelled(replace(sources, unlabelled=None), CONFIG, seed=0).scans is None
    assert label_unlabelled(sources, CONFIG.model_copy(update={"members": 0}), seed=0).scans is None


def test_deformed_scans_come_from_unlabelled_anatomies_too(
    sources: Sources, found: Consensus, context: FitContext, tmp_path: Path
) -> None:
    kind = backend_class("deform")
    config = kind.Config.model_validate({"pairs": 4, "registration": {"spacing": 6, "iterations": 5, "window": 5}})
    both = replace(sources, consensus=found.scans, members=found.members)
    backend = kind.fit(both, config, context)
    samples = [backend.sample(seed) for seed in range(24)]
    parents = {sample.parents[0] for sample in samples}
    assert parents & set(sources.labelled.ids)
    assert parents & {f"u-{row}" for row in range(4)}
    backend.save(tmp_path / "deform")
    loaded = kind.load(tmp_path / "deform", "cpu")
    assert found.members is not None
    for seed, sample in enumerate(samples[:8]):
        inferred = sample.parents[0].startswith("u-")
        assert sample.facts["labels"] == ("inferred" if inferred else "moved")
        assert np.array_equal(loaded.sample(seed).labels, sample.labels)
        if inferred:
            asked = found.members.vote(torch.from_numpy(sample.image)[None])[0][0, 0].numpy()
            assert np.array_equal(sample.labels, asked)
    alone = {kind.fit(sources, config, context).sample(seed).parents[0] for seed in range(10)}
    assert alone <= set(sources.labelled.ids)
