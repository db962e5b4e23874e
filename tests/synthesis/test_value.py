"""The value study: arms, equal conditions, resuming, and verdicts on made-up results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medgen.config import parse_config
from medgen.dataset import Dataset
from medgen.errors import ConfigError, DataError
from medgen.prepared import Prepared
from medgen.preprocess import Preprocess
from medgen.segmentation import SegmenterConfig
from medgen.synthesis.sampling import SyntheticSet
from medgen.synthesis.value import METRICS, Material, Row, TestSet, ValueConfig, run_study
from medgen.synthesis.verdict import compare, summarise
from medgen.volume import Volume

from .conftest import SHAPE, blobs

SEGMENTER = SegmenterConfig(channels=(8, 16), steps=30, batch_size=2, lr=1e-2, precision="32")
CONFIG = ValueConfig(seeds=2, segmenter=SEGMENTER, bootstrap=200)


@pytest.fixture(scope="module")
def test_set() -> TestSet:
    recipe = Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0))
    data = blobs(3, 5, "t")
    assert data.labels is not None
    grid = recipe.canonical()
    prepared = tuple(
        Prepared(image.numpy(), foreground[0].numpy(), grid, grid, ((0.0, 1.0),))
        for image, foreground in zip(data.images, data.foregrounds, strict=True)
    )
    with_grids = Dataset(data.ids, data.subjects, data.images, data.foregrounds, data.labels, prepared)
    return TestSet(with_grids, tuple(Volume(mask.numpy(), grid) for mask in data.labels), recipe)


@pytest.fixture(scope="module")
def material() -> Material:
    extra = blobs(3, 9, "s")
    assert extra.labels is not None
    pool = SyntheticSet(extra.images, extra.labels)
    return Material(4, blobs(4, 0, "a"), {"": pool, "deform": pool, "joint": None})


def test_every_arm_gets_the_same_training(test_set: TestSet, material: Material, tmp_path: Path) -> None:
    names: list[str] = []
    config = CONFIG.model_copy(
        update={"arms": ("real", "standard", "standard+synthetic", "standard+joint", "synthetic")}
    )
    options = {"seed": 0, "device": "cpu", "store": tmp_path, "done": lambda name, _: names.append(name)}
    rows = run_study(config, [material], test_set, [1, 4], **options)
    arms = {row["arm"] for row in rows}
    assert arms == {"real", "standard", "standard+synthetic", "synthetic"}  # nothing of joint was accepted
    assert len(rows) == 4 * 2 * 3 * 2
    assert len(names) == 8
    assert all(0 <= row["dice"] <= 1 and row["hd95_mm"] >= 0 for row in rows)
    assert max(row["dice"] for row in rows) > 0.3
    # Finished cells are not run again, and other cells are.
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "real-n4-seed1.json").unlink()
    again = run_study(config, [material], test_set, [1, 4], **options)
    plain = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    assert plain == [{key: value for key, value in row.items() if key != "seconds"} for row in again]
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert [name for name in after if after[name] != before[name]] == ["real-n4-seed1.json"]


def test_shared_subjects_are_refused(test_set: TestSet) -> None:
    leaking = Material(3, blobs(3, 5, "t"), {})
    with pytest.raises(DataError, match="in training and in the test part"):
        run_study(CONFIG, [leaking], test_set, [1, 4], seed=0)


def test_config_checks_arms() -> None:
    assert parse_config(ValueConfig, {"subjects": 10}, source="test").subjects == (10,)
    for data, text in (
        ({"arms": ["real", "magic"]}, "unknown arm"),
        ({"arms": ["standard+deform"]}, "ordinary arm"),
        ({"arms": ["real", "real"]}, "every arm once"),
    ):
        with pytest.raises(ConfigError, match=text):
            parse_config(ValueConfig, data, source="test")


def made_up(gain: float, seeds: int = 3, subjects: int = 30) -> list[Row]:
    """Dice of three arms; synthetic differs from standard by ``gain`` plus noise."""
    rng = np.random.default_rng(0)
    base = 0.8 + 0.05 * rng.standard_normal(subjects)
    rows = []
    for arm, shift in (("real", -0.1), ("standard", 0.0), ("standard+synthetic", gain)):
        for seed in range(seeds):
            for subject in range(subjects):
                for label in (1, 2):
                    dice = base[subject] + shift + 0.002 * rng.standard_normal()
                    values = dict(zip(METRICS, (dice, 1.0, 0.9), strict=True))
                    row = {"arm": arm, "subjects": 10, "seed": seed, "case": f"c{subject}", "subject": f"s{subject}"}
                    rows.append({**row, "label": label, **values})
    return rows


@pytest.mark.parametrize(("gain", "expected"), [(0.02, "USE"), (-0.02, "HARMFUL"), (0.0, "NO EVIDENCE")])
def test_verdicts(gain: float, expected: str) -> None:
    (comparison,) = compare(made_up(gain), seed=0, bootstrap=500)
    assert comparison.word == expected
    assert comparison.ordinary == "standard"
    assert comparison.sentence.startswith(expected)
    assert comparison.difference.estimate == pytest.approx(gain, abs=0.002)


def test_summaries_cover_arms_labels_and_metrics() -> None:
    summaries = summarise(made_up(0.0), seed=0, bootstrap=200)
    assert len(summaries) == 3 * 3 * 3
    standard = next(s for s in summaries if (s.arm, s.metric, s.label) == ("standard", "dice", None))
    assert standard.interval.low < standard.interval.estimate < standard.interval.high
    assert standard.interval.n == 30


def test_holes_in_the_table_are_refused() -> None:
    rows = made_up(0.0)
    with pytest.raises(DataError, match="incomplete"):
        summarise([row for row in rows if not (row["seed"] == 1 and row["subject"] == "s3")], 0, 100)
