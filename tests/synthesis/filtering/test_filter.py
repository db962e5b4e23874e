"""The filter: bounds come from real scans, everything wrong is refused with its reason, planted copies are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medgen.errors import AuditError, DataError
from medgen.segmentation.segmenter import SegmenterConfig
from medgen.synthesis.backend import Backend, Synthetic
from medgen.synthesis.filtering import copies
from medgen.synthesis.filtering.checks import check_name
from medgen.synthesis.filtering.copies import Gallery, calibrate
from medgen.synthesis.filtering.filter import Filter, FilterConfig
from medgen.synthesis.filtering.label_bounds import Neighbours, pairs_within
from medgen.synthesis.filtering.pool import sample_pool
from medgen.synthesis.sources import Sources
from tests.builders.labelled_scans import SHAPE, blobs

CONFIG = FilterConfig(auditor=SegmenterConfig(channels=(8, 16), steps=60, batch_size=2, lr=1e-2, precision="32"))


@pytest.fixture(scope="module")
def filters(sources: Sources) -> Filter:
    return Filter.fit(sources, CONFIG, seed=0, device="cpu")


def scan(row: int = 0, **changes: object) -> Synthetic:
    """A scan of a subject that the filter has not seen."""
    data = blobs(3, 7, "new")
    assert data.labels is not None
    values: dict[str, object] = {
        "image": data.images[row].numpy(),
        "labels": data.labels[row, 0].numpy(),
        "backend": "test",
        "seed": row,
        **changes,
    }
    return Synthetic(**values)  # type: ignore[arg-type]


def test_good_scans_pass(filters: Filter) -> None:
    verdicts = [filters.check(scan(row), derived=False) for row in range(3)]
    assert sum(verdict.accepted for verdict in verdicts) >= 2
    assert {"agreement", "volume_1", "component_4", "centroid_4", "copy"} <= set(verdicts[0].scores)


def test_a_label_that_some_real_scans_lack_may_be_absent(filters: Filter, sources: Sources) -> None:
    assert sources.labelled.labels is not None
    labels = sources.labelled.labels.clone()
    labels[2][labels[2] == 4] = 1
    partly = replace(sources, labelled=replace(sources.labelled, labels=labels))
    without = scan(labels=np.minimum(scan().labels, 1))
    quick = CONFIG.model_copy(update={"auditor": CONFIG.auditor.model_copy(update={"steps": 2})})
    assert "volume_4" not in Filter.fit(partly, quick, seed=0, device="cpu").check(without, derived=False).reasons
    assert "volume_4" in filters.check(without, derived=False).reasons


def test_reference_is_out_of_fold(filters: Filter, sources: Sources) -> None:
    (_, first), (_, second) = filters.auditors
    assert not first & second
    assert first | second == set(sources.labelled.subjects)
    assert set(filters.agreement) == set(sources.labelled.ids)
    assert filters.agreement_bound == pytest.approx(np.percentile(list(filters.agreement.values()), 5))


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"labels": np.zeros(SHAPE, np.uint8)}, "volume_1"),
        ({"labels": np.full(SHAPE, 4, np.uint8)}, "volume_4"),
        ({"labels": np.full(SHAPE, 3, np.uint8)}, "usable"),
        ({"image": np.full((1, *SHAPE), np.nan, np.float32)}, "usable"),
        ({"image": np.ones((1, *SHAPE), np.float32)}, "usable"),
        ({"image": np.ones((1, 4, 4, 4), np.float32)}, "usable"),
    ],
)
def test_bad_scans_are_refused_with_the_reason(filters: Filter, changes: dict[str, object], check: str) -> None:
    verdict = filters.check(scan(**changes), derived=False)
    assert not verdict.accepted
    assert check in verdict.reasons


def test_labels_that_do_not_fit_the_image_are_refused(filters: Filter) -> None:
    good = scan()
    verdict = filters.check(scan(labels=np.roll(good.labels, 5, axis=1)), derived=False)
    assert not verdict.accepted
    assert "agreement" in verdict.reasons


def test_fragments_are_refused(filters: Filter) -> None:
    labels = scan().labels.copy()
    labels[labels == 4] = 1
    labels[1:4, 1:4, 1:4] = labels[-4:-1, -4:-1, -4:-1] = labels[1:4, -4:-1, 1:4] = 4
    assert "component_4" in filters.check(scan(labels=labels), derived=False).reasons


def test_copies_are_found(filters: Filter, sources: Sources) -> None:
    data = sources.labelled
    assert data.labels is not None
    noise = 0.02 * np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)
    exact = data.images[2].numpy()
    for image in (exact, exact + noise, np.roll(exact, 2, axis=2), 0.5 * exact + 0.1):
        verdict = filters.check(scan(image=image, labels=data.labels[2, 0].numpy()), derived=False)
        assert "copy" in verdict.reasons
        assert verdict.nearest == "a-2"
    parent = filters.check(scan(image=exact, labels=data.labels[2, 0].numpy(), parents=("a-2",)), derived=True)
    assert "identity" in parent.reasons


def test_nan_never_passes(sources: Sources, filters: Filter) -> None:
    one_subject = Gallery(sources.labelled.images, sources.labelled.ids, ["same"] * 6)
    assert one_subject.between_subjects() == {}
    bounds = calibrate({}, [0.9], 0.001, 0.2)
    assert np.isnan(bounds.copy)
    assert "copy" in replace(filters, copies=bounds).check(scan(), derived=False).reasons
    # A parent whose subject both auditors know cannot be judged.
    everybody = frozenset(sources.labelled.subjects)
    blind = replace(filters, auditors=tuple((auditor, everybody) for auditor, _ in filters.auditors))
    assert "agreement" in blind.check(scan(parents=("a-0",)), derived=True).reasons


def test_strangers_as_parents_stop_everything(filters: Filter) -> None:
    with pytest.raises(AuditError, match="'elsewhere'"):
        filters.check(scan(parents=("elsewhere",)), derived=True)


def test_one_subject_is_not_enough(sources: Sources) -> None:
    alone = Sources(sources.labelled.subset(["a-0"]), None, (1, 4))
    with pytest.raises(DataError, match="two labelled training subjects"):
        Filter.fit(alone, CONFIG, seed=0)


def test_gallery_agrees_with_numpy(sources: Sources) -> None:
    images = sources.labelled.images
    gallery = Gallery(images, sources.labelled.ids, sources.labelled.subjects)
    values = images[:, 0].half().float().numpy()
    sharp = values - gaussian_filter(values, (0, 1.5, 1.5, 1.5), mode="nearest")
    # 16 x 20 x 12 voxels: a margin of 2, blocks of 6 x 8 x 8.
    blocks = [sharp[:, i : i + 6, j : j + 8, 2:10].reshape(6, -1) for i in (2, 8) for j in (2, 10)]
    weights = np.array([np.std(block, axis=1) for block in blocks])
    direct = (np.array([np.corrcoef(block)[0] for block in blocks]) * weights).sum(0) / weights.sum(0)
    found = gallery.correlations(images[0]).numpy()
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert (found >= direct - 1e-5).all()  # shifts and mirror images can only raise it
    unmoved = Gallery(images, sources.labelled.ids, sources.labelled.subjects)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "_FLIPS", ((),))
        patch.setattr(copies._Lattice, "offsets", lambda _: [(0, 0, 0)])
        assert unmoved.correlations(images[0]).numpy() == pytest.approx(direct, abs=1e-4)


class _Broken(Backend):
    name = "broken"
    derived = False
    sha256 = "0" * 64
    history = ()

    def sample(self, seed: int) -> Synthetic:
        if seed % 2:
            raise DataError("no such scan")
        return scan(seed % 3, seed=seed)

    @classmethod
    def fit(cls, sources: Sources, config: object, context: object) -> Backend:
        raise NotImplementedError

    @classmethod
    def recognises(cls, folder: object) -> bool:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: object, device: str = "auto") -> Backend:
        raise NotImplementedError

    def save(self, folder: object) -> None:
        raise NotImplementedError


def test_sampling_stops_when_attempts_are_used_up(filters: Filter) -> None:
    ticks: list[tuple[int, int]] = []
    pool = sample_pool([_Broken()], {"broken": 4}, filters, seed=0, attempts=2, tick=lambda a, b: ticks.append((a, b)))
    assert len(pool.candidates) <= 8
    assert len(pool.accepted()) + len(pool.rejected()) == len(pool.candidates)
    assert [candidate.id for candidate in pool.accepted()] == [f"syn-{n + 1:04d}" for n in range(len(pool.accepted()))]
    failed = [c for c in pool.rejected("broken") if c.synthetic is None]
    assert failed
    assert all("no such scan" in c.filtered.reasons["usable"] for c in failed)
    assert ticks[-1][1] == 4
    nothing = sample_pool([_Broken()], {"broken": 0}, filters, seed=0)
    assert nothing.training_set() is None


def test_brightness_that_no_real_scan_has_is_refused(filters: Filter) -> None:
    good = scan()
    assert filters.check(good, derived=False).scores["intensity_4"] < filters.bounds[4].deviation
    image = good.image.copy()
    image[:, good.labels == 4] += 3 * image.std()
    reasons = filters.check(scan(image=image), derived=False).reasons
    assert "intensity_4" in reasons
    assert "intensity_1" not in reasons


def test_every_real_scan_is_within_its_own_bounds(filters: Filter, sources: Sources) -> None:
    data = sources.labelled
    assert data.labels is not None
    for row in range(len(data)):
        mask = data.labels[row, 0].numpy() == 4
        assert filters.bounds[4].unlike(data.images[row].numpy(), mask) <= filters.bounds[4].deviation


def test_brightness_agrees_with_numpy(filters: Filter, sources: Sources) -> None:
    data = sources.labelled
    assert data.labels is not None
    values = [
        np.percentile(image[label == 1], (10, 50, 90)) for image, label in zip(data.images, data.labels, strict=True)
    ]
    np.testing.assert_allclose(filters.bounds[1].brightness[0], np.mean(values, axis=0), rtol=1e-6)


def test_neighbours_are_those_of_an_exhaustive_search() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((7, 6, 5)) < 0.12) * rng.integers(1, 5, (7, 6, 5))
    places = {label: np.argwhere(labels == label) for label in (1, 2, 3, 4)}
    for reach in (1, 2):
        expected = {
            (a, b)
            for a in places
            for b in places
            if a < b and np.abs(places[a][:, None] - places[b][None]).max(axis=2).min() <= reach
        }
        assert pairs_within(labels, reach) == expected


def test_labels_that_touch_strangers_or_lose_their_neighbour_are_refused(sources: Sources) -> None:
    def masks(*rows: tuple[int, int]) -> Sources:
        """Slab 1 in planes 0 to 3, slab 2 and slab 3 from the given planes on, two planes thick."""
        labels = np.zeros((len(rows), 1, *SHAPE), np.uint8)
        labels[:, :, :4] = 1
        for row, (second, third) in enumerate(rows):
            labels[row, 0, second : second + 2] = 2
            labels[row, 0, third : third + 2] = 3
        data = sources.labelled
        return replace(
            sources,
            labels=(1, 2, 3),
            labelled=replace(data.subset(data.ids[: len(rows)]), labels=torch.from_numpy(labels)),
        )

    neighbours = Neighbours.fit(masks((4, 9), (4, 10), (5, 9)).labelled, (1, 2, 3))
    assert neighbours == Neighbours(frozenset(), frozenset({(1, 3), (2, 3)}))
    always = Neighbours.fit(masks((4, 9), (4, 10)).labelled, (1, 2, 3))
    assert always.always == {(1, 2)}

    def wrong(second: int, third: int) -> list[tuple[int, int]]:
        made = masks((second, third)).labelled.labels
        assert made is not None
        return always.wrong(made[0, 0].numpy())

    assert wrong(4, 9) == wrong(5, 9) == wrong(4, 7) == []
    assert wrong(7, 11) == [(1, 2)]
    assert wrong(4, 6) == [(2, 3)]


def test_labels_are_compared_with_human_ones_where_auditors_share_the_bias(filters: Filter, sources: Sources) -> None:
    assert sources.labelled.labels is not None
    ratios: dict[int, list[float]] = {1: [], 4: []}
    for row, subject in enumerate(sources.labelled.subjects):
        (judge,) = [item for item, trained_on in filters.auditors if subject not in trained_on]
        seen = judge.predict(sources.labelled.images[row : row + 1])[0, 0].numpy()
        human = sources.labelled.labels[row, 0].numpy()
        for label, values in ratios.items():
            values.append(float(np.log(((human == label).sum() + 1) / ((seen == label).sum() + 1))))
    for label, (low, high) in filters.seen.items():
        assert low <= min(ratios[label])
        assert max(ratios[label]) <= high
        reach = 3 * np.sqrt(1 + 1 / 6) * max(float(np.std(ratios[label], ddof=1)), 0.1)
        assert low == pytest.approx(min(np.mean(ratios[label]) - reach, *ratios[label]))
    made = scan()
    seen = np.stack([judge.predict(torch.from_numpy(made.image)[None])[0, 0].numpy() for judge, _ in filters.auditors])
    agreed = replace(made, labels=seen[0])
    assert "bias_1" not in filters.check(agreed, derived=False).reasons
    # Auditors that see half of what people draw: labels that are as they see them are not as people draw them.
    half = {label: (low + np.log(2), high + np.log(2)) for label, (low, high) in filters.seen.items()}
    reasons = replace(filters, seen=half).check(agreed, derived=False).reasons
    assert "what auditors see, beside human labels" in reasons["bias_1"]
    assert "bias_4" in reasons


def test_every_check_has_one_name(filters: Filter) -> None:
    """Reasons start with the name that reports and messages use."""
    for changes in ({"labels": np.full(SHAPE, 4, np.uint8)}, {"labels": np.zeros(SHAPE, np.uint8)}):
        for check, reason in filters.check(scan(**changes), derived=False).reasons.items():
            assert reason.startswith(check_name(check)), reason
    named = {check_name(check, {1: "shell", 4: "core"}) for check in filters.check(scan(), derived=False).scores}
    assert {"volume of core in voxels", "label agreement (Dice)"} <= named
    assert len(named) == len(filters.check(scan(), derived=False).scores)
