"""Facts hold their values in their sentences, and models say what theirs are."""

from __future__ import annotations

import pytest
import torch

from medgen.models.catalogue import build
from medgen.models.facts import Fact, Likelihood
from medgen.models.families.flow import FlowSampling
from medgen.preprocessing.dataset import Dataset


@pytest.mark.parametrize(
    ("name", "sentence", "message"),
    [("two words", "It is {value}.", "letters, digits"), ("share", "It is large.", r"expected \{value\}")],
)
def test_facts_without_name_or_value_are_refused(name: str, sentence: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fact(name, 1, "", sentence)


def test_the_kind_of_a_likelihood_is_in_its_sentence() -> None:
    exact, bound = (Likelihood(kind, "log p(x)").fact() for kind in ("exact", "bound"))
    assert exact.text == "Its likelihood is exact, in nats per voxel: log p(x)."
    assert bound.text == "Its likelihood is a bound, in nats per voxel: log p(x)."
    assert bound.record()["value"] == "bound"


def facts_of(model: object) -> dict[str, object]:
    return {fact.name: fact.value for fact in model.facts()}  # type: ignore[attr-defined]


def test_the_flow_says_how_many_components_the_scans_allowed() -> None:
    shape = (16, 16, 16)
    model = build({"family": "flow", "shape": shape, "widths": (16,), "style": 5, "n_labels": 2})
    model = model.sampled_by(FlowSampling(solver_steps=6))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((9, 1, *shape), generator=generator)
    labels = (images * 3).to(torch.uint8).clamp(max=2)
    names = tuple(map(str, range(9)))
    model.initialize(Dataset(names, names, images, images >= 0, labels))
    found = facts_of(model)
    assert found["style_components"] == 3
    assert found["passes"] == 11
    # White noise: what blocks of 4 voxels leave of a standard deviation of 0.29 is nearly all of it.
    assert found["detail"] == pytest.approx(12**-0.5, rel=0.05)


def test_a_discriminator_says_how_often_its_scans_were_augmented() -> None:
    settings = {"family": "vaegan", "shape": (8, 8, 8), "widths": [16], "latent": 4, "narrow": 2}
    assert "augmented" not in facts_of(build(settings))
    model = build({**settings, "ada_target": 0.6})
    model.adaptive.probability.fill_(0.25)
    assert facts_of(model)["augmented"] == 0.25
