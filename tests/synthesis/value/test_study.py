"""The value study: arms, equal conditions, parts, resuming, processes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from medgen.config import parse_config
from medgen.errors import AuditError, ConfigError, DataError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.prepared import PreparedScan
from medgen.preprocessing.recipe import Preprocess
from medgen.runs.cases.map_cases import Spread
from medgen.runs.cases.resources import Resources
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.segmentation.start import segmenter_start
from medgen.synthesis.filtering.pool import SyntheticSet
from medgen.synthesis.value.cells import Cell, Study
from medgen.synthesis.value.config import ValueConfig
from medgen.synthesis.value.study import Material, TestSet, run_study
from medgen.training.config import InitConfig
from medgen.volume import Volume
from tests.builders.labelled_scans import SHAPE, blobs

SEGMENTER = SegmenterConfig(channels=(8, 16), steps=30, batch_size=2, lr=1e-2, precision="32")
CONFIG = ValueConfig(seeds=2, segmenter=SEGMENTER, bootstrap=200)


def held_out(seed: int, prefix: str) -> TestSet:
    recipe = Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0))
    data = blobs(3, seed, prefix)
    assert data.labels is not None
    grid = recipe.canonical()
    prepared = tuple(
        PreparedScan(image.numpy(), foreground[0].numpy(), grid, grid, ((0.0, 1.0),))
        for image, foreground in zip(data.images, data.foregrounds, strict=True)
    )
    with_grids = Dataset(data.ids, data.subjects, data.images, data.foregrounds, data.labels, prepared)
    return TestSet(with_grids, tuple(Volume(mask.numpy(), grid) for mask in data.labels), recipe)


@pytest.fixture(scope="module")
def test_set() -> TestSet:
    return held_out(5, "t")


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
    options = {"seed": 0, "device": "cpu", "store": tmp_path, "done": lambda name, _, span: names.append(name)}
    rows = run_study(config, [material], test_set, [1, 4], **options)
    arms = {row["arm"] for row in rows}
    assert arms == {"real", "standard", "standard+synthetic", "synthetic"}  # nothing of joint was accepted
    assert len(rows) == 4 * 2 * 3 * 2
    assert {row["part"] for row in rows} == {"test"}
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
    with pytest.raises(AuditError, match="in the training and in the test part"):
        run_study(CONFIG, [leaking], test_set, [1, 4], seed=0)
    lent = Material(3, blobs(3, 0, "a"), {}, blobs(3, 6, "v", labelled=False))
    with pytest.raises(AuditError, match="in the unlabelled and in the validation part"):
        run_study(CONFIG, [lent], test_set, [1, 4], validation=held_out(6, "v"), seed=0)
    with pytest.raises(AuditError, match="in the validation and in the test part"):
        run_study(CONFIG, [Material(3, blobs(3, 0, "a"), {})], test_set, [1, 4], validation=held_out(7, "t"), seed=0)


def test_config_checks_arms() -> None:
    assert parse_config(ValueConfig, {"subjects": 10}, source="test").subjects == (10,)
    for data, text in (
        ({"arms": ["real", "magic"]}, "unknown arm"),
        ({"arms": ["standard+deform"]}, "ordinary arm"),
        ({"arms": ["magic+deform", "real"]}, "unknown arm"),
        ({"arms": ["standard+", "real"]}, "names no backend"),
        ({"arms": ["real", "real"]}, "every arm once"),
    ):
        with pytest.raises(ConfigError, match=text):
            parse_config(ValueConfig, data, source="test")


def test_rows_do_not_depend_on_the_number_of_workers(test_set: TestSet, material: Material, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"arms": ("standard", "real+deform"), "seeds": 1})
    names: list[str] = []
    spans: list[tuple[int, int]] = []

    def done(name: str, _: object, span: tuple[int, int]) -> None:
        names.append(name)
        spans.append(span)

    options = {"validation": held_out(8, "v"), "seed": 3, "device": "cpu", "done": done}
    begun = time.time_ns() // 1_000_000
    alone = run_study(config, [material], test_set, [1, 4], **options)
    together = run_study(config, [material], test_set, [1, 4], workers=2, store=tmp_path, **options)
    for row in (*alone, *together):
        del row["seconds"]
    assert alone == together
    assert len(alone) == 2 * 2 * 3 * 2
    assert sorted(names[2:]) == sorted(names[:2])
    # When each was trained, wherever that was, and the same again where it was kept.
    assert all(begun <= first < last <= time.time_ns() // 1_000_000 for first, last in spans)
    made = dict(zip(names[2:], spans[2:], strict=True))
    run_study(config, [material], test_set, [1, 4], workers=2, store=tmp_path, **options)
    assert dict(zip(names[4:], spans[4:], strict=True)) == made
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_rows_do_not_depend_on_where_cells_are_trained(test_set: TestSet, material: Material, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"arms": ("standard", "real+deform"), "seeds": 1})
    options = {"seed": 3, "device": "cpu"}
    alone = run_study(config, [material], test_set, [1, 4], **options)
    jobs = Spread("slurm", 2, None, Resources(submit_to="local", minutes=5))
    elsewhere = run_study(config, [material], test_set, [1, 4], spread=jobs, store=tmp_path, **options)
    for row in (*alone, *elsewhere):
        del row["seconds"]
    assert alone == elsewhere
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kept_cell_counts_only_for_the_same_content(test_set: TestSet, material: Material, tmp_path: Path) -> None:
    model = build({"family": "segmenter", "channels": SEGMENTER.channels, "n_labels": 2, "shape": SHAPE}, seed=0)
    segmenter = TrainedModel([model], Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0))).save(tmp_path / "model")

    def key(own: Material, arm: str = "standard+deform", number: int = 0, **changes: object) -> str:
        config = CONFIG.model_copy(update=changes)
        return Study(config, own, test_set, None, (1, 4), 0, "cpu").fingerprint(Cell(arm, number))

    pool = material.pools["deform"]
    assert pool is not None
    moved = SyntheticSet(pool.images.flip(0), pool.labels)  # equal sums, other pairs
    others = [
        key(replace(material, pools={**material.pools, "deform": moved})),
        key(replace(material, real=blobs(4, 1, "a"))),
        key(replace(material, unlabelled=blobs(2, 1, "u", labelled=False))),
        key(material, number=1),
        key(material, "standard+synthetic"),
        key(material, p_synthetic=0.4),
        key(material, threads=2),
    ]
    start = segmenter_start(InitConfig(artifact=segmenter), SEGMENTER, material.real.images, (1, 4))
    for own in (start, replace(start, init=InitConfig(artifact=segmenter, frozen=("network.body.model.0.*",)))):
        others.append(Study(CONFIG, material, test_set, None, (1, 4), 0, "cpu", own).fingerprint(Cell("real", 0)))
    assert len({key(material), key(material, "real"), *others}) == 11
    assert key(material) == key(replace(material, pools={**material.pools, "": moved}), bootstrap=300)


def test_arms_that_need_unlabelled_scans_are_refused_without_any(
    test_set: TestSet, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medgen.synthesis.value.study.needs_unlabelled", lambda name: name == "real")
    with pytest.raises(DataError, match="'real' learns from unlabelled scans"):
        run_study(CONFIG, [material], test_set, [1, 4], seed=0)
