from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.comparison import findings_over_seeds, measurement_file
from medgen.anomaly.comparison.measurement_file import MeasurementFile
from medgen.anomaly.comparison.voxels_over_seeds import Runs
from medgen.anomaly.evaluation.measure import FUSED, HEALTHY, Measurement
from medgen.anomaly.findings.false_findings import FROC_LEVELS
from medgen.errors import DataError
from medgen.metrics.ranking import Resampler
from medgen.volume import Grid

SHAPE = (14, 12, 10)
GRID = Grid(SHAPE, np.diag([5.0, 5.0, 5.0, 1.0]))
ROWS = (FUSED, "zscore (raw)", "zscore (z)", "random (z)")


def measurements(seed, rows=ROWS, healthy=True):
    """Four subjects with three copies each: the fused row sees all implants, zscore the strong ones, random none."""
    rng = np.random.default_rng(seed)
    result = []
    for number in range(4):
        region = np.zeros(SHAPE, dtype=bool)
        region[1:-1, 1:-1, 1:-1] = True
        noise = {name: rng.normal(size=SHAPE) for name in ROWS}
        for copy in range(4):
            truth = np.zeros(SHAPE, dtype=bool)
            if copy:
                truth[2 * copy : 2 * copy + 2, 3:6, 4:7] = True
            maps = {
                FUSED: noise[FUSED] + 8 * truth,
                # The same map on another scale, and skewed.
                "zscore (raw)": np.exp(noise["zscore (raw)"] / 2) + 20 * truth * (copy == 1),
                "zscore (z)": noise["zscore (raw)"] + 8 * truth * (copy == 1),
                "random (z)": rng.normal(size=SHAPE),
            }
            if copy or healthy:
                result.append(
                    Measurement(
                        case=f"case-{number}",
                        subject=f"s{number}",
                        kind="noise" if copy else HEALTHY,
                        radius_mm=5.0 * bool(copy),
                        contrast=2.0 * bool(copy),
                        region=region,
                        truth=truth[region],
                        rows={name: maps[ROWS[place]][region].astype(np.float16) for place, name in enumerate(rows)},
                        scores={},
                        p_values={},
                    )
                )
    return result


def saved(folder, seed, name="run", **given):
    path = folder / f"{name}-{seed}.npz"
    measurement_file.save(path, measurements(seed, **given))
    return MeasurementFile.open(path)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runs = Runs.of([[saved(folder, seed)] for seed in (0, 1)], 200, 0)
    told = []
    found = findings_over_seeds.compare(runs, [GRID, GRID], 10.0, lambda *what: told.append(what[1:]))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return {row.name: row for row in found}


def test_rows_find_what_they_see(rows):
    assert next(iter(rows)) == FUSED
    for level in FROC_LEVELS:
        assert rows[FUSED].sensitivity[level].estimate == 1.0
        # One copy of three.
        assert rows["zscore (z)"].sensitivity[level].estimate == pytest.approx(1 / 3, abs=0.13)
        assert rows["random (z)"].sensitivity[level].estimate < 0.4
    assert rows[FUSED].sensitivity[0.5].n == 4
    assert (rows["zscore (raw)"].form, rows["zscore (raw)"].role) == ("raw", "baseline")
    assert not rows[FUSED].difference
    assert set(rows["zscore (z)"].difference) == {0.5, 1.0}
    difference = rows["zscore (z)"].difference[0.5]
    assert difference.estimate == 1.0 - rows["zscore (z)"].sensitivity[0.5].estimate
    assert 0 < difference.low <= difference.high <= 1


def test_the_scale_of_a_row_does_not_matter(rows):
    # A monotone function of the same map, but for how far beyond the healthy voxels the implants are.
    for level in FROC_LEVELS:
        raw, z = (rows[name].sensitivity[level].estimate for name in ("zscore (raw)", "zscore (z)"))
        assert raw == pytest.approx(z)


def test_sensitivity_is_that_of_thresholds_tried_one_by_one():
    rng = np.random.default_rng(0)
    names = ["a", "b", "c", "d", "e"]
    scans = {name: [rng.normal(2, 1, size=rng.integers(0, 5)) for _ in range(1 + (name == "b"))] for name in names}
    subjects = [name for name in names for _ in range(3)]
    found = np.where(rng.random(15) < 0.2, -np.inf, rng.normal(3, 1, size=15))
    resampler = Resampler(names, 20, 0)
    draws = findings_over_seeds.froc_draws(scans, found, subjects, resampler)

    def expected(weights, level):
        heats = np.unique(np.concatenate([*(heat for own in scans.values() for heat in own), found, [99.0]]))
        best = 0.0
        for threshold in heats[np.isfinite(heats)]:
            counts = [np.mean([(heat >= threshold).sum() for heat in scans[name]]) for name in names]
            if np.average(counts, weights=weights) <= level + 1e-9:
                listed = np.repeat(weights, 3)
                best = max(best, float(((found >= threshold) * listed).sum() / listed.sum()))
        return best

    for level in FROC_LEVELS:
        assert draws[level][0] == pytest.approx(expected(np.ones(5), level))
        # Resamples are centred on the estimate; what they are before is what the thresholds give.
        plain = np.array([expected(weights, level) for weights in resampler.weights])
        moved = np.clip(plain - (np.median(plain) - draws[level][0]), 0, 1)
        np.testing.assert_allclose(draws[level][1:], moved)


def test_without_candidates_in_healthy_scans_every_implant_with_a_candidate_is_found():
    resampler = Resampler(["a", "b"], 10, 0)
    draws = findings_over_seeds.froc_draws(
        {"a": [np.zeros(0)], "b": [np.zeros(0)]}, np.array([2.5, -np.inf]), ["a", "b"], resampler
    )
    assert [own[0] for own in draws.values()] == [0.5] * len(FROC_LEVELS)


def test_a_peer_without_healthy_scans_is_refused_and_one_with_them_gets_a_row(tmp_path):
    renamed = ("peer (raw)",)
    own = saved(tmp_path, 0)
    lacking = saved(tmp_path, 0, "lacking", rows=renamed, healthy=False)
    runs = Runs.of([[own, lacking]], 50, 0)
    with pytest.raises(DataError, match=r"lacking-0.npz: holds 0 healthy scans, expected the 4 of its run; remove it"):
        findings_over_seeds.compare(runs, [GRID], 10.0)
    whole = saved(tmp_path, 0, "whole", rows=renamed)
    found = {row.name: row for row in findings_over_seeds.compare(Runs.of([[own, whole]], 50, 0), [GRID], 10.0)}
    assert found["peer (raw)"].role == "peer"
    assert found["peer (raw)"].sensitivity == found[FUSED].sensitivity
    assert found["peer (raw)"].difference[1.0].estimate == 0
    other = measurements(0, rows=renamed)
    measurement_file.save(tmp_path / "other.npz", [other[4], *other[1:4], other[0], *other[5:]])
    with pytest.raises(DataError, match="other test scans"):
        Runs.of([[own, MeasurementFile.open(tmp_path / "other.npz")]], 50, 0)
