from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from medgen import io
from medgen.anomaly.evaluation.screening import screen
from medgen.anomaly.gate import CHECKS, Gate, GateConfig, histogram, histogram_distance
from medgen.anomaly.normative.covariates import choose_covariates
from medgen.errors import DataError, OutOfDistribution
from medgen.implants.scan import implant
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.report.anomaly.gate import gate_section
from medgen.report.html import Report
from medgen.volume import Grid, Volume

RECIPE = Preprocess(shape=(20, 24, 20), spacing=(2.0, 2.0, 2.0), center_on="foreground")
AFFINE = np.array([[-1.5, 0, 0, 20], [0, 1.5, 0, -24], [0, 0, 1.5, -20], [0, 0, 0, 1]], dtype=float)


def brain(seed):
    """A left-handed 1.5 mm scan of an ellipsoid with a dark core, its size and texture different for every seed."""
    shape = (28, 34, 28)
    rng = np.random.default_rng(seed)
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
    r = np.sqrt((x**2).sum(0)) / (0.85 + 0.05 * rng.uniform(-1, 1))
    core = np.exp(-8 * ((x - 0.1) ** 2).sum(0))
    data = 100 + 40 * r**2 + 15 * x[1] - 70 * core + 2 * rng.normal(size=shape)
    return Volume(np.where(r < 1, np.maximum(data, 5), 0)[None].astype(np.float32), Grid(shape, AFFINE))


def dataset(scans, subjects=None):
    prepared = tuple(RECIPE.apply(scan) for scan in scans)
    ids = tuple(f"case-{number:02d}" for number in range(len(scans)))
    images = torch.from_numpy(np.stack([item.image for item in prepared]))
    foregrounds = torch.from_numpy(np.stack([item.foreground for item in prepared]))[:, None]
    return Dataset(ids, tuple(subjects or ids), images, foregrounds, prepared=prepared)


@pytest.fixture(scope="module")
def healthy():
    return dataset([brain(seed) for seed in range(12)])


@pytest.fixture(scope="module")
def gate(healthy):
    return Gate.fit(healthy, GateConfig())


def changed(scan, data, affine=None):
    data = np.ascontiguousarray(data, dtype=np.float32)
    return Volume(data, Grid(data.shape[1:], scan.grid.affine if affine is None else affine))


def flipped(scan):
    matrix = np.diag([-1.0, 1, 1, 1])
    matrix[0, 3] = scan.grid.shape[0] - 1
    return changed(scan, scan.data[:, ::-1], scan.grid.affine @ matrix)


def turned(scan):
    matrix = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float)
    return changed(scan, scan.data.transpose(0, 2, 3, 1), scan.grid.affine @ matrix)


def half(scan):
    data = scan.data.copy()
    data[..., 14:] = 0
    return changed(scan, data)


def lesion(scan, kind):
    data, rng = scan.data[0], np.random.default_rng(3)
    done = implant(data, data > 0, kind, rng, radius_mm=6, spacing=scan.grid.spacing, contrast=3.0)
    return changed(scan, done.image[None])


def spaced(scan, spacing):
    shape = np.round(np.array(scan.grid.shape) * scan.grid.spacing / np.array(spacing)).astype(int)
    return scan.resample(scan.grid.centred(shape.tolist(), spacing))


FINE = {
    "healthy": lambda scan: scan,
    "flipped": flipped,
    "turned": turned,
    "finer": lambda scan: spaced(scan, (1.0, 1.0, 1.0)),
    "scaled": lambda scan: changed(scan, 37.5 * scan.data + 12),
    "bright lesion": lambda scan: lesion(scan, "hyperintense"),
    "dark lesion": lambda scan: lesion(scan, "hypointense"),
}
FOREIGN = {
    "half zeroed": (half, "coverage"),
    "half cropped": (lambda scan: changed(scan, scan.data[..., :14]), "extent_s"),
    "inverted": (lambda scan: changed(scan, np.where(scan.data > 0, scan.data.max() + 1 - scan.data, 0)), "likeness"),
    "noise": (
        lambda scan: changed(scan, np.random.default_rng(0).normal(100, 20, scan.data.shape)),
        "likeness",
    ),
    "thick slices": (lambda scan: spaced(scan, (1.5, 1.5, 6.0)), "spacing_s"),
    "two values": (lambda scan: changed(scan, np.where(scan.data > 0, 50 + 50 * (scan.data > 130), 0)), "histogram"),
}


@pytest.mark.parametrize("name", FINE)
def test_healthy_scans_and_scans_with_lesions_pass(gate, name):
    for seed in (100, 101):
        gate.check(RECIPE.apply(FINE[name](brain(seed))))


@pytest.mark.parametrize("name", FOREIGN)
def test_scans_that_are_something_else_are_refused_with_the_reason(gate, name):
    change, expected = FOREIGN[name]
    prepared = RECIPE.apply(change(brain(100)))
    assert not gate.limits[expected].holds(gate.measure(prepared)[expected])
    with pytest.raises(OutOfDistribution) as caught:
        gate.check(prepared)
    sentence = next(reason for reason in caught.value.reasons if reason.startswith(CHECKS[expected].what))
    assert "found" in sentence
    assert "expected" in sentence
    assert sentence.endswith(CHECKS[expected].advice)


def test_limits_lie_beyond_the_healthy_range_by_the_margin(healthy):
    narrow, wide = Gate.fit(healthy, GateConfig(margin=0)), Gate.fit(healthy, GateConfig(margin=2))
    for name, limit in narrow.limits.items():
        values = limit.values
        if name == "head":
            assert (limit.high, wide.limits[name].high) == (0.0, 0.0)
            continue
        if name.startswith("spacing"):
            assert limit.high == wide.limits[name].high == pytest.approx(2 * values.max(), rel=2e-3)
            continue
        spread = max(values.std(ddof=1), CHECKS[name].slack)
        if CHECKS[name].low:
            assert limit.low == values.min()
            assert wide.limits[name].low == pytest.approx(values.min() - 2 * spread)
        if CHECKS[name].high:
            assert limit.high == values.max()
            assert wide.limits[name].high == pytest.approx(values.max() + 2 * spread)


def test_the_volume_ratio_is_limited_on_a_log_scale(healthy):
    ratios = np.exp(np.linspace(-0.2, 0.3, len(healthy)))
    quality = [
        {"kept": 1.0, "similarity": 0.9, "mutual_information": 1.2, "overlap": 1.0, "determinant": float(ratio)}
        for ratio in ratios
    ]
    prepared = tuple(replace(item, quality=own) for item, own in zip(healthy.prepared, quality, strict=True))
    limit = Gate.fit(replace(healthy, prepared=prepared), GateConfig(margin=1)).limits["determinant"]
    spread = np.std(np.linspace(-0.2, 0.3, len(healthy)), ddof=1)
    assert math.log(limit.low) == pytest.approx(-0.2 - spread)
    assert math.log(limit.high) == pytest.approx(0.3 + spread)


def test_a_development_scan_is_compared_with_other_subjects_only():
    scans = [brain(seed) for seed in range(6)]
    data = dataset(scans, ["a", "a", "b", "c", "d", "e"])
    fitted = Gate.fit(data, GateConfig())
    others = data.images[2:].numpy()
    shown = 2 * data.foregrounds[2:, 0].numpy().sum(axis=0) >= 4
    for row in (0, 1):
        both = shown & data.foregrounds[row, 0].numpy()
        expected = stats.spearmanr(data.images[row, 0].numpy()[both], others[:, 0].mean(axis=0)[both]).statistic
        assert fitted.limits["likeness"].values[row] == pytest.approx(expected, abs=1e-6)
        coverage = both.sum() / shown.sum()
        assert fitted.limits["coverage"].values[row] == pytest.approx(coverage)


def test_the_histogram_distance_is_the_distance_of_the_samples(healthy):
    def samples(prepared):
        inside = prepared.image[0][prepared.foreground].astype(float)
        low, middle, high = np.percentile(inside, [25, 50, 75])
        return np.clip((inside - middle) / (high - low), -4, 4)

    first, second = healthy.prepared[0], RECIPE.apply(FOREIGN["two values"][0](brain(100)))
    expected = stats.wasserstein_distance(samples(first), samples(second))
    assert histogram_distance(histogram(first), histogram(second)) == pytest.approx(expected, abs=0.1)
    assert histogram_distance(histogram(first), histogram(first)) == 0


def test_voxel_sizes_belong_to_anatomical_axes_whatever_the_order_of_the_array(gate):
    scan = spaced(brain(0), (1.0, 1.5, 2.0))
    for form in (scan, turned(scan), flipped(scan)):
        values = gate.measure(RECIPE.apply(form))
        assert [values[f"spacing_{axis}"] for axis in "ras"] == pytest.approx([1.0, 1.5, 2.0])


def test_a_gate_survives_as_plain_arrays(gate):
    arrays = gate.to_arrays()
    again = Gate.from_arrays(arrays)
    prepared = RECIPE.apply(brain(100))
    assert again.measure(prepared) == gate.measure(prepared)
    assert list(again.limits) == list(gate.limits)
    assert all((again.limits[n].low, again.limits[n].high) == (gate.limits[n].low, gate.limits[n].high) for n in CHECKS
               if n in gate.limits)  # fmt: skip
    with pytest.raises(ValueError, match="'colour'"):
        Gate.from_arrays({**arrays, "limits/colour": np.zeros(2)})
    with pytest.raises(KeyError, match="values/likeness"):
        Gate.from_arrays({name: value for name, value in arrays.items() if name != "values/likeness"})


def test_one_subject_is_too_few():
    with pytest.raises(DataError, match=r"at least 2 healthy subjects, found 1.*gate.enabled=false"):
        Gate.fit(dataset([brain(0), brain(1)], ["a", "a"]), GateConfig())


def test_refused_test_scans_are_left_out_and_counted_by_subject(gate):
    test = dataset([brain(100), half(brain(101)), half(brain(101)), brain(102)], ["a", "b", "b", "c"])
    result = screen(gate, test)
    assert result.passed.ids == ("case-00", "case-03")
    assert [failure.case for failure in result.refused] == ["case-01", "case-02"]
    assert result.abstained.estimate == pytest.approx(1 / 3)
    exact = stats.binomtest(1, 3).proportion_ci(method="exact")
    assert (result.abstained.low, result.abstained.high) == pytest.approx((exact.low, exact.high))
    plain = result.to_plain(gate, scans=5)
    assert (plain["scans_passed"], plain["scans_abstained"], plain["scans_not_prepared"]) == (2, 2, 1)
    assert plain["limits"]["coverage"]["high"] is None
    seen = [gate.measure(prepared)["coverage"] for prepared in test.prepared]
    assert plain["limits"]["coverage"]["test_min"] == min(seen)
    assert plain["limits"]["coverage"]["test_max"] == max(seen)
    assert screen(None, test).passed is test
    with pytest.raises(DataError, match="refuses all 2 healthy test scans"):
        screen(gate, test.subset(["case-01", "case-02"]))


def test_people_beyond_the_development_subjects_are_a_fact_and_no_failure(gate):
    ages = [{"age": str(30 + number)} for number in range(12)]
    covariates = choose_covariates(("age",), ages, [str(number) for number in range(12)]).covariates
    test = dataset([brain(100), brain(101), half(brain(102))], ["a", "b", "c"])
    people = [replace(own, attributes={"age": age}) for own, age in zip(test.prepared, ("35", "90", "91"), strict=True)]
    test = replace(test, prepared=tuple(people))
    result = screen(gate, test, covariates)
    assert result.passed.ids == ("case-00",)
    # What the gate refuses as well is listed once, as refused.
    assert [failure.case for failure in result.refused] == ["case-02"]
    assert [failure.case for failure in result.outside] == ["case-01"]
    plain = result.to_plain(gate, scans=3)
    assert (plain["scans_passed"], plain["scans_abstained"], plain["scans_not_prepared"]) == (1, 2, 0)
    assert plain["outside"] == [{"case": "case-01", "reason": covariates.problem({"age": "90"})}]
    for own in (gate, None):
        report = Report("r", "", "")
        gate_section(report, own, result)
        assert "found age 90" in report.html()
    with pytest.raises(DataError, match=r"refuses all 1 healthy test scans; the first: case-01: found age 90"):
        screen(gate, test.subset(["case-01"]), covariates)


def test_real_crops_pass_and_other_contrast_and_noise_do_not(shared_data):
    files = sorted((shared_data / "hippocampus" / "imagesTr").glob("hippocampus_*.nii.gz"))[:26]
    scans = [io.read(file) for file in files]
    recipe = Preprocess(shape=(40, 56, 40), spacing=(1.0, 1.0, 1.0))
    prepared = tuple(recipe.apply(scan) for scan in scans[:20])
    images = torch.from_numpy(np.stack([item.image for item in prepared]))
    foregrounds = torch.from_numpy(np.stack([item.foreground for item in prepared]))[:, None]
    ids = tuple(file.name for file in files[:20])
    fitted = Gate.fit(Dataset(ids, ids, images, foregrounds, prepared=prepared), GateConfig())
    for scan in scans[20:]:
        assert fitted.problems(recipe.apply(scan)) == []
        assert fitted.problems(recipe.apply(flipped(scan))) == []
        assert fitted.problems(recipe.apply(changed(scan, scan.data.max() - scan.data.astype(float))))
        noise = np.random.default_rng(0).normal(100, 20, scan.data.shape)
        assert fitted.problems(recipe.apply(changed(scan, noise)))


def test_a_whole_head_is_refused_by_a_model_of_stripped_brains_and_by_no_other(healthy):
    bare = Gate.fit(healthy, GateConfig())
    own = replace(healthy.prepared[0], may_show_face=True)
    with pytest.raises(OutOfDistribution) as caught:
        bare.check(own)
    said = caught.value.reasons[0]
    assert said.startswith("may show a face: it has the size of a whole head with skin (not skull-stripped)")
    assert "none of the healthy scans has" in said
    assert "before sharing" not in said
    bare.check(healthy.prepared[0])
    heads = replace(healthy, prepared=(own, *healthy.prepared[1:]))
    Gate.fit(heads, GateConfig()).check(own)
    again = Gate.from_arrays(bare.to_arrays())
    assert again.problems(own) == bare.problems(own)
