from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.evaluation.detectability import (
    REGIONS,
    DetectabilityConfig,
    Smallest,
    detectability,
    more_needed,
    region_masks,
    tabulate,
)
from medgen.anomaly.findings.candidates import candidates_of
from medgen.anomaly.findings.false_findings import HealthyCandidates
from medgen.anomaly.heat_scores import to_own_grid
from medgen.config import parse_config
from medgen.errors import ConfigError, DataError
from medgen.implants.scan import implant
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess

SHAPE = (30, 32, 28)
SPACING = (2.0, 2.0, 2.0)


def ball(radius_mm=26.0):
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE, SPACING, strict=True)]
    return np.linalg.norm(np.stack(np.meshgrid(*axes, indexing="ij")), axis=0) <= radius_mm


@dataclass
class BrightFinder:
    """Stands in for a detector: heat is the difference to 1 in standard deviations of the noise."""

    support: np.ndarray
    threshold: float = 6.0
    seen: list = field(default_factory=list)
    preprocess = Preprocess(shape=SHAPE, spacing=SPACING)

    config = AnomalyConfig()

    @property
    def calibration(self):
        """Four healthy scans with one candidate each, so that a new one is a finding above the hottest of them."""
        return SimpleNamespace(healthy=HealthyCandidates.of([[self.threshold]] * 4, "abcd"))

    @property
    def findings_threshold(self):
        return self.calibration.healthy.threshold(self.config.findings.false_findings)

    def candidates(self, heatmap):
        return candidates_of(heatmap, self.config.findings.separation_mm)

    @property
    def lean(self):
        return self

    def measure(self, image, foreground, attributes=None):
        region = foreground[0].numpy() & self.support
        heat = 10 * (image[0].numpy() - 1)
        self.seen.append(heat)
        return SimpleNamespace(region=region, heat=heat)

    def heatmap(self, prepared, measured):
        return to_own_grid(measured.heat, measured.region, prepared, self.preprocess)


def dataset(n=5, per_subject=1):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(1, 0.1, size=(n, 1, *SHAPE)).astype(np.float32))
    foregrounds = torch.from_numpy(np.repeat(ball()[None, None], n, axis=0))
    ids = tuple(f"c{row}" for row in range(n))
    return Dataset(ids, tuple(f"s{row // per_subject}" for row in range(n)), images, foregrounds)


def test_regions_part_the_foreground_by_side_and_depth():
    foreground = ball()
    masks = region_masks(foreground, SPACING)
    assert tuple(masks) == REGIONS
    assert (sum(mask.astype(int) for mask in masks.values()) == foreground).all()
    for name, mask in masks.items():
        places = np.argwhere(mask)
        assert ((places[:, 0] >= SHAPE[0] / 2) == name.startswith("right")).all()
        # Depth below the surface of a ball in closed form, up to the size of a voxel.
        depth = 26 - np.linalg.norm((places - (np.array(SHAPE) - 1) / 2) * SPACING, axis=1)
        if name.endswith("surface"):
            assert depth.max() < 10 + 2 * np.sqrt(3)
        else:
            assert depth.min() > 10 - 2 * np.sqrt(3)


def test_a_foreground_cut_by_the_grid_has_its_surface_there():
    masks = region_masks(np.ones((20, 20, 20), dtype=bool), (2.0, 2.0, 2.0))
    assert masks["left near the surface"][0, 10, 10]
    assert masks["left deep"][9, 10, 10]


def test_the_centre_of_an_implant_lies_where_it_must():
    foreground, image = ball(), np.random.default_rng(0).normal(1, 0.1, SHAPE)
    for name, where in region_masks(foreground, SPACING).items():
        for seed in range(5):
            rng = np.random.default_rng(seed)
            done = implant(
                image, foreground, "hyperintense", rng, radius_mm=4, spacing=SPACING, contrast=3, where=where
            )
            middle = np.rint(np.argwhere(done.mask).mean(axis=0)).astype(int)
            near = where[tuple(slice(m - 1, m + 2) for m in middle)]
            assert near.any(), name
    with pytest.raises(DataError, match="restricted"):
        implant(image, foreground, "uniform", np.random.default_rng(0), radius_mm=4, spacing=SPACING, where=~foreground)
    with pytest.raises(DataError, match="expected where of the image's shape"):
        implant(
            image, foreground, "uniform", np.random.default_rng(0), radius_mm=4, spacing=SPACING, where=foreground[1:]
        )


def test_bright_implants_are_found_and_dark_ones_are_not():
    config = DetectabilityConfig(radii_mm=(4.0, 6.0), contrasts=(-20.0, 20.0), per_cell=2)
    finder, ticks = BrightFinder(ball()), []
    result = detectability(finder, dataset(), config, 0, lambda what, done, total: ticks.append((done, total)))
    assert len(finder.seen) == config.measurements(5) == 4 * 2 * 2 * 2
    assert ticks[-1] == (32, 32)
    for cell in result.cells:
        assert cell.subjects == 2
        assert cell.detected == (2 if cell.contrast > 0 else 0)
        assert cell.kind == ("hyperintense" if cell.contrast > 0 else "hypointense")
        limit = 0.025 ** (1 / 2)  # both, or neither, of two: Clopper and Pearson in closed form
        expected = (limit, 1.0) if cell.detected else (0.0, 1 - limit)
        assert (cell.share.low, cell.share.high) == pytest.approx(expected)
    found = {(item.region, item.contrast): item.radius_mm for item in result.smallest}
    assert found == {(region, c): (4.0 if c > 0 else None) for region in REGIONS for c in (-20.0, 20.0)}


def test_a_subject_counts_once_and_repeats_are_equal():
    config = DetectabilityConfig(radii_mm=(4.0,), contrasts=(3.0,), per_cell=9)
    data = dataset(6, per_subject=2)
    assert config.measurements(3) == 12
    first, again = (detectability(BrightFinder(ball()), data, config, 1) for _ in range(2))
    assert first == again
    assert {cell.subjects for cell in first.cells} == {3}


def test_what_fits_nowhere_is_said_to_and_unscored_places_are_avoided():
    config = DetectabilityConfig(radii_mm=(4.0, 60.0), contrasts=(20.0,), per_cell=1)
    support = ball()
    support[: SHAPE[0] // 2] = False
    result = detectability(BrightFinder(support), dataset(), config, 0)
    for cell in result.cells:
        fits = cell.radius_mm == 4 and cell.region.startswith("right")
        assert cell.subjects == int(fits)
        assert (cell.share is not None) == fits
    assert [item.radius_mm for item in result.smallest] == [None, 4.0, None, 4.0]


def test_a_lucky_small_implant_is_not_the_smallest_if_a_larger_one_is_missed():
    key = ("left deep", 2.0)
    counts = {(*key, 4.0): [True] * 5, (*key, 8.0): [True, False] * 3, (*key, 12.0): [True] * 4 + [False]}
    result = tabulate(counts)
    assert result.smallest[0].radius_mm == 12.0
    share = result.cells[1].share
    exact = stats.binomtest(3, 6).proportion_ci(0.95, method="exact")
    assert (share.low, share.high) == pytest.approx((exact.low, exact.high))
    assert tabulate({(*key, 4.0): [True, False], (*key, 8.0): []}).smallest[0].radius_mm is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"radii_mm": [0]}, "radii above 0"),
        ({"radii_mm": [4, 4]}, "different radii"),
        ({"radii_mm": [4, 1e9]}, "up to 200"),
        ({"contrasts": [0, 1]}, "other than 0"),
        ({"per_cell": 0}, "per_cell"),
    ],
)
def test_unusable_grids_are_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(DetectabilityConfig, data, source="test")


def test_how_many_more_subjects_is_the_exact_lower_limit():
    """All of n found: the one-sided 95 % limit is 0.05^(1/n), so 14 subjects say 80 %."""
    assert 0.05 ** (1 / 13) < 0.8 < 0.05 ** (1 / 14)
    assert [more_needed(n, n) for n in (0, 1, 2, 13, 14, 20)] == [14, 13, 12, 1, 0, 0]
    for detected, subjects in ((4, 5), (9, 10), (20, 24)):
        more = more_needed(detected, subjects)
        limits = [stats.beta.ppf(0.05, detected + m, subjects - detected + 1) for m in (more - 1, more)]
        assert limits[0] < 0.8 <= limits[1]


def test_the_words_on_the_smallest_radius_follow_the_numbers():
    item = Smallest("left deep", 2.5, 5.0, subjects=2, detected=2, more=12)
    assert item.words == "5 mm: 2 of 2; 12 more needed to say 80 %"
    assert replace(item, more=0, subjects=14, detected=14).words == (
        "5 mm: 14 of 14, at least 80 % of subjects (95 % confidence)"
    )
    assert replace(item, radius_mm=None).words == "none of those measured"
