"""The choice of generators in a run: resolved, explained, recorded, and refused where it cannot fit."""

from __future__ import annotations

import pytest

from medgen.config import parse_config
from medgen.errors import ConfigError, ResourceError
from medgen.pipelines.augment.choice import Plan, choose
from medgen.pipelines.augment.config import AugmentRunConfig
from medgen.pipelines.augment.stages import estimates
from medgen.synthesis.cohort.label_facts import LabelFacts
from medgen.synthesis.estimates import Outline
from medgen.synthesis.planning.router import Hardware

ORGAN = LabelFacts(1, 1.0, 1.0, 0.03, 0.15, 0.03, 12, 12, (10, 10, 10))
COHORT = Outline((16, 24, 16), 1, (1,), 12, 5, (ORGAN,))
SMALL = {
    "consensus": {"members": 2, "segmenter": {"channels": [8, 16], "steps": 4}},
    "filter": {"auditor": {"channels": [8, 16], "steps": 4}},
    "value": {"segmenter": {"channels": [8, 16], "steps": 4}, "seeds": 2},
}


def config(**changes: object) -> AugmentRunConfig:
    data = {"data": "cohort", "out": "runs/x", "device": "cpu", **SMALL, **changes}
    return parse_config(AugmentRunConfig, data, source="test")


def planned(settings: AugmentRunConfig, outline: Outline) -> Plan:
    return choose(settings, outline, estimates)


def test_generators_are_chosen_when_none_are_given() -> None:
    for given in ({}, {"generators": "auto"}, {"generators": {"auto": True, "deform": {"pairs": 7}}}):
        settings = config(**given)
        assert settings.generators.names == ()
        made = planned(settings, COHORT)
        assert made.routing.backends == ("deform",)
        assert made.config.generators.names == ("deform",)
        pairs = made.config.generators.deform.labels.pairs
        assert pairs == (7 if "deform" in str(given) else type(made.config.generators.deform)().labels.pairs)
        text = "\n".join(made.lines)
        # Two that label, and two that judge what they would label in each of three folds.
        for part in ("generators (chosen): deform", "12 labelled and 5 unlabelled", "consensus: 8 segmenters", "MiB"):
            assert part in text
        assert "value study: 6 segmenters" in text
        assert "in all: about" in text
        record = made.to_plain()
        assert record["automatic"] is True
        assert {"consensus", "deform", "filter", "sampling", "fidelity", "value"} == set(record["estimates"])


def test_named_generators_are_kept() -> None:
    made = planned(config(generators={"deform": {"pairs": 3}}), COHORT)
    assert made.routing.automatic is False
    assert "generators (configured): deform" in made.lines


def test_arms_need_the_generators_that_were_chosen() -> None:
    arms = {**SMALL["value"], "arms": ["real", "standard", "standard+joint"]}
    with pytest.raises(ConfigError, match=r"needs the generator 'joint'.*auto chose deform"):
        planned(config(value=arms), COHORT)


def test_what_cannot_fit_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Hardware(None, 1, 1 << 20, 1 << 20, 1 << 40)
    monkeypatch.setattr("medgen.pipelines.augment.choice.hardware", lambda device, out: tiny)
    with pytest.raises(ResourceError, match=r"deform: needs about .* GiB are free.*check_resources=false"):
        planned(config(consensus={"members": 0}), COHORT)
    assert planned(config(check_resources=False), COHORT).routing.backends == ("deform",)


def test_generators_are_trained_anew_for_a_study_only() -> None:
    for enabled in (True, False):
        study = {**SMALL["value"], "subjects": [5, 10], "enabled": enabled}
        text = "\n".join(planned(config(value=study), COHORT).lines)
        assert (", 2 times" in text) == enabled
