from __future__ import annotations

import html

import numpy as np
import pytest
import torch
from scipy import stats

from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.evaluation.contamination import robust_z, suspects
from medgen.config import parse_config
from medgen.errors import DataError
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.report.anomaly.gate import contamination_section
from medgen.report.anomaly.pictures import suspect_picture
from medgen.report.html import Report
from medgen.volume import Grid, Volume

SHAPE = (14, 16, 14)
RECIPE = Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0))
CONFIG = parse_config(
    AnomalyConfig,
    {"folds": 2, "likelihood_samples": 2, "calibration": {"target_fpr": 0.1}, "fusion": {"channels": ["pca", "blur"]}},
    source="test",
)
GRID = Grid(SHAPE, np.array([[2, 0, 0, -13], [0, 2, 0, -15], [0, 0, 2, -13], [0, 0, 0, 1.0]]))
LESION = (slice(8, 10), slice(5, 7), slice(6, 8))


def scan(seed, lesion=False):
    rng = np.random.default_rng(seed)
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij"))
    data = 100 + 30 * np.cos(3 * x[0]) + 20 * x[1] + 5 * rng.normal(size=SHAPE)
    if lesion:
        data[LESION] += 90
    return Volume(np.where((x**2).sum(0) < 0.9, data, 0)[None].astype(np.float32), GRID)


def cohort():
    """Twelve scans of eleven subjects; the second scan of subject ``s3`` has a lesion."""
    prepared = tuple(RECIPE.apply(scan(seed, lesion=seed == 11)) for seed in range(12))
    ids = tuple(f"c{n}" for n in range(12))
    subjects = (*(f"s{n}" for n in range(11)), "s3")
    images = torch.from_numpy(np.stack([item.image for item in prepared]))
    foregrounds = torch.from_numpy(np.stack([item.foreground for item in prepared]))[:, None]
    return Dataset(ids, subjects, images, foregrounds, prepared=prepared)


@pytest.fixture(scope="module")
def fitted():
    data = cohort()
    settings = {"family": "vae", "shape": SHAPE, "widths": (16,), "latent": 4, "codes": ((2, 2),)}
    models = [[build(settings, seed=number).eval()] for number in range(2)]
    held = [[i for i, s in zip(data.ids, data.subjects, strict=True) if int(s[1:]) % 2 == fold] for fold in range(2)]
    return AnomalyDetector.fit(data, held, models, CONFIG, RECIPE, voxel_scores=()), data


def test_robust_z_is_that_of_median_and_mad():
    values = np.random.default_rng(0).normal(size=31)
    mad = stats.median_abs_deviation(values)
    np.testing.assert_allclose(robust_z(values), 0.6745 * (values - np.median(values)) / mad)
    assert robust_z([1.0, 1.0, 1.0, 2.0]).tolist() == [0, 0, 0, np.inf]


def test_the_one_scan_with_a_lesion_is_named_with_its_place(fitted):
    detector, data = fitted
    found = suspects(detector, data)
    assert [(item.case, item.subject) for item in found] == [("c11", "s3")]
    item = found[0]
    subject = list(dict.fromkeys(data.subjects)).index("s3")
    assert item.score == pytest.approx(detector.calibration.scores[item.scan_score][subject], rel=1e-4)
    assert item.robust_z > 3.5
    voxel = GRID.to_voxel(item.peak_ras)
    assert (np.abs(voxel - [8.5, 5.5, 6.5]) <= 1.6).all()
    assert item.row()["case"] == "c11"


def test_another_data_set_is_refused(fitted):
    detector, data = fitted
    with pytest.raises(DataError, match="11 prepared subjects"):
        suspects(detector, data.subset(data.ids[:5]))


def test_the_report_shows_the_scan_and_how_to_leave_it_out(fitted, tmp_path):
    detector, data = fitted
    drawn = []

    def draw(case, result):
        drawn.append(case)
        return suspect_picture(case, result)

    found = suspects(detector, data, draw)
    assert drawn == ["c3", "c11"]
    assert [item.picture[:4] for item in found] == [b"\x89PNG"]
    report = Report("Suspects", "", "")
    contamination_section(report, found)
    report.write(tmp_path / "report.html")
    page = html.unescape((tmp_path / "report.html").read_text())
    assert page.count("data:image/png;base64,") == 1
    assert """'exclude=["c11"]' --resume""" in page
