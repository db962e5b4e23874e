"""What makes the heatmap, and what single scores say of a place: change the field, and the sentence changes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from medgen.anomaly.channel_choice import CONFIGURED, INDEPENDENT, Candidate, Choice
from medgen.anomaly.findings.listing import Finding
from medgen.metrics.interval import Interval
from medgen.models.catalogue import build
from medgen.report.anomaly.heat.choice import choice_section
from medgen.report.anomaly.heat.single_scores import average_precision, maps_of, values_at
from medgen.report.anomaly.heat.sources import heat_sources, heat_words, idle_families
from medgen.report.anomaly.pictures import shown_contrast
from medgen.report.html import Report
from medgen.volume import Grid

VAE = build({"family": "vae", "shape": (8, 8, 8), "widths": (16,), "latent": 2, "codes": ((2, 2),)}, seed=0)
DAE = build({"family": "dae", "shape": (8, 8, 8), "widths": (16,)}, seed=0)


def detector(
    fused: tuple[str, ...] = ("selfsup", "descriptors", "nll"),
    beside: tuple[str, ...] = ("zscore",),
    models: tuple[Any, ...] = (VAE,),
    chosen: str = CONFIGURED,
    folds: int = 3,
    choice: Choice | None = None,
) -> Any:
    member = SimpleNamespace(normatives=dict.fromkeys((*beside, *fused)), models=models)
    config = SimpleNamespace(fusion=SimpleNamespace(channels=fused), corruptions=())
    return SimpleNamespace(members=(member,) * folds, config=config, chosen=chosen, choice=choice)


def test_every_score_comes_from_the_model_that_serves_it() -> None:
    sources = {source.score: source for source in heat_sources(detector(beside=("dae", "zscore"), models=(VAE, DAE)))}
    assert list(sources) == ["selfsup", "descriptors", "nll", "dae", "zscore"]
    assert (sources["nll"].origin, sources["dae"].origin) == ("vae", "dae")
    assert sources["selfsup"].origin == "no model, learnt from corrupted copies of healthy scans"
    assert sources["zscore"].origin == "no model, learnt from healthy scans"
    assert [round(source.weight, 2) for source in sources.values()] == [0.33, 0.33, 0.33, 0, 0]
    assert [source.baseline for source in sources.values()] == [False, False, False, False, True]
    assert idle_families(detector(models=(VAE, DAE))) == ("dae",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fused": ("texture", "nll")}, "made by 2 scores of equal weight:** texture (no model"),
        ({"fused": ("nll",)}, "made by one score:** nll (vae), averaged over 3 folds."),
        ({"folds": 5}, "nll (vae), each averaged over 5 folds."),
        ({"fused": ("texture",)}, "**The trained model vae carries no weight in it:** none of its scores"),
        ({"models": (VAE, DAE)}, "**The trained model dae carries no weight in it:**"),
        ({"chosen": ""}, "others were not compared"),
        ({"chosen": INDEPENDENT}, "less the self-supervised score"),
        ({"chosen": "texture"}, "chosen instead of the configured fusion"),
    ],
)
def test_the_sentence_says_what_the_detector_holds(change: dict[str, Any], words: str) -> None:
    before = heat_words(detector())
    assert "made by 3 scores of equal weight:** selfsup (no model, learnt from corrupted copies" in before
    assert "descriptors" in before
    assert "nothing else was clearly better" in before
    assert words not in before
    assert words in heat_words(detector(**change))


def candidate(name: str, *channels: str, baseline: bool = False) -> Candidate:
    ap = Interval(0.2, 0.1, 0.3, 10)
    return Candidate(name, channels, baseline, ap, Interval(0.0, -0.1, 0.1, 10), 1.0, {"twist": 0.2})


def test_the_table_has_the_model_and_the_part_of_every_score() -> None:
    fused = ("selfsup", "nll")
    rows = (candidate(CONFIGURED, *fused), candidate("nll", "nll"), candidate("zscore", "zscore", baseline=True))
    choice = Choice(CONFIGURED, rows, ("twist",), 20, 10, 0.01)
    report = Report("one")
    choice_section(report, detector(fused=fused, choice=choice), ["twist"])
    text = report.html()
    for cells in (
        ("configured fusion (chosen)", "vae", "heatmap"),
        ("nll", "vae", "heatmap, weight 0.5"),
        ("zscore", "no model, learnt from healthy scans", "baseline"),
    ):
        at = [text.index(f">{cell}<", text.index(f">{cells[0]}<")) for cell in cells]
        assert at == sorted(at)
        assert at[-1] - at[0] < 300
    # Without a comparison the scores are listed all the same.
    report = Report("two")
    choice_section(report, detector(fused=fused, chosen=""), [])
    assert "others were not compared" in report.html()
    assert ">heatmap, weight 0.5<" in report.html()


def result(contrasts: tuple[str, ...] = ("contrast 1",), **places: Any) -> Any:
    grid = Grid((6, 5, 4), np.diag([2.0, 2.0, 2.0, 1.0]))
    region = np.ones(grid.shape, dtype=bool)
    region[0] = False
    z = {name: np.zeros(grid.shape, np.float32) for name in ("zscore", "nll", "selfsup")}
    z["zscore"][3, 2, 1], z["nll"][3, 2, 1], z["selfsup"][3, 2, 1] = 1.0, 2.5, 4.0
    measured = SimpleNamespace(z=z, region=region, surprise={"selfsup": z["selfsup"], "nll": z["nll"]})
    prepared = SimpleNamespace(grid=grid)
    found = {"findings": [], "unlisted": [], **places}
    return SimpleNamespace(measured=measured, prepared=prepared, contrasts=contrasts, **found)


def test_values_and_maps_are_those_of_the_place() -> None:
    own = result()
    assert list(values_at(own, np.array([6.4, 3.7, 2.3])).items()) == [("selfsup", 4.0), ("nll", 2.5), ("zscore", 1.0)]
    # A point beyond the model grid is at its border.
    assert set(values_at(own, np.array([99.0, 99.0, -99.0])).values()) == {0.0}
    maps = maps_of(own)
    assert list(maps) == ["selfsup", "nll", "zscore"]
    # A control is shown only where the heatmap is made of it.
    own.measured.z["random"] = own.measured.z["nll"]
    assert list(maps_of(own)) == ["selfsup", "nll", "zscore"]
    own.measured.surprise["random"] = own.measured.z["nll"]
    assert "random" in maps_of(own)
    assert maps["nll"].data[0, 3, 2, 1] == 2.5
    assert np.isnan(maps["nll"].data[0, 0]).all()
    assert np.isfinite(maps["nll"].data[0, 1:]).all()


def test_the_average_precision_of_a_scan_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(4000) < 0.05
    values = (rng.normal(size=4000) + 1.5 * truth).astype(np.float32)
    assert average_precision(values, truth) == pytest.approx(average_precision_score(truth, values), rel=0.01)
    assert average_precision(values, np.zeros(4000, dtype=bool)) is None


def test_pictures_show_the_contrast_of_the_strongest_place() -> None:
    place = Finding(1, 1, 1, 5, 4, 0.1, 0.1, False, (0, 0, 0), (0, 0, 0))
    seen = replace(place, brightness=(-1.2, 3.0), detail=(0.0, 0.0))
    names = ("T1", "FLAIR")
    assert shown_contrast(result(names, findings=[seen, place])) == 1
    assert shown_contrast(result(names, unlisted=[seen])) == 1
    assert shown_contrast(result(names, findings=[replace(seen, brightness=(0.1, 0.2))])) is None
    assert shown_contrast(result(names)) is None
    assert shown_contrast(result()) == 0
