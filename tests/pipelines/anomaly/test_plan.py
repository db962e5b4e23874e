"""What a dry run says an anomaly run will take."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest

from medgen.config import load_config
from medgen.data.layouts.detect import load_cohort
from medgen.data.simulation import simulate
from medgen.errors import DataError
from medgen.pipelines.anomaly import trial as trials
from medgen.pipelines.anomaly.cohort import divide, split
from medgen.pipelines.anomaly.config import AnomalyRunConfig
from medgen.pipelines.anomaly.plan import in_all_words
from medgen.pipelines.anomaly.stages import pipeline
from medgen.pipelines.anomaly.trial import Trial, try_out
from medgen.runs.context import Results
from medgen.training.cost import Estimate

CONFIG = Path(__file__).parents[3] / "configs" / "tiny" / "anomaly.yaml"
SECONDS = Trial(template=2.0, prepare=3.0, calibrate=5.0, score=7.0, lean=1.0, page=11.0, spoil=13.0)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Configuration, cohort and how it is divided; more subjects than artefacts need."""
    folder = tmp_path_factory.mktemp("data") / "cohort"
    simulate(folder, n=24, seed=0, spacing=8.0)
    config = load_config(AnomalyRunConfig, CONFIG, [f"data={folder}", "detectability.per_cell=2"])
    manifest = load_cohort(folder)
    return config, manifest, divide(config, split(config, manifest))


def estimates(planned, trial):
    config, manifest, cohort = planned
    return pipeline().estimates(config, Results([manifest, cohort, trial]))


def test_every_part_of_a_run_is_timed_on_scans_of_the_cohort(planned):
    found = try_out(*planned)
    assert not found.failed
    # The recipe centres scans: no template is made.
    assert 0 <= found.template < found.prepare
    assert min(found.prepare, found.calibrate, found.score, found.lean, found.page, found.spoil) > 0
    assert found.lean < found.score + found.page


def test_estimates_count_what_the_run_does(planned):
    config, _, cohort = planned
    development, test = len(cohort.parts["development"]), len(cohort.parts["test"])
    copies, own = config.evaluation.per_scan, config.artefacts
    shown = 2 + len(config.evaluation.kinds)
    found = estimates(planned, SECONDS)
    assert found["prepare"].seconds == (development + test) * 3 + development * 2
    assert found["calibrate"].seconds == development * 5
    assert found["evaluate"].seconds == test * (1 + copies) * 7 + shown * 11
    assert found["detectability"].seconds == config.detectability.measurements(test) * 1
    # Voxels of 8 mm show no artefacts.
    assert found["artefacts"].seconds == 0
    assert "artefacts are not named" in found["artefacts"].lines[0]
    fine = replace(cohort, recipe=cohort.recipe.model_copy(update={"spacing": (2.0, 2.0, 2.0)}))
    finer = estimates((config, planned[1], fine), SECONDS)["artefacts"]
    assert finer.seconds == test * ((own.per_scan + 1 + copies) * 13 + min(own.scored, own.per_scan) * 7)


def test_lines_say_the_seconds_that_the_fields_hold(planned):
    lines = [line for item in estimates(planned, SECONDS).values() for line in item.lines]
    slower = [line for item in estimates(planned, replace(SECONDS, calibrate=600.0)).values() for line in item.lines]
    # Trainings are measured anew each time.
    tried = [pair for pair in zip(lines, slower, strict=True) if "trainings of" not in pair[0]]
    assert [own for own, other in tried if own != other] == [line for line in lines if line.startswith("calibrate:")]
    assert in_all_words([Estimate(30.0, 0.0, scans=4), Estimate(31.0, 0.0, scans=5)], SECONDS) == (
        "in all: about 61 s; 9 scans are scored"
    )


def test_what_cannot_be_tried_out_is_said_and_not_timed(planned, monkeypatch):
    def refuse(*_, **__):
        raise DataError("too flat")

    monkeypatch.setattr(trials, "prepare_dataset", refuse)
    failed = try_out(*planned)
    assert failed == Trial(failed="too flat")
    known = estimates(planned, failed)
    assert not re.search(
        r"scored, about|scans, about", "\n".join(line for item in known.values() for line in item.lines)
    )
    assert in_all_words(known.values(), failed).endswith("which could not be tried out: too flat")


def test_a_trial_hides_what_untrained_models_are_warned_of_and_no_more(planned, caplog):
    try_out(*planned)
    assert not caplog.records
    logging.getLogger("medgen").warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]
