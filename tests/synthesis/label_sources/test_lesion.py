"""Labels with added lesions: where lesions go, what they look like, and that the host stays the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from medgen.config import parse_config
from medgen.errors import ConfigError, DataError
from medgen.pipelines.augment.config import AugmentRunConfig
from medgen.preprocessing.recipe import Preprocess
from medgen.synthesis.backend import FitContext
from medgen.synthesis.filtering.filter import Filter, FilterConfig
from medgen.synthesis.label_sources.lesion import LesionConfig
from medgen.synthesis.lesions.focal import FocalConfig, focal_lesions
from medgen.synthesis.lesions.hosts import Hosts, choose_hosts
from medgen.synthesis.pair import Pair, pair_class
from medgen.synthesis.sources import Sources
from tests.builders.focal_scans import FOCAL_SHAPE, focal_scans

QUICK = {"steps": 2, "batch_size": 2, "log_every": 1}
SETTINGS = {
    "lesion_labels": [2],
    "context": 3,
    "margin": 1,
    "inpaint": {"widths": (16,), "discriminator_widths": (16,)},
    "inpaint_training": QUICK,
}


@pytest.fixture(scope="module")
def cohort() -> Sources:
    return Sources(focal_scans(6, "a"), replace(focal_scans(3, "u"), labels=None), (1, 2))


@pytest.fixture(scope="module")
def context() -> FitContext:
    return FitContext(preprocess=Preprocess(shape=FOCAL_SHAPE, spacing=(2.0, 2.0, 2.0)), seed=0, device="cpu")


def fitted(name: str, sources: Sources, context: FitContext, settings: Mapping[str, object]) -> Pair:
    kind = pair_class(name)
    return kind.fit(sources, kind.Config.model_validate(settings), context)


@pytest.fixture(scope="module")
def backend(cohort: Sources, context: FitContext) -> Pair:
    return fitted("lesion", cohort, context, SETTINGS)


def test_samples_are_hosts_but_for_new_lesions_where_lesions_occur(backend: Pair, cohort: Sources) -> None:
    for seed in range(6):
        scan = backend.sample(seed)
        assert scan.region is not None
        row = cohort.labelled.ids.index(scan.parents[0])
        assert cohort.labelled.labels is not None
        host, truth = cohort.labelled.images[row].numpy(), cohort.labelled.labels[row, 0].numpy()
        assert np.array_equal(scan.image[:, ~scan.region], host[:, ~scan.region])
        assert np.array_equal(scan.labels[~scan.region], truth[~scan.region])
        new = (scan.labels == 2) & (truth != 2)
        assert new.sum() == sum(scan.facts["lesion_voxels"])
        assert scan.facts["changed_voxels"] == scan.region.sum()
        # Not on the old one, in the organ, on the left side.
        assert (scan.labels[truth == 2] == 2).all()
        assert (truth[new] == 1).all()
        assert np.argwhere(new).mean(axis=0)[0] < 20
        # Darker than what was there, as real lesions are.
        assert scan.image[0][new].mean() < host[0][new].mean() - 0.2


def test_several_channels_and_unlabelled_hosts(context: FitContext) -> None:
    data = focal_scans(4, "m", channels=2)
    assert data.labels is not None
    focal = replace(data, labels=torch.where(data.labels == 2, 2, 0).to(torch.uint8))
    sources = Sources(focal, replace(focal_scans(2, "v", channels=2), labels=None), (2,))
    backend = fitted("lesion", sources, context, {**SETTINGS, "unlabelled_hosts": "healthy"})
    made = [backend.sample(seed) for seed in range(8)]
    assert made[0].image.shape == (2, *FOCAL_SHAPE)
    assert {scan.parents[0] for scan in made} & {"v-0", "v-1"}


def hosts(sources: Sources, which: Hosts) -> tuple[tuple[str, ...], tuple[int, ...]]:
    found, counts = choose_hosts(sources, focal_lesions(sources, FocalConfig(lesion_labels=(2,))), which, 0.9, 4)
    return found.ids, counts


def test_hosts_follow_the_labels(cohort: Sources) -> None:
    own = cohort.labelled.ids
    assert hosts(cohort, "consensus") == (own, (1,) * 6)
    with pytest.raises(DataError, match="label 1 is no lesion label"):
        hosts(cohort, "healthy")
    with pytest.raises(DataError, match="label 7 is not in use"):
        focal_lesions(cohort, FocalConfig(lesion_labels=(7,)))
    with pytest.raises(DataError, match="no lesion of at least"):
        focal_lesions(cohort, LesionConfig(lesion_labels=(2,), smallest=5000))
    guessed = focal_scans(3, "u")
    sure = torch.full_like(guessed.foregrounds, 250, dtype=torch.uint8)
    sure[1] = 100
    helped = replace(cohort, consensus=replace(guessed, confidence=sure))
    assert hosts(helped, "consensus") == ((*own, "u-0", "u-2"), (1,) * 8)
    assert hosts(helped, "none")[0] == own


def test_filter_judges_what_was_drawn(backend: Pair, cohort: Sources) -> None:
    config = FilterConfig.model_validate(
        {"auditor": {"steps": 2, "channels": [8, 16]}, "agreement_percentile": 0, "planted": 2}
    )
    judge = Filter.fit(cohort, config, seed=0, device="cpu")
    scan = backend.sample(0)
    verdict = judge.check(scan, derived=True)
    assert "identity" not in verdict.scores
    assert "volume_1" not in verdict.scores
    assert verdict.scores["volume_2"] == sum(scan.facts["lesion_voxels"])
    assert verdict.scores["visible"] > 0.2
    row = cohort.labelled.ids.index(scan.parents[0])
    invisible = replace(scan, image=cohort.labelled.images[row].numpy())
    assert "visible" in judge.check(invisible, derived=True).reasons


def test_another_painter_makes_the_whole_image_anew(backend: Pair, cohort: Sources, context: FitContext) -> None:
    labels = {"lesion_labels": [2], "context": 3, "margin": 1}
    model = {"widths": (16, 32), "style": 2}
    painted = fitted(
        "lesion+flow",
        cohort,
        context,
        {"labels": labels, "painter": {"model": model, "training": QUICK, "solver_steps": 2}},
    )
    seed = painted.painter.labels_seed(3)
    scan, drawn = painted.sample(3), backend.sample(seed)
    # The same host with the same lesions as under the source's own painter, in an image that is nobody's.
    assert np.array_equal(scan.labels, drawn.labels)
    assert scan.parents == drawn.parents
    assert (scan.region, scan.made) == (None, ())
    row = cohort.labelled.ids.index(scan.parents[0])
    inside = cohort.labelled.foregrounds[row].numpy()
    assert np.isclose(scan.image, cohort.labelled.images[row].numpy())[inside].mean() < 0.1
    assert not scan.image[~inside].any()
    assert "anatomies under new appearances" in painted.derivation
    assert "transformed patient scans" in backend.derivation


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"lesion+parent": {}},
            "'parent' needs an image that comes with the labels and shows them, as from deform",
        ),
        ({"deform+inpaint": {}}, "'inpaint' needs a scan that something was added to, as from lesion"),
        ({"lesion": {"inpaint": {"margin": 1}}}, "write it beside inpaint"),
        (
            {"lesion+inpaint": {"labels": {"lesion_labels": [2]}, "painter": {"lesion_labels": [3]}}},
            "lesion_labels is one setting of both halves",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_config(AugmentRunConfig, {"data": "cohort", "generators": given}, source="x")
    assert "\n" not in str(raised.value)


def test_both_halves_look_for_the_same_lesions() -> None:
    whole = pair_class("lesion").Config.model_validate({"lesion_labels": [2], "margin": 1, "most": 2, "contrast": 0.5})
    halves = {"labels": {"lesion_labels": [2], "margin": 1, "most": 2}, "painter": {"contrast": 0.5}}
    assert whole == pair_class("lesion").Config.model_validate(halves)
    full = pair_class("lesion+inpaint").Config
    assert full.model_validate(halves).painter == whole.painter
    assert full.model_validate(whole.model_dump()).model_dump() == whole.model_dump()
    # One that the painter was given holds for the labels, too.
    assert full.model_validate({"painter": {"smallest": 7}}).labels.smallest == 7
