from __future__ import annotations

import zipfile

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from medgen.anomaly.comparison import measurement_file, scans_over_seeds, voxels_over_seeds
from medgen.anomaly.comparison.measurement_file import MeasurementFile
from medgen.anomaly.evaluation.measure import FUSED, HEALTHY, Measurement
from medgen.errors import DataError

SHAPE = (9, 8, 7)
KINDS = ("noise", "blur", "shift")


def measurements(seed, subjects=5, rows=(FUSED, "zscore (raw)", "zscore (z)", "nll (z)")):
    """Healthy scans with three implants each; every row but the fused one is noisier."""
    rng = np.random.default_rng(seed)
    result = []
    for number in range(subjects):
        region = rng.random(SHAPE) < 0.8
        for copy, kind in enumerate((HEALTHY, *KINDS)):
            truth = (rng.random(int(region.sum())) < 0.1) & (kind != HEALTHY)
            maps = {
                name: (rng.normal(0, 1 + place, truth.size) + 2 * truth).astype(np.float16)
                for place, name in enumerate(rows)
            }
            score = float(maps[rows[0]].max())
            result.append(
                Measurement(
                    case=f"case-{number}",
                    subject=f"s{number + seed}",
                    kind=kind,
                    radius_mm=0.0 if kind == HEALTHY else 3.0 + number + copy,
                    contrast=0.0 if kind == HEALTHY else (1.5, 2.5)[copy % 2],
                    region=region,
                    truth=truth,
                    rows=maps,
                    scores={"top": score},
                    p_values={"top": (1.0, 0.5, 0.1, 0.05)[copy] if number else 0.05},
                    hottest_in_truth=float(maps[rows[0]][truth].max(initial=-np.inf)),
                    own_grid=(int((maps[rows[0]] > 3.5).sum()), int(truth.sum()), int(truth.sum() // 2)),
                    expected_false=np.arange(1, copy + 1) / 10,
                    hits=np.arange(copy) == 1,
                    untouched=np.inf if copy else 0.25,
                )
            )
    return result


def saved(folder, seed, name="run", **given):
    path = folder / f"{name}-{seed}.npz"
    measurement_file.save(path, measurements(seed, **given))
    return MeasurementFile.open(path)


@pytest.fixture
def runs(tmp_path):
    return voxels_over_seeds.Runs.of([[saved(tmp_path, seed)] for seed in (0, 1)], 200, 0)


def test_measurements_come_back_as_they_were(tmp_path):
    original, found = measurements(3), saved(tmp_path, 3)
    assert found.names == tuple(original[0].rows)
    for before, after in zip(original, found.measurements(found.names), strict=True):
        for name in ("case", "subject", "kind", "radius_mm", "contrast", "scores", "p_values", "own_grid", "untouched"):
            assert getattr(after, name) == getattr(before, name)
        for name in ("region", "truth", "hottest_in_truth", "expected_false", "hits"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        for name, values in before.rows.items():
            assert after.rows[name].dtype == np.float16
            np.testing.assert_array_equal(after.rows[name], values)
    # Nothing in the file needs to be unpickled.
    with zipfile.ZipFile(found.path) as archive, np.load(found.path, allow_pickle=False) as arrays:
        assert len(archive.namelist()) == len([arrays[name] for name in arrays.files])


def test_what_is_no_file_of_measurements_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        MeasurementFile.open(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(DataError, match="damaged"):
        MeasurementFile.open(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="damaged, or no file of measurements"):
        MeasurementFile.open(tmp_path / "other.npz")
    with pytest.raises(DataError, match="no row 'ssim'"):
        saved(tmp_path, 0).row("ssim")
    with pytest.raises(DataError, match="same rows"):
        measurement_file.save(tmp_path / "mixed.npz", [*measurements(0), *measurements(1, rows=(FUSED,))])


def test_rows_equal_scikit_learn_over_all_voxels_and_per_seed(runs):
    rows = {row.name: row for row in voxels_over_seeds.compare(runs)}
    for name, row in rows.items():
        parts = [
            [(item.truth, item.rows[name].astype(float)) for item in measurements(seed) if item.kind != HEALTHY]
            for seed in (0, 1)
        ]
        truth, values = (np.concatenate([part[place] for seed in parts for part in seed]) for place in (0, 1))
        assert row.ap.estimate == pytest.approx(average_precision_score(truth, values), abs=2e-3)
        assert row.auroc.estimate == pytest.approx(roc_auc_score(truth, values), abs=1e-4)
        each = [
            average_precision_score(*(np.concatenate([part[place] for part in seed]) for place in (0, 1)))
            for seed in parts
        ]
        assert row.ap_per_seed == pytest.approx(np.mean(each), abs=2e-3)
    fused, other = rows[FUSED], rows["zscore (raw)"]
    assert other.difference.estimate == pytest.approx(fused.ap.estimate - other.ap.estimate)
    assert other.ratio.estimate == pytest.approx(fused.ap.estimate / other.ap.estimate)
    assert not other.difference.low <= 0 <= other.difference.high
    assert [row.role for row in rows.values()].count("baseline") == 2


def test_a_subject_of_two_seeds_is_one_unit_and_holm_covers_baselines_and_peers_only(runs):
    rows = {row.name: row for row in voxels_over_seeds.compare(runs)}
    # Subjects s0 to s4 and s1 to s5.
    assert rows[FUSED].ap.n == 6
    # Every subject is better with the fused map, so of 2⁶ sign patterns only two are as extreme.
    assert rows["zscore (raw)"].p == pytest.approx(2 / 64)
    assert rows["zscore (raw)"].p_holm == pytest.approx(4 / 64)
    assert rows["nll (z)"].p is not None
    assert rows["nll (z)"].p_holm is None
    assert rows[FUSED].p is None


def test_further_files_must_hold_the_same_scans(tmp_path):
    peers = saved(tmp_path, 0, "peers", rows=("pyod-knn (raw)",))
    with pytest.raises(DataError, match="other test scans"):
        voxels_over_seeds.Runs.of([[saved(tmp_path, 1), peers]], 100, 0)
    own = measurements(0)
    path = tmp_path / "same.npz"
    measurement_file.save(path, [_renamed(item) for item in own if item.kind != HEALTHY])
    runs = voxels_over_seeds.Runs.of([[saved(tmp_path, 0), MeasurementFile.open(path)]], 100, 0)
    rows = {row.name: row for row in voxels_over_seeds.compare(runs)}
    assert rows["peer (raw)"].role == "peer"
    assert rows["peer (raw)"].ap.estimate == rows[FUSED].ap.estimate
    assert rows["peer (raw)"].difference.estimate == 0
    assert rows["peer (raw)"].p_holm == 1


def _renamed(item):
    fields = {name: getattr(item, name) for name in item.__dataclass_fields__}
    return Measurement(**{**fields, "rows": {"peer (raw)": item.rows[FUSED]}, "scores": {}, "p_values": {}})


def test_cells_add_up_and_have_no_limits_for_one_subject(runs):
    cells, limits = voxels_over_seeds.cells(runs, [FUSED], "top")
    whole = cells[0]
    assert (whole.kind, whole.contrast, whole.size, whole.scans) == ("all", "all", "all", 30)
    for place in ("kind", "contrast", "size"):
        others = {"kind", "contrast", "size"} - {place}
        own = [
            cell for cell in cells if getattr(cell, place) != "all" and {getattr(cell, o) for o in others} == {"all"}
        ]
        assert sum(cell.scans for cell in own) == 30
    crossed = [cell for cell in cells if "all" not in (cell.kind, cell.contrast, cell.size)]
    assert sum(cell.scans for cell in crossed) == 30
    radii = np.array([item.radius_mm for item in runs.implanted])
    np.testing.assert_allclose(limits, np.quantile(radii, [1 / 3, 2 / 3]))
    for cell in crossed:
        assert np.isnan(cell.ap[FUSED].low) == (cell.subjects == 1)
    blur = next(cell for cell in cells if cell.kind == "blur" and cell.size == cell.contrast == "all")
    scores = [item.scores["top"] for item in [*runs.healthy, *(i for i in runs.implanted if i.kind == "blur")]]
    assert blur.scan_auroc.estimate == pytest.approx(roc_auc_score([0] * 10 + [1] * 10, scores))


def test_realised_rates_count_a_subject_once(runs):
    (row,) = scans_over_seeds.scan_levels(runs, 0.05, (0.01, 0.05, 0.2))
    # Healthy scans of case-0 have p = 0.05: subject s0 under seed 0, and s1 under seed 1 but not under seed 0.
    expected = 1.5 / 6
    assert row.realised[0.05].estimate == pytest.approx(expected)
    low = stats.binomtest(1, 6).proportion_ci(0.95, "exact")
    high = stats.binomtest(2, 6).proportion_ci(0.95, "exact")
    assert low.low < row.realised[0.05].low < high.low
    assert low.high < row.realised[0.05].high < high.high
    # No p is below 0.05, so a target of 1 % cannot be realised or missed.
    assert set(row.realised) == {0.05, 0.2}
    # Per seed, all four scans of case-0 and the last copy of the others.
    assert row.detected.estimate == pytest.approx((3 + 4) / 15)


def test_controls_are_at_chance_for_noise(runs):
    found = voxels_over_seeds.chance_controls(runs)
    assert set(found) == {"zero amplitude", "permuted masks"}
    for value in found.values():
        assert 0.6 < value.estimate < 1.6
