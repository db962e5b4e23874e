"""The audit: planted copies fire, strangers do not, a generator that memorises is caught, nothing leaves unaudited."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medgen.audit.leaks import find_leaks
from medgen.audit.replay import replay
from medgen.data.integrity import check
from medgen.errors import AuditError, ConfigError, DataError
from medgen.metrics.interval import Interval
from medgen.preprocessing.dataset import Dataset
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.synthesis.backend import FitContext
from medgen.synthesis.backends import backend_class
from medgen.synthesis.export.cohort import ExportRefused
from medgen.synthesis.filtering.copies import Gallery, calibrate
from medgen.synthesis.filtering.filter import Filter, FilterConfig
from medgen.synthesis.filtering.planted_copies import KINDS, plant
from medgen.synthesis.filtering.pool import CandidatePool
from medgen.synthesis.privacy.membership import nearer_to_training, neighbour_ratio, separation
from medgen.synthesis.privacy.memorisation import AuditConfig, audit_pool, stamp_of
from medgen.synthesis.privacy.results import INTERNAL, NOT_AUDITED, SHARE, Check
from medgen.synthesis.privacy.saved_filter import FilterState, load_filter, save_filter
from medgen.synthesis.sources import Sources
from tests.builders.exported_cohorts import Made, export, pool_of
from tests.builders.labelled_scans import blobs

CONFIG = FilterConfig(
    auditor=SegmenterConfig(channels=(8, 16), steps=2, batch_size=2, precision="32"), agreement_percentile=0, planted=2
)
AUDIT = AuditConfig(planted=3, bootstrap=100)


@pytest.fixture(scope="module")
def filters(sources: Sources) -> Filter:
    return Filter.fit(sources, CONFIG, seed=0, device="cpu")


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    return blobs(6, 5, "h")


@pytest.mark.parametrize("kind", KINDS)
def test_planted_copies_are_found(filters: Filter, sources: Sources, kind: str) -> None:
    images = filters.sources.images
    for row in range(4):
        likeness = filters.gallery.correlations(plant(images[row], kind, row))
        assert int(likeness.argmax()) == row
        assert float(likeness[row]) > filters.copy_bound
    assert torch.equal(plant(images[0], kind, 1), plant(images[0], kind, 1))


def test_strangers_are_not_copies(filters: Filter, held_out: Dataset) -> None:
    assert all(float(filters.gallery.correlations(image).max()) < filters.copy_bound for image in held_out.images)


def test_scans_of_one_subject_do_not_raise_the_bound(sources: Sources) -> None:
    images = sources.labelled.images
    twice = torch.cat([images, images + 0.01])
    ids = [f"c-{row}" for row in range(12)]
    one = Gallery(images, ids[:6], sources.labelled.subjects).between_subjects()
    both = Gallery(twice, ids, sources.labelled.subjects * 2).between_subjects()
    assert both == pytest.approx(one, abs=1e-3)


def test_bounds_follow_from_people_and_copies() -> None:
    people = {str(row): value for row, value in enumerate(np.tanh(np.linspace(0.4, 0.6, 20)))}
    many = calibrate(people, [0.99], 0.001, 0.2)
    assert many.promised
    assert np.tanh(0.6) <= many.copy < 0.8
    assert many.identity == pytest.approx(1 - 0.2 * (1 - many.copy))
    few = calibrate(dict(list(people.items())[::7]), [0.99], 0.001, 0.2)
    assert not few.promised
    assert "cannot be promised" in str(few)
    assert np.arctanh(few.copy) == pytest.approx((np.arctanh(few.highest) + np.arctanh(0.99)) / 2)
    assert np.isnan(calibrate({"a": 0.5, "b": 0.6}, [0.99], 0.001, 0.2).copy)


def test_separation_is_the_area_under_the_curve() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 30), rng.normal(0, 1, 40)
    found = separation(a, [str(k) for k in range(30)], b, [str(k) for k in range(40)], seed=0)
    assert found.estimate == pytest.approx(roc_auc_score([1] * 30 + [0] * 40, np.concatenate([a, b])))
    assert found.low < found.estimate < found.high
    # Two equal scans of one subject count as one.
    twice = separation(np.repeat(a, 2), np.repeat(np.arange(30), 2).astype(str), b, list(map(str, range(40))), seed=0)
    assert twice.estimate == pytest.approx(found.estimate)


def test_half_is_expected_of_strangers_whatever_the_numbers() -> None:
    rng = np.random.default_rng(1)
    found = nearer_to_training(rng.normal(size=(400, 60)), rng.normal(size=(400, 12)), seed=0)
    assert found.estimate == pytest.approx(0.5, abs=0.05)
    assert found.low < 0.5 < found.high
    assert nearer_to_training(np.ones((5, 9)), np.zeros((5, 4)), seed=0).estimate == 1
    assert neighbour_ratio(np.array([[4.0, 1.0, 2.0]])).tolist() == [0.5]


def test_a_generator_that_memorises_is_caught(
    filters: Filter, sources: Sources, held_out: Dataset, tmp_path: Path
) -> None:
    backend = Made(sources.labelled)
    pool = pool_of(backend, 6)
    audit = audit_pool(pool, [backend], filters, held_out, AUDIT, seed=0)
    assert audit.valid, audit.problems
    assert set(audit.flagged) == {candidate.id for candidate in pool.candidates}
    assert "memorised: r = 0.9" in audit.flagged["syn-0003"]
    assert "with case a-2" in audit.flagged["syn-0003"]
    assert audit.stamp("made") != SHARE
    cleaned = audit.clean(pool)
    assert not cleaned.accepted()
    assert "memorised" in cleaned.rejected()[0].filtered.reasons
    for candidates in (pool, cleaned):
        with pytest.raises(ExportRefused, match="every accepted scan counts as a copy"):
            export(candidates, tmp_path / "out", audit, backend, sources)
    assert not (tmp_path / "out").exists()
    # Copies that the filter took out already still count against the generator.
    rejected = CandidatePool(
        tuple(
            replace(item, filtered=replace(item.filtered, accepted=False, reasons={"copy": "r"}))
            for item in pool.candidates
        )
    )
    again = audit_pool(rejected, [backend], filters, held_out, AUDIT, seed=0).backends["made"]
    assert again.checks[0].suspicious
    assert again.stamp == NOT_AUDITED


def test_new_people_are_shared_and_nothing_leaves_unaudited(
    filters: Filter, sources: Sources, held_out: Dataset, tmp_path: Path
) -> None:
    backend = Made(blobs(8, 9, "new"))
    pool = pool_of(backend, 8)
    audit = audit_pool(pool, [backend], filters, held_out, AUDIT, seed=0)
    assert audit.valid, audit.problems
    assert not audit.flagged
    assert audit.stamp("made") == SHARE, audit.backends["made"].reason
    with pytest.raises(ExportRefused, match="no memorisation audit"):
        export(pool, tmp_path / "out", None, backend, sources)
    with pytest.raises(ExportRefused, match="was not audited"):
        export(pool_of(backend, 9), tmp_path / "out", audit, backend, sources)
    other = Made(blobs(8, 9, "new"))
    other.sha256 = "3" * 64  # type: ignore[misc]
    with pytest.raises(ExportRefused, match="another made generator"):
        export(pool, tmp_path / "out", audit, other, sources)
    with pytest.raises(AuditError, match="'subject-u-0' is both"):
        export(pool, tmp_path / "out", audit, backend, sources, held_out=["subject-u-0"])
    assert not (tmp_path / "out").exists()
    for layout in ("nnunet", "msd", "bids"):
        out = tmp_path / layout
        export(pool, out, audit, backend, sources, layout=layout)
        result = check(out)
        assert result.ok, result.faults
        assert result.manifest is not None
        assert len(result.manifest.labelled()) == 8
        described = next(path for path in (out / "dataset.json", out / "dataset_description.json") if path.is_file())
        assert f"SYNTHETIC labelled scans made by medgen (made); {SHARE}" in described.read_text()
        assert "share. made: share" in (out / "card.md").read_text()
    with pytest.raises(ConfigError, match="layout: expected one of"):
        export(pool, tmp_path / "x", audit, backend, sources, layout="dicom")
    # The same scans, learnt from a head with its face.
    faced = replace(filters, sources=replace(sources, faces=frozenset({"u-1"})))
    audit = audit_pool(pool, [backend], faced, held_out, AUDIT, seed=0)
    assert audit.stamp("made") == INTERNAL
    export(pool, tmp_path / "faced", audit, backend, faced.sources)
    assert "internal use only. made: internal use only (1 of the scans it learnt from may show a face" in (
        (tmp_path / "faced" / "card.md").read_text()
    )
    described = (tmp_path / "faced" / "dataset.json").read_text()
    assert f"made by medgen (made); {INTERNAL}" in described
    assert f"(made); {SHARE}" not in described


@pytest.mark.parametrize(
    ("derived", "flagged", "kept", "valid", "faces", "stamp"),
    [
        (False, 0, True, True, 0, SHARE),
        (False, 0, True, True, 1, INTERNAL),
        (False, 2, True, True, 1, INTERNAL),
        (True, 0, True, True, 1, INTERNAL),
        # A face makes nothing better than it was.
        (False, 0, True, False, 1, NOT_AUDITED),
        (False, 0, False, True, 1, NOT_AUDITED),
    ],
)
def test_who_learnt_from_faces_is_not_shared(derived, flagged, kept, valid, faces, stamp) -> None:
    number = Check("copies", Interval(0.0, 0.0, 0.1, 8), 0.05, False, "none")
    words = "its scans are patients' own" if derived else ""
    found, reason = stamp_of(words, [number], flagged, kept, valid, faces)
    assert found == stamp
    assert reason.startswith(words)
    assert ("may show a face" in reason) == (faces > 0 and stamp == INTERNAL)
    assert ("copies of patients" in reason) == (flagged > 0)


def test_failing_controls_make_the_audit_void(
    filters: Filter, sources: Sources, held_out: Dataset, tmp_path: Path
) -> None:
    backend = Made(blobs(8, 9, "new"))
    pool = pool_of(backend, 4)
    blind = replace(filters, copies=replace(filters.copies, copy=0.99999))
    eager = replace(filters, copies=replace(filters.copies, copy=-0.5))
    for judge, text in ((blind, "planted copies, noise"), (eager, "held-out real scans")):
        audit = audit_pool(pool, [backend], judge, held_out, AUDIT, seed=0)
        assert not audit.valid
        assert any(text in problem for problem in audit.problems)
        assert audit.stamp("made") == NOT_AUDITED
    audit = audit_pool(pool, [backend], blind, held_out, AUDIT, seed=0)
    with pytest.raises(ExportRefused, match=r"controls of the audit failed.*planted copies, noise"):
        export(pool, tmp_path / "out", audit, backend, sources)
    assert "no held-out scan" in audit_pool(pool, [backend], filters, None, AUDIT, seed=0).problems[0]
    with pytest.raises(DataError, match="both learnt from and held out"):
        audit_pool(pool, [backend], filters, sources.labelled, AUDIT, seed=0)


def test_filter_survives_saving(filters: Filter, held_out: Dataset, context: FitContext, tmp_path: Path) -> None:
    filters = replace(filters, sources=replace(filters.sources, faces=frozenset({"u-1", "a-0"})))
    state = FilterState(filters, held_out, context.preprocess, AUDIT, {1: "outer", 4: "inner"}, "blobs", "MR", "4" * 64)
    save_filter(state, tmp_path / "filter")
    again = load_filter(tmp_path / "filter", "cpu")
    assert again.filters.sources.faces == {"u-1", "a-0"}
    scan = Made(blobs(3, 9, "new")).sample(1)
    found, expected = again.filters.check(scan, derived=False), filters.check(scan, derived=False)
    assert (found.accepted, found.reasons.keys(), found.nearest) == (
        expected.accepted,
        expected.reasons.keys(),
        expected.nearest,
    )
    # Rebuilt networks lie otherwise in memory, and sums are added up in another order.
    assert dict(found.scores) == pytest.approx(dict(expected.scores), rel=1e-3)
    assert again.filters.copies == filters.copies
    assert again.held_out is not None
    assert again.held_out.labels is None
    assert again.audit == AUDIT
    with pytest.raises(Exception, match="no filter/ with the state"):
        load_filter(tmp_path / "elsewhere" / "filter")


@pytest.fixture(scope="module")
def exported(
    filters: Filter, sources: Sources, held_out: Dataset, context: FitContext, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("run")
    kind = backend_class("deform")
    settings = kind.Config.model_validate({"pairs": 6, "registration": {"spacing": 6, "iterations": 2, "window": 5}})
    backend = kind.fit(sources, settings, context)
    backend.save(run / "model" / "deform")
    pool = pool_of(backend, 2)
    audit = audit_pool(
        pool, [backend], replace(filters, copies=replace(filters.copies, identity=1)), held_out, AUDIT, seed=0
    )
    assert audit.stamp("deform") == INTERNAL
    export(pool, run / "synthetic", audit, backend, sources)
    return run / "synthetic"


def test_replay_reproduces_every_byte(exported: Path, tmp_path: Path) -> None:
    results = replay(exported, tmp_path / "all", device="cpu")
    assert [item.id for item in results] == ["syn-0001", "syn-0002"]
    assert all(item.identical for item in results), results
    image = exported / "imagesTr" / "syn-0002_0000.nii.gz"
    assert str(replay(image, tmp_path / "one", device="cpu")[0]) == "syn-0002: identical"
    assert (tmp_path / "one" / "imagesTr" / image.name).read_bytes() == image.read_bytes()


def test_replay_names_what_was_altered(exported: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(exported.parent, run)
    image = run / "synthetic" / "imagesTr" / "syn-0001_0000.nii.gz"
    image.write_bytes(image.read_bytes() + b"x")
    first, second = replay(run / "synthetic", tmp_path / "out", device="cpu")
    assert second.identical
    assert "imagesTr/syn-0001_0000.nii.gz was altered" in str(first)
    record = run / "synthetic" / "provenance" / "syn-0001.json"
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(AuditError, match="record itself was altered"):
        replay(record, tmp_path / "out")
    arrays = run / "model" / "deform" / "labels" / "arrays.safetensors"
    content = bytearray(arrays.read_bytes())
    content[-1] ^= 1
    arrays.write_bytes(bytes(content))
    with pytest.raises(Exception, match="altered"):
        replay(run / "synthetic" / "provenance" / "syn-0002.json", tmp_path / "out")
    shutil.rmtree(run / "model")
    with pytest.raises(Exception, match="--model"):
        replay(run / "synthetic" / "provenance" / "syn-0002.json", tmp_path / "out")


def test_leaks_are_named(exported: Path, tmp_path: Path) -> None:
    parents = {case for k in (1, 2) for case in _parents(exported, k)}
    splits = tmp_path / "splits.csv"
    splits.write_text("case,subject,part\nz-1,z,test\na-1,subject-a-1,labelled\nother-side,subject-u-2,test\n")
    leaks, count = find_leaks(exported, splits)
    assert count == 2
    assert [leak.case for leak in leaks] == ["other-side"]
    assert "its subject subject-u-2 was learnt from" in str(leaks[0])
    folds = tmp_path / "splits_final.json"
    parent = min(parents)
    folds.write_text(f'[{{"train": ["z-1"], "val": ["z-2"]}}, {{"train": [], "val": ["{parent}", "syn-0001"]}}]')
    leaks, count = find_leaks(exported, folds)
    assert count == 3
    assert [(leak.case, leak.part) for leak in leaks] == [(parent, "fold 1 val"), ("syn-0001", "fold 1 val")]
    assert "parent of syn-000" in str(leaks[0])
    clean = tmp_path / "cases.txt"
    clean.write_text("z-1\nz-2\n")
    assert find_leaks(exported, clean) == ([], 2)
    with pytest.raises(AuditError, match="cannot say whom"):
        find_leaks(tmp_path, clean)


def _parents(exported: Path, number: int) -> list[str]:
    import json

    record = json.loads((exported / "provenance" / f"syn-{number:04d}.json").read_text())
    assert record["stamp"] == INTERNAL
    return [item["case"] for item in record["parents"]]
