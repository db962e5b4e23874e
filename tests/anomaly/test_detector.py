from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medgen.anomaly.artefacts.signs import ArtefactLimits
from medgen.anomaly.artifact import from_artifact, to_artifact
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation.artefacts import ArtefactsConfig, measure_artefacts
from medgen.config import parse_config
from medgen.errors import ArtifactError, CalibrationError, ConfigError, DataError, OutOfDistribution
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.report.anomaly.pictures import Scored
from medgen.report.anomaly.scored.scoring import ScoredCase, case_blocks
from medgen.report.anomaly.words import doubt_words
from medgen.report.html import Report
from medgen.system import precision
from medgen.volume import Grid, Volume

SHAPE = (16, 20, 16)
RECIPE = Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0))
CONFIG = parse_config(
    AnomalyConfig,
    {
        "folds": 2,
        "likelihood_samples": 2,
        "calibration": {"target_fpr": 0.1},
        "validation": {"enabled": False},
    },
    source="test",
)


def scan(seed, blob=False):
    """A native scan: 1.5 mm, left-handed, with a brain-like ellipsoid on a constant background."""
    shape = (22, 28, 22)
    affine = np.diag([-1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = (17, -20, -15)
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
    data = 100 + 30 * np.cos(3 * grid[0]) + 20 * grid[1] + 5 * rng.normal(size=shape)
    if blob:
        data[14:18, 12:16, 10:14] += 250
    data[(grid**2).sum(0) > 0.9] = 0
    return Volume(data[None].astype(np.float32), Grid(shape, affine))


def dataset(n=12):
    prepared = tuple(RECIPE.apply(scan(seed)) for seed in range(n))
    ids = tuple(f"case-{number:02d}" for number in range(n))
    images = torch.from_numpy(np.stack([item.image for item in prepared]))
    foregrounds = torch.from_numpy(np.stack([item.foreground for item in prepared]))[:, None]
    return Dataset(ids, ids, images, foregrounds, prepared=prepared)


def models(n=2):
    settings = {"family": "vae", "shape": SHAPE, "widths": (16,), "latent": 4, "codes": ((2, 2),)}
    return [[build(settings, seed=number).eval()] for number in range(n)]


def folds(data):
    return [data.ids[0::2], data.ids[1::2]]


@pytest.fixture(scope="module")
def detector():
    data = dataset()
    return AnomalyDetector.fit(data, folds(data), models(), CONFIG, RECIPE)


def test_a_bright_blob_is_found_where_it_is(detector):
    native = scan(100, blob=True)
    result = detector.score_scan(native)
    assert result.heatmap.grid.same_as(native.grid)
    assert result.findings
    first = result.findings[0]
    place = native.grid.to_voxel(first.peak_ras)
    assert (place > (12, 10, 8)).all()
    assert (place < (20, 18, 16)).all()
    assert first.peak > detector.calibration.threshold
    assert first.p_max == pytest.approx(1 / 13)
    assert result.p_values["max"] == pytest.approx(1 / 13)
    assert native.grid.to_voxel(first.peak_ras) == pytest.approx(first.peak_voxel, abs=0.01)
    assert result.heatmap.data[0][first.peak_voxel] == first.peak == result.scores["max"]
    # Nothing was registered, so there is no template to count from.
    assert first.peak_template is None
    assert set(result.measured.surprise) == set(detector.config.fusion.channels) == {"selfsup", "descriptors", "nll"}
    assert first.channel in result.measured.surprise


def test_the_region_is_the_patients_whatever_the_order_of_the_array(detector):
    left = scan(100, blob=True)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = left.grid.shape[0] - 1
    same = Volume(left.data[:, ::-1].copy(), Grid(left.grid.shape, left.grid.affine @ flip))
    assert (left.grid.axcodes, same.grid.axcodes) == ("LAS", "RAS")
    mirrored = Volume(left.data[:, ::-1].copy(), left.grid)
    words = [detector.score_scan(item).findings[0].region for item in (left, same, mirrored)]
    assert words[0] == words[1]
    assert words[0].startswith("left of the field's middle, central")
    assert words[2].startswith("right of the field's middle, central")
    first = detector.score_scan(left).findings[0]
    strongest, value = first.channels.split(", ")[0].split()
    assert strongest == first.channel
    assert float(value) > 2


def test_a_pseudo_healthy_scan_is_in_the_scans_own_space_and_intensities(detector):
    native = scan(100, blob=True)
    prepared = RECIPE.apply(native)
    pseudo = detector.pseudo_healthy(prepared)
    assert pseudo.grid.same_as(native.grid)
    inside = np.isfinite(pseudo.data[0])
    # Only what the outermost model voxels reach beyond the brain.
    assert inside[native.data[0] == 0].mean() < 0.05
    assert inside[native.data[0] > 0].mean() > 0.8
    # The same by hand: mean of the folds, then the inverse of the intensity map, at a voxel of the model grid.
    with torch.no_grad():
        images = [member.models[0].reconstruct(torch.from_numpy(prepared.image)[None]) for member in detector.members]
    low, gain = prepared.scale[0]
    expected = low + gain * ((images[0] + images[1]) / 2)[0, 0].numpy()
    values = Volume(np.where(prepared.foreground, expected, np.nan)[None].astype(np.float32), prepared.grid)
    np.testing.assert_allclose(pseudo.data, values.resample(native.grid, fill=np.nan).data, rtol=1e-5)


class Identity(torch.nn.Linear):
    """Takes every scan for healthy."""

    def reconstruct(self, x):
        return x


def test_a_model_that_rebuilds_everything_gives_the_scan_back(detector):
    native = scan(100, blob=True)
    own = RECIPE.model_copy(update={"spacing": (1.5, 1.5, 1.5), "shape": (22, 28, 22), "clip": (-5.0, 5.0)})
    members = tuple(replace(member, models=(Identity(1, 1),)) for member in detector.members)
    pseudo = replace(detector, preprocess=own, members=members).pseudo_healthy(own.apply(native))
    inside = np.isfinite(pseudo.data)
    np.testing.assert_array_equal(inside, native.data > 0)
    np.testing.assert_allclose(pseudo.data[inside], native.data[inside], rtol=1e-4)
    without = tuple(replace(member, models=(torch.nn.Linear(1, 1),)) for member in detector.members)
    assert replace(detector, members=without).pseudo_healthy(own.apply(native)) is None


def test_a_fresh_healthy_scan_is_unremarkable_and_unscored_voxels_are_nan(detector):
    native = scan(200)
    result = detector.score_scan(native)
    assert result.p_values[result.scan_score] > 0.1
    data = result.heatmap.data[0]
    assert np.isnan(data[0, 0, 0])
    assert np.isfinite(data[11, 14, 11])
    assert np.isfinite(data).sum() == pytest.approx((native.data > 0).sum(), rel=0.25)


def test_a_calibration_scan_through_its_own_fold_has_its_calibration_scores(detector):
    data = dataset()
    for row in (0, 1, 5):
        own = replace(detector, members=(detector.members[row % 2],))
        result = own.score_prepared(data.prepared[row])
        assert set(result.scores) == set(detector.calibration.scores)
        for name, value in result.scores.items():
            assert value == pytest.approx(detector.calibration.scores[name][row], rel=1e-4), name
        healthy = detector.calibration.healthy
        assert result.candidates.heat == pytest.approx(healthy.heat[healthy.scan == row], rel=1e-4)


def test_of_a_scan_that_looks_like_an_artefact_nothing_is_claimed(detector, tmp_path):
    native = scan(100, blob=True)
    # Twelve subjects are too few for names that are believed.
    assert detector.artefacts is None
    limits = ArtefactLimits.fit(dataset(), detector.gate.reference, detector.config.gate)
    # With a limit below all healthy scans every scan looks noisy.
    tight = replace(limits, limits={"low_snr": replace(limits.limits["low_snr"], high=0.0)})
    doubtful = from_artifact(to_artifact(replace(detector, artefacts=tight)))
    plain, found = detector.score_scan(native), doubtful.score_scan(native)
    assert (found.findings, found.p_values) == ([], {})
    assert [item.peak_voxel for item in found.unlisted] == [item.peak_voxel for item in plain.findings]
    assert plain.unlisted == []
    assert not plain.doubts
    assert np.array_equal(found.regions.data, plain.regions.data)
    assert found.scores == plain.scores
    n = len(detector.calibration.maxima)
    assert (found.ranks["max"].below, found.ranks["max"].n) == (n, n)
    assert found.doubts.why == "likely artefact: low signal to noise"
    said = doubt_words(found)
    assert said.startswith("**The scan looks like low signal to noise (noise relative to its contrast: ")
    assert f"no findings: {len(plain.findings)} hot place" in said
    assert said.endswith(f"more unusual than {found.ranks['top'].below} of {n} healthy scans (top).")
    entry = ScoredCase.of(Scored("scan", native, found))
    again = ScoredCase.from_plain(json.loads(json.dumps(entry.to_plain())))
    assert (again.why, again.ranks, again.artefact) == (entry.why, entry.ranks, entry.artefact)
    report = Report("scan")
    report.section("scan")
    case_blocks(report, Scored("scan", native, found), doubtful)
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "hot place (likely artefact: low signal to noise)" in page
    assert "family-wise" not in page
    assert "p (max)" not in page
    # Without a gate nothing is asked.
    assert replace(doubtful, gate=None).score_scan(native).findings


def test_no_kinds_of_artefacts_are_no_kinds() -> None:
    with pytest.raises(
        ConfigError, match=r"kinds: expected kinds of artefacts; leave it out for all, or set artefacts.en"
    ):
        parse_config(ArtefactsConfig, {"kinds": []}, source="test")
    own = ArtefactsConfig()
    assert parse_config(ArtefactsConfig, own.model_dump(mode="json"), source="test") == own


def test_faulty_copies_of_healthy_scans_are_counted_by_what_becomes_of_them(detector):
    data = dataset()
    assert ArtefactLimits.of_cohort(data, detector.gate, detector.config.gate, RECIPE.spacing) is None
    config = ArtefactsConfig(kinds=("low_snr", "defacing"), per_scan=3)
    none = measure_artefacts(detector, data, iter(()), config, 0, lambda *_: None)
    assert none is None
    limits = ArtefactLimits.fit(data, detector.gate.reference, detector.config.gate)
    healthy = data.subset(data.ids[:4])
    found = measure_artefacts(replace(detector, artefacts=limits), healthy, iter(()), config, 0, lambda *_: None)
    assert sum(row.scans for row in found.rows) == 12
    assert sum(row.scored for row in found.rows) == 4
    assert all(row.named + row.named_otherwise + row.not_named == row.scans for row in found.rows)
    assert all(row.listed <= row.hot <= row.scored for row in found.rows)
    noisy = next(row for row in found.rows if (row.artefact, row.strength) == ("low_snr", "severe"))
    assert noisy.named == noisy.scans > 0
    assert (found.development.n, found.test.n, found.implants) == (12, 4, None)


def test_what_the_gate_refuses_is_scored_on_request_with_ranks_alone(detector):
    native = scan(100, blob=True)
    data = native.data.copy()
    data[..., :12] = 0
    half = native.with_data(data)
    with pytest.raises(OutOfDistribution) as caught:
        detector.score_scan(half)
    result = detector.score_scan(half, ungated=True)
    assert set(result.doubts.refused) <= set(caught.value.reasons)
    assert (result.findings, result.p_values) == ([], {})
    assert "**The gate refuses this scan, and it was scored all the same.**" in doubt_words(result)
    # A cut is named beside what the gate finds.
    assert [reason for reason in caught.value.reasons if reason.startswith("it looks like")] == [
        f"it {sign.words}" for sign in result.doubts.signs
    ]


def test_scores_can_be_read_off_the_heatmap_and_p_values_off_the_calibration_table(detector):
    table, candidates = detector.calibration.rows(), detector.calibration.healthy.rows()
    target = CONFIG.calibration.target_fpr
    seen = set()
    for seed in range(200, 212):
        for blob in (False, True):
            result = detector.score_scan(scan(seed, blob=blob))
            values = np.sort(result.heatmap.data[np.isfinite(result.heatmap.data)])
            assert result.scores["max"] == values[-1]
            assert result.scores["mean"] == pytest.approx(values.mean(dtype=np.float64))
            assert result.scores["top"] == pytest.approx(values[-max(1, round(len(values) / 1000)) :].mean())
            for name, value in result.scores.items():
                by_hand = (1 + sum(row[name] >= value for row in table)) / (1 + len(table))
                assert result.p_values[name] == by_hand, name
            for finding in result.findings:
                assert finding.p_max == (1 + sum(row["max"] >= finding.peak for row in table)) / (1 + len(table))
                assert finding.family_wise == (finding.p_max <= target)
                hotter = sum(row["weight"] for row in candidates if row["heat"] >= finding.peak)
                assert finding.expected_false == pytest.approx((hotter + finding.id) / (1 + len(table)))
                assert finding.expected_false <= CONFIG.findings.false_findings + 1e-9
                assert result.heatmap.data[0][result.regions.data[0] == finding.id].min() > detector.findings_threshold
            passing = any(finding.family_wise for finding in result.findings)
            assert passing == (result.p_values["max"] <= target)
            seen.add(passing)
    assert seen == {False, True}


def test_scoring_repeats_bit_for_bit(detector):
    first, second = detector.score_scan(scan(7)), detector.score_scan(scan(7))
    np.testing.assert_array_equal(first.heatmap.data, second.heatmap.data)
    assert first.scores == second.scores


def test_a_saved_detector_scores_the_same(detector, tmp_path):
    named = replace(detector, contrasts=("FLAIR",), chosen="texture")
    to_artifact(named, {"seed": 3, "choice": {"words": "texture won"}}).save(tmp_path / "model")
    artifact = TrainedModel.load(tmp_path / "model")
    assert artifact.meta["choice"] == {"chosen": "texture", "words": "texture won"}
    again = from_artifact(artifact)
    assert (detector.contrasts, again.contrasts, again.chosen) == (("1",), ("FLAIR",), "texture")
    # A detector that was moved to another site has no table of the choice and keeps what was said of it.
    assert to_artifact(again, artifact.meta).meta["choice"] == artifact.meta["choice"]
    again = replace(again, contrasts=detector.contrasts)
    before, after = detector.score_scan(scan(100, blob=True)), again.score_scan(scan(100, blob=True))
    np.testing.assert_array_equal(before.heatmap.data, after.heatmap.data)
    assert before.findings == after.findings
    assert before.p_values == after.p_values
    # The columns of calibration.csv, whatever order the file gives its arrays in.
    assert [list(row) for row in again.calibration.rows()] == [list(row) for row in detector.calibration.rows()]
    artifact = to_artifact(detector)
    backwards = dict(reversed(artifact.arrays.items()))
    turned = from_artifact(TrainedModel(artifact.models, RECIPE, None, backwards, artifact.meta))
    assert list(turned.calibration.scores) == list(detector.calibration.scores)


@pytest.mark.skipif(not precision.bf16_works("cpu"), reason="bfloat16 is wrong here")
def test_in_bfloat16_findings_are_those_of_float32(detector, tmp_path, monkeypatch, caplog):
    data = dataset()
    rounded = AnomalyDetector.fit(data, folds(data), models(), CONFIG, RECIPE, bf16=True)
    for seed, blob in ((100, True), (101, True), (7, False)):
        native = scan(seed, blob=blob)
        exact, other = detector.score_scan(native), rounded.score_scan(native)
        assert not np.array_equal(exact.heatmap.data, other.heatmap.data)
        inside = np.isfinite(exact.heatmap.data)
        assert np.corrcoef(exact.heatmap.data[inside], other.heatmap.data[inside])[0, 1] > 0.999
        assert [found.peak_voxel for found in exact.findings] == [found.peak_voxel for found in other.findings]
        assert other.p_values == exact.p_values
    to_artifact(rounded).save(tmp_path / "model")
    again = from_artifact(TrainedModel.load(tmp_path / "model"))
    native = scan(100, blob=True)
    np.testing.assert_array_equal(again.score_scan(native).heatmap.data, rounded.score_scan(native).heatmap.data)
    assert not caplog.records
    # On a machine that gets bfloat16 wrong: in float32, which is said.
    monkeypatch.setattr(precision, "bf16_works", lambda device: False)
    elsewhere = from_artifact(TrainedModel.load(tmp_path / "model"))
    assert not elsewhere.bf16
    assert "the calibration is of scores in bfloat16" in caplog.text


@pytest.mark.parametrize(("meta", "bf16"), [({}, False), ({"precision": "32"}, False), ({"precision": "bf16"}, True)])
def test_an_artifact_says_in_which_precision_it_was_calibrated(detector, meta, bf16):
    artifact = to_artifact(detector)
    assert artifact.meta["precision"] == "32"
    rest = {key: value for key, value in artifact.meta.items() if key != "precision"}
    given = TrainedModel(artifact.models, RECIPE, None, artifact.arrays, {**rest, **meta})
    assert from_artifact(given).bf16 is (bf16 and precision.bf16_works("cpu"))
    with pytest.raises(ArtifactError, match="its precision is 'half', expected 32 or bf16"):
        from_artifact(TrainedModel(artifact.models, RECIPE, None, artifact.arrays, {**rest, "precision": "half"}))


def test_an_artifact_of_another_kind_or_without_a_part_is_refused(detector):
    artifact = to_artifact(detector)
    with pytest.raises(ArtifactError, match="kind 'generative'"):
        from_artifact(TrainedModel(artifact.models, RECIPE, None, artifact.arrays, {"kind": "generative"}))
    arrays = {name: array for name, array in artifact.arrays.items() if name != "fold1/tail/nll"}
    with pytest.raises(ArtifactError, match="'tail/nll' is missing"):
        from_artifact(TrainedModel(artifact.models, RECIPE, None, arrays, artifact.meta))


def test_the_gate_travels_with_the_model_and_an_artifact_without_one_is_refused(detector, tmp_path):
    to_artifact(detector).save(tmp_path / "model")
    again = from_artifact(TrainedModel.load(tmp_path / "model"))
    half = scan(7)
    data = half.data.copy()
    data[..., 11:] = 0
    for each in (detector, again):
        with pytest.raises(OutOfDistribution, match="share of the healthy scans' anatomy"):
            each.score_scan(half.with_data(data))
    artifact = to_artifact(detector)
    meta = {name: value for name, value in artifact.meta.items() if name != "gate"}
    with pytest.raises(ArtifactError, match="'gate' is missing"):
        from_artifact(TrainedModel(artifact.models, RECIPE, None, artifact.arrays, meta))
    ungated = replace(detector, gate=None)
    assert from_artifact(to_artifact(ungated)).gate is None
    assert ungated.score_scan(half.with_data(data)).p_values["max"] < 1


def test_a_calibration_of_an_earlier_version_is_refused(detector):
    artifact = to_artifact(detector)
    old = {key: value for key, value in artifact.meta["calibration"].items() if key != "measured_on"}
    arrays = {name: values for name, values in artifact.arrays.items() if "candidates" not in name}
    with pytest.raises(
        ArtifactError, match=r"no candidates of healthy scans.*repeat `medgen anomaly run` with --resume"
    ):
        from_artifact(TrainedModel(artifact.models, RECIPE, None, arrays, artifact.meta))
    with pytest.raises(ArtifactError, match=r"^runs/model: .*earlier version; run `medgen anomaly run` again"):
        from_artifact(
            TrainedModel(artifact.models, RECIPE, None, artifact.arrays, {**artifact.meta, "calibration": old}),
            "runs/model",
        )


def test_a_scan_that_cannot_be_prepared_is_abstained_on(detector):
    empty = scan(7)
    with pytest.raises(OutOfDistribution, match="one constant value"):
        detector.score_scan(empty.with_data(np.zeros_like(empty.data)))


def test_several_scans_of_a_subject_count_once():
    data = dataset()
    subjects = tuple(f"subject-{number // 2}" for number in range(len(data)))
    paired = Dataset(data.ids, subjects, data.images, data.foregrounds, prepared=data.prepared)
    halves = [data.ids[:6], data.ids[6:]]
    config = CONFIG.model_copy(update={"calibration": CONFIG.calibration.model_copy(update={"target_fpr": 0.2})})
    fitted = AnomalyDetector.fit(paired, halves, models(), config, RECIPE, voxel_scores=())
    assert len(fitted.calibration.maxima) == 6
    assert fitted.calibration.folds.tolist() == [0, 0, 0, 1, 1, 1]
    assert fitted.calibration.healthy.n == 6
    assert fitted.calibration.healthy.subject.tolist() == [number // 2 for number in range(12)]


def test_what_a_cohort_cannot_support_is_refused():
    data = dataset(4)
    with pytest.raises(CalibrationError, match=r"10 % needs at least 9 healthy scans.*found 4"):
        AnomalyDetector.fit(data, folds(data), models(), CONFIG, RECIPE)
    wide = CONFIG.model_copy(update={"calibration": CONFIG.calibration.model_copy(update={"target_fpr": 0.5})})
    few = wide.model_copy(update={"findings": wide.findings.model_copy(update={"false_findings": 0.1})})
    with pytest.raises(CalibrationError, match=r"0\.1 expected false findings .* at least 9 .*found 4"):
        AnomalyDetector.fit(data, folds(data), models(), few, RECIPE)
    with pytest.raises(DataError, match="exactly once"):
        AnomalyDetector.fit(data, [data.ids[:2], data.ids[:2]], models(), wide, RECIPE)
    with pytest.raises(ConfigError, match="needs 10 development subjects"):
        wide.model_copy(update={"folds": 5}).check_subjects(4)
    broken = parse_config(AnomalyConfig, {"fusion": {"channels": ["iwae"]}}, source="test")
    with pytest.raises(ConfigError, match="scores whole scans"):
        broken.check_subjects(50)
    unknown = parse_config(AnomalyConfig, {"fusion": {"channels": ["pcaa"]}}, source="test")
    with pytest.raises(ConfigError, match=r"anomaly\.fusion\.channels: 'pcaa' is no score; choose some of .*pca"):
        unknown.check_subjects(50)


def test_a_scan_outside_the_scored_region_is_refused(detector):
    image = torch.zeros(1, *SHAPE)
    with pytest.raises(DataError, match="no part of the scan lies where"):
        detector.measure(image, torch.zeros(1, *SHAPE, dtype=torch.bool))


def test_a_scan_score_that_decides_is_computed_however_slow_it_is():
    data = dataset()
    settings = {"scan_score": "regret", "restoration_steps": 2}
    fitted = AnomalyDetector.fit(data, folds(data), models(), CONFIG.model_copy(update=settings), RECIPE)
    result = fitted.score_scan(scan(100, blob=True))
    assert result.scan_score == "regret"
    assert 0 < result.p_values["regret"] <= 1
    for name in ("sideways", "pca"):
        with pytest.raises(ConfigError, match=name):
            CONFIG.model_copy(update={"scan_score": name}).check_subjects(40)


def test_the_lean_detector_gives_the_same_heat(detector):
    data = dataset(2)
    whole, lean = (own.measure(data.images[0], data.foregrounds[0]) for own in (detector, detector.lean))
    np.testing.assert_array_equal(whole.heat, lean.heat)
    assert set(lean.raw) == set(detector.config.fusion.channels)
    assert set(whole.raw) > set(lean.raw)
    assert "iwae" in whole.model_scores
    assert "iwae" not in lean.model_scores
