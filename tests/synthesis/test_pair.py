"""Any label source with any painter: names, settings, whose anatomy it is, and labels right by construction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen.config import parse_config
from medgen.errors import ArtifactError, ConfigError
from medgen.metrics.interval import Interval
from medgen.models.stored_arrays import Stored
from medgen.pipelines.augment.config import AugmentRunConfig, GeneratorsConfig
from medgen.segmentation.ensemble import SegmenterEnsemble
from medgen.segmentation.segmenter import SegmenterConfig, train_segmenter
from medgen.synthesis.backend import FitContext
from medgen.synthesis.backends import backend_class, load_backend
from medgen.synthesis.estimates import Outline
from medgen.synthesis.label_source import Scan
from medgen.synthesis.label_sources import source_class
from medgen.synthesis.painters import painter_class
from medgen.synthesis.pair import SHORT, Pair, halves_of, pair_class, pairs
from medgen.synthesis.privacy.memorisation import stamp_of
from medgen.synthesis.privacy.results import INTERNAL, SHARE, Check
from medgen.synthesis.sources import Sources
from medgen.synthesis.suitability import Hardware
from tests.builders.labelled_scans import blobs, tiny_settings

CPU = Hardware(None, 2, 8e9, 8e9, 1e12)
GPU = Hardware("a GPU", 2, 8e9, 8e9, 1e12)
MANY = Outline((16, 20, 12), 1, (1, 4), 40, 0)


def fitted(name: str, sources: Sources, context: FitContext) -> Pair:
    kind = pair_class(name)
    return kind.fit(sources, kind.Config.model_validate(tiny_settings(kind)), context)


@pytest.fixture(scope="module", params=pairs())
def pair(request: pytest.FixtureRequest, sources: Sources, context: FitContext) -> Pair:
    return fitted(request.param, sources, context)


def test_labels_are_those_that_were_drawn(pair: Pair, sources: Sources) -> None:
    for seed in range(3):
        scan, anatomy = pair.sample(seed), pair._labels.draw(pair.painter.labels_seed(seed))
        assert np.array_equal(scan.labels, anatomy.labels)
        assert scan.parents == anatomy.parents
        assert scan.facts["labels_from"] == pair.source.name
        assert scan.facts["painted_by"] == pair.painter.name
        assert {1, 4} <= set(np.unique(scan.labels)) or pair.source.name == "shape"


def test_the_image_is_made_for_the_labels(pair: Pair) -> None:
    """The same draws of the painter on another anatomy give another image."""
    one, other = pair._labels.draw(1), pair._labels.draw(2)
    assert not np.array_equal(one.labels, other.labels)
    painted = [pair._painting.paint(anatomy, 5).image for anatomy in (one, other, one)]
    assert not np.array_equal(painted[0], painted[1])
    assert np.array_equal(painted[0], painted[2])


def test_whose_anatomy_it_is_follows_from_the_pair(pair: Pair) -> None:
    assert bool(pair.sample(0).parents) == pair.derived
    # The full names begin with the source: others than these may have been added.
    assert pair.derived or pair.source.name not in {"real", "deform", "lesion"}
    assert not pair.derived or pair.source.name != "shape"
    number = Check("copies", Interval(0.0, 0.0, 0.1, 8), 0.05, False, "none")
    stamp, reason = stamp_of(pair.derivation if pair.derived else "", [number], 0, True, True, 0)
    assert stamp == (INTERNAL if pair.derived else SHARE)
    painted = pair.painter.starts_from is Scan.NONE
    assert ("anatomies under new appearances" in reason) == (pair.derived and painted)
    assert ("transformed patient scans" in reason) == (not painted)


def test_every_pair_is_found_once() -> None:
    assert {"deform+parent", "deform+flow", "real+flow", "shape+flow", "deform+spade", "shape+spade"} <= set(pairs())
    assert len(set(pairs())) == len(pairs())
    assert {"+".join(halves) for halves in SHORT.values()} <= set(pairs())
    assert halves_of("joint") is None


@pytest.mark.parametrize("short", SHORT)
def test_a_short_name_is_the_same_pair(short: str, sources: Sources, context: FitContext) -> None:
    full = "+".join(SHORT[short])
    one, other = fitted(short, sources, context), fitted(full, sources, context)
    assert (one.name, other.name) == (short, full)
    assert one.sample(3).image.tobytes() == other.sample(3).image.tobytes()
    assert one.sample(3).backend == short


def test_settings_of_a_short_name_find_their_half() -> None:
    spade = pair_class("spade").Config.model_validate(
        {"mask": {"latent": 8}, "training": {"steps": 7}, "labelled_share": 0.5, "style_spread": 0.1}
    )
    assert spade.labels.mask == {"latent": 8}
    assert spade.painter.training.steps == 7
    # The rest of the recipe stays.
    assert spade.painter.training.betas == (0.5, 0.99)
    assert spade.labels.labelled_share == spade.painter.labelled_share == 0.5
    nested = {"labels": {"mask": {"latent": 8}, "labelled_share": 0.5}}
    nested["painter"] = {"training": {"steps": 7}, "labelled_share": 0.5, "style_spread": 0.1}
    assert spade == pair_class("spade").Config.model_validate(nested)
    assert pair_class("spade").Config.model_validate(spade.model_dump()) == spade
    mixed = {"data": "cohort", "generators": {"flow": {"labels": {"pairs": 6}, "training": {"steps": 7}}}}
    flow = parse_config(AugmentRunConfig, mixed, source="x").generators.of("flow")
    assert (flow.labels.pairs, flow.painter.training.steps) == (6, 7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"deform+foo": {}},
            r"labels of deform, lesion, real, shape.* painter of flow, inpaint, parent, spade.*found 'deform\+foo'",
        ),
        ({"foo+flow": {}}, "found 'foo\\+flow'"),
        ({"shape+parent": {}}, "'shape\\+parent' is no pair: the painter 'parent' needs an image"),
        ({"deform+flow": {"pairs": 3}}, "pairs is a setting of one half: write labels.pairs"),
        ({"flow": {"pear": 3}}, "pear"),
        ({"flow": {"pairs": 3, "labels": {"pairs": 4}}}, "pairs is given twice"),
        ({"flow": {}, "deform+flow": {}}, "flow and deform\\+flow are the same pair"),
    ],
)
def test_wrong_pairs_are_refused_in_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_config(AugmentRunConfig, {"data": "cohort", "generators": given}, source="x")
    assert "\n" not in str(raised.value)


def test_names_that_are_no_pair() -> None:
    with pytest.raises(ConfigError, match="found 'joint'"):
        pair_class("joint")
    with pytest.raises(ConfigError, match=r"label source of deform, lesion, real, shape.*, found 'x'"):
        source_class("x")
    with pytest.raises(ConfigError, match=r"painter of flow, inpaint, parent, spade.*, found 'x'"):
        painter_class("x")
    with pytest.raises(ConfigError, match="or labels\\+painter, found 'x'"):
        backend_class("x")


def test_pairs_are_trained_in_the_order_of_their_names() -> None:
    made = GeneratorsConfig.model_validate({"shape+flow": {}, "deform": {}, "real+flow": {}})
    assert made.names == ("deform", "real+flow", "shape+flow")


@pytest.mark.parametrize(
    ("name", "machine", "take", "why"),
    [
        ("deform", CPU, True, "labels are right by construction with 40 labelled scans"),
        ("spade", GPU, True, "40 labelled of 40 training scans are enough to draw new anatomies"),
        ("spade", CPU, False, "no GPU"),
        ("deform+spade", CPU, False, "no GPU"),
        ("deform+spade", GPU, True, "labels are right by construction"),
        ("real+spade", GPU, True, "labels are those of 40 labelled scans"),
    ],
)
def test_both_halves_say_whether_a_pair_suits(name: str, machine: Hardware, take: bool, why: str) -> None:
    answer = pair_class(name).suits(MANY, machine, ())
    assert answer is not None
    assert answer.take == take
    assert answer.why.startswith(why)


def test_what_one_half_says_nothing_of_is_never_chosen() -> None:
    assert pair_class("deform+flow").suits(MANY, GPU, ()) is None
    assert pair_class("shape+spade").suits(replace(MANY, labelled=4), GPU, ()).take is False


def test_the_estimate_of_a_pair_is_that_of_both_halves() -> None:
    kind = pair_class("shape+flow")
    found = kind.estimate(kind.Config.model_validate(kind.tiny), MANY, "cpu")
    assert [line.partition(":")[0] for line in found.lines] == ["shape+flow, maskvae", "shape+flow, flow"]


def test_nothing_is_inferred_where_an_image_is_painted(sources: Sources, context: FitContext) -> None:
    guessed = blobs(4, 1, "u")
    quick = SegmenterConfig(channels=(8, 16), steps=2, batch_size=2)
    judge = train_segmenter(sources.labelled, quick, 0, labels=(1, 4), augmentation=None, device="cpu")
    both = replace(
        sources,
        consensus=replace(guessed, confidence=torch.full_like(guessed.foregrounds, 200, dtype=torch.uint8)),
        members=SegmenterEnsemble(quick, (judge,), 1),
    )
    moved, painted = (fitted(name, both, context) for name in ("deform+parent", "deform+flow"))
    inferred = [seed for seed in range(12) if moved.sample(seed).facts["labels"] == "inferred"]
    assert inferred
    for seed in range(12):
        anatomy = moved._labels.draw(seed)
        # The moved image is asked again; what is painted on stays.
        assert (seed in inferred) == (anatomy.parents[0].startswith("u-") and anatomy.inferred)
        assert np.array_equal(painted._painting.paint(anatomy, seed).labels, anatomy.labels)
        assert painted.sample(seed).facts["labels"] == "moved"


def test_real_labels_are_training_labels(sources: Sources, context: FitContext) -> None:
    made = fitted("real+flow", sources, context)
    assert sources.labelled.labels is not None
    for seed in range(6):
        scan = made.sample(seed)
        row = sources.labelled.ids.index(scan.parents[0])
        assert np.array_equal(scan.labels, sources.labelled.labels[row, 0].numpy())
        # The box of the parent's scan is taken over, not learnt.
        assert not scan.image[:, ~sources.labelled.foregrounds[row, 0].numpy()].any()
    assert len({made.sample(seed).parents for seed in range(24)}) > 3


def test_a_generator_of_an_earlier_form_is_refused(tmp_path: Path) -> None:
    Stored("deform", {"ways": np.zeros(3)}, {}).save(tmp_path / "deform")
    with pytest.raises(ArtifactError, match=r"deform: a deform generator of an earlier medgen.*train it again"):
        load_backend(tmp_path / "deform")


def test_a_pair_that_is_there_no_more_is_named(sources: Sources, context: FitContext, tmp_path: Path) -> None:
    made = fitted("real+flow", sources, context)
    made.save(tmp_path / "pair")
    Stored("pair", {}, {**made._stored.meta, "name": "real+water"}).save(tmp_path / "pair")
    with pytest.raises(ArtifactError, match=r"pair: .*found 'real\+water'"):
        load_backend(tmp_path / "pair")
    labels = made._labels.stored
    for parts in (None, {"../elsewhere": "0"}):
        Stored("labels real", labels.arrays, {**labels.meta, "parts": parts}).save(tmp_path / "labels")
        with pytest.raises(ArtifactError, match="does not name its networks"):
            made.source.load(tmp_path / "labels")
    Stored("pair", {}, {**made._stored.meta, "name": "deform+flow"}).save(tmp_path / "pair")
    with pytest.raises(ArtifactError, match="expected a record of 'labels deform', found one of 'labels real'"):
        load_backend(tmp_path / "pair")
