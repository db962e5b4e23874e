"""Which backends for which cohort, with which reasons; and what is refused before training."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from medgen.errors import ConfigError, ResourceError
from medgen.preprocessing.dataset import Dataset
from medgen.seeds import numpy_rng
from medgen.synthesis import backends
from medgen.synthesis.backends import available
from medgen.synthesis.cohort.label_facts import LabelFacts, label_facts
from medgen.synthesis.estimates import Estimate, Outline
from medgen.synthesis.filtering.filter import FilterConfig
from medgen.synthesis.planning.router import Hardware, check_fits, hardware, route
from medgen.synthesis.planning.stages import filter_estimate, sampling_estimate

GIB = 1 << 30
CPU = Hardware(None, 2, 16 * GIB, 16 * GIB, 100 * GIB)
GPU = Hardware("Some GPU", 16, 64 * GIB, 40 * GIB, 100 * GIB)
KNOWN = ("deform", "joint", "lesion", "spade")


def facts(label: int, focal: bool, parts: int = 40) -> LabelFacts:
    if focal:
        return LabelFacts(label, 0.8, 1.4, 0.02, 0.9, 0.15, 20, parts)
    return LabelFacts(label, 1.0, 1.0, 0.03, 0.15, 0.03, 20, parts)


def outline(labelled: int, unlabelled: int, *kinds: LabelFacts, shape=(40, 56, 40)) -> Outline:
    return Outline(shape, 1, tuple(item.label for item in kinds), labelled, unlabelled, kinds)


@pytest.mark.parametrize(
    ("cohort", "machine", "known", "expected"),
    [
        (outline(12, 0, facts(1, False)), CPU, KNOWN, ("deform",)),
        (outline(12, 20, facts(1, False)), CPU, KNOWN, ("deform",)),
        (outline(10, 80, facts(1, False), facts(2, False)), GPU, KNOWN, ("deform", "spade")),
        (outline(9, 80, facts(1, False)), CPU, KNOWN, ("deform",)),
        (outline(40, 0, facts(1, False)), CPU, KNOWN, ("deform",)),
        (outline(40, 0, facts(1, False)), GPU, ("deform", "joint", "lesion"), ("deform", "joint")),
        (outline(40, 0, facts(1, False), shape=(128, 128, 128)), GPU, KNOWN, ("deform", "spade")),
        (outline(30, 0, facts(1, True)), CPU, KNOWN, ("lesion",)),
        (outline(30, 0, facts(1, False), facts(2, True)), GPU, KNOWN, ("lesion", "deform", "spade")),
        (outline(4, 0, facts(1, True, parts=4)), CPU, KNOWN, ("deform",)),
    ],
)
def test_typical_cohorts(cohort: Outline, machine: Hardware, known: tuple[str, ...], expected: tuple[str, ...]) -> None:
    decision = route(cohort, machine, known)
    assert decision.backends == expected
    text = "\n".join(decision.reasons)
    assert f"{cohort.labelled} labelled and {cohort.unlabelled} unlabelled" in text
    assert ("no GPU" in text) == (machine.gpu is None)
    for name in expected:
        assert re.search(rf"^{name}: ", text, re.MULTILINE)
    for name in {"lesion", "spade"} & set(known) - set(expected):
        focal = any(item.focal for item in cohort.facts)
        assert (f"not {name}: " in text) == (focal if name == "lesion" else not focal or "deform" in expected)
    assert all("\n" not in reason for reason in decision.reasons)


def test_no_backend_is_an_error() -> None:
    with pytest.raises(ConfigError, match="found no backend"):
        route(outline(12, 0, facts(1, False)), CPU, ("lesion",))


OWN = """
from typing import ClassVar

from medgen.synthesis.backend import Backend, BackendConfig
from medgen.synthesis.suitability import Suitability


class Own(Backend):
    name: ClassVar[str] = "own"
    derived: ClassVar[bool] = False
    Config: ClassVar[type[BackendConfig]] = BackendConfig
    turn: ClassVar[int] = 15
    stands_in_for: ClassVar[str] = "{instead}"

    @classmethod
    def suits(cls, outline, machine, cared_for):
        if machine.gpu is None:
            return Suitability(False, "no GPU")
        return Suitability(True, f"it cares for every label but {{sorted(cared_for)}}", outline.labels)
"""


# What ships, and the backend of these tests: others may have been added.
KNOWN = ("deform", "joint", "lesion", "own", "spade")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a backend of one's own, in a folder of one's own."""
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    yield tmp_path / "own.py"
    sys.modules.pop(f"{backends.__name__}.own", None)
    vars(backends).pop("own", None)


def test_a_backend_in_a_file_of_its_own_is_chosen_by_what_it_says(own: Path) -> None:
    own.write_text(OWN.format(instead=""))
    assert "own" in available()
    cohort = outline(40, 0, facts(1, False), facts(2, True))
    decision = route(cohort, GPU, KNOWN)
    # Asked after lesion and before deform, which it leaves nothing.
    assert decision.backends == ("lesion", "own")
    assert "own: it cares for every label but [2]" in decision.reasons
    assert "not deform: other backends care for every label" in decision.reasons
    assert not any("spade" in reason for reason in decision.reasons)
    without = route(cohort, CPU, KNOWN)
    assert without.backends == ("lesion", "deform")
    assert "not own: no GPU" in without.reasons


def test_a_backend_that_stands_in_for_one_that_is_there_is_not_asked(own: Path) -> None:
    own.write_text(OWN.format(instead="deform"))
    cohort = outline(40, 0, facts(1, False))
    assert route(cohort, GPU, KNOWN).backends == ("deform", "spade")
    assert route(cohort, GPU, ("joint", "own", "spade")).backends == ("own",)


def test_a_backend_that_says_nothing_is_left_to_configurations(own: Path) -> None:
    own.write_text(OWN.format(instead="").replace("def suits", "def unasked"))
    decision = route(outline(40, 0, facts(1, False)), GPU, KNOWN)
    assert decision.backends == ("deform", "spade")
    assert not any("own" in reason for reason in decision.reasons)


def made(n: int, focal: bool) -> Dataset:
    """A ball in the middle of a box, or balls of other sizes at other places."""
    shape = (24, 24, 24)
    axes = torch.stack(torch.meshgrid(*[torch.arange(s, dtype=torch.float32) for s in shape], indexing="ij"))
    rng = numpy_rng(1, "balls")
    masks = []
    for _ in range(n):
        centre = torch.tensor(rng.uniform(5, 18, 3) if focal else rng.normal(12, 0.3, 3), dtype=torch.float32)
        radius = rng.uniform(1.5, 4.5) if focal else rng.normal(5, 0.1)
        masks.append((axes - centre[:, None, None, None]).norm(dim=0) < radius)
    labels = torch.stack(masks)[:, None].to(torch.uint8) * 3
    names = tuple(f"s{k}" for k in range(n))
    foreground = torch.zeros(n, 1, *shape, dtype=torch.bool)
    foreground[..., 1:23, 1:23, 1:23] = True
    return Dataset(names, names, torch.rand(n, 1, *shape), foreground, labels)


def test_kinds_of_label_are_told_apart() -> None:
    assert [item.focal for item in label_facts(made(12, focal=True), (3,))] == [True]
    assert [item.focal for item in label_facts(made(12, focal=False), (3,))] == [False]
    (found,) = label_facts(made(12, focal=False), (3,))
    assert found.presence == 1
    assert found.components == 1
    assert found.parts == 12
    assert found.share == pytest.approx(4 / 3 * 3.1416 * 5**3 / 22**3, rel=0.1)
    assert found.extent == pytest.approx((10, 10, 10), abs=1)
    assert "looks like an organ" in found.sentence
    (missing,) = label_facts(made(3, focal=False), (7,))
    assert missing.presence == 0
    assert missing.parts == 0


def test_this_machine(tmp_path) -> None:
    found = hardware("cpu", tmp_path / "runs" / "later")
    assert found.gpu is None
    assert found.cores >= 1
    assert found.memory > 0
    assert found.disk > 0
    assert "no GPU" in found.sentence


def test_what_does_not_fit_is_refused_with_numbers() -> None:
    cohort = outline(10, 0, facts(1, False))
    check_fits({"deform": Estimate(1, 2 * GIB)}, cohort, CPU, 50 * GIB)
    with pytest.raises(ResourceError, match=r"spade: needs about 20\.0 GiB of memory .*16\.0 GiB are free.*check_reso"):
        check_fits({"deform": Estimate(1, GIB), "spade": Estimate(1, 20 * GIB)}, cohort, CPU)
    with pytest.raises(ResourceError, match="on Some GPU"):
        check_fits({"spade": Estimate(1, 50 * GIB)}, cohort, GPU)
    with pytest.raises(ResourceError, match=r"writes about 200\.0 GiB"):
        check_fits({}, cohort, CPU, 200 * GIB)
    with pytest.raises(ResourceError, match="training scans need"):
        check_fits({}, outline(1000, 1000, facts(1, False), shape=(256, 256, 256)), GPU)


def test_filter_and_sampling_grow_with_the_cohort() -> None:
    config = FilterConfig.model_validate({"auditor": {"steps": 10, "channels": [8, 16]}})
    small = filter_estimate(config, outline(6, 0, facts(1, False), shape=(16, 16, 16)), "cpu")
    large = filter_estimate(config, outline(6, 90, facts(1, False), shape=(96, 96, 96)), "cpu")
    assert large.bytes > 100 * small.bytes
    assert large.sample_seconds > 10 * small.sample_seconds
    costs = {"deform": Estimate(1, 1, (), 2.0)}
    judge = Estimate(1, 1, (), 1.0)
    one = sampling_estimate(10, 4, costs, judge, outline(6, 0, facts(1, False)))
    assert one.seconds == pytest.approx(10 * 3 * 1.5)
    assert "at most 2 min" in one.lines[0]
