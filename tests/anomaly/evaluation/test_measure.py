from __future__ import annotations

import numpy as np
import pytest
import torch

from medgen import io
from medgen.anomaly.evaluation.measure import HEALTHY, EvaluationConfig, Measurement, scans_to_test
from medgen.anomaly.evaluation.summary import summarise
from medgen.config import parse_config
from medgen.errors import ConfigError, DataError
from medgen.preprocessing.dataset import Dataset
from medgen.system.files import plain
from medgen.volume import Grid, Volume

SHAPE = (20, 20, 20)


def dataset(n, seed=0):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(1, 0.2, size=(n, 2, *SHAPE)).astype(np.float32))
    ids = tuple(f"case-{seed}-{number}" for number in range(n))
    return Dataset(
        ids, tuple(name[:-1] + str(int(name[-1]) // 2) for name in ids), images, torch.ones(n, 1, *SHAPE) > 0
    )


def scans(config, test=None, seed=0):
    return list(scans_to_test(test or dataset(4), dataset(3, seed=1), (1.0, 1.0, 1.0), config, seed))


CONFIG = EvaluationConfig(kinds=("hyperintense", "foreign", "shift"), per_scan=3, radius_mm=(3.0, 5.0))


def test_every_scan_is_followed_by_its_copies_and_all_kinds_take_turns():
    found = scans(CONFIG)
    assert len(found) == 4 * 4
    assert [scan.kind for scan in found[:4]] == [HEALTHY, "hyperintense", "foreign", "shift"]
    assert len({scan.name for scan in found}) == len(found)
    assert {(scan.kind, scan.contrast) for scan in found if scan.kind != HEALTHY} == {
        (kind, contrast) for kind in CONFIG.kinds for contrast in CONFIG.contrasts
    }


def test_implants_change_the_truth_only_and_healthy_scans_not_at_all():
    original = dataset(4)
    for scan in scans(CONFIG):
        before = original.images[original.ids.index(scan.case)]
        changed = (scan.image != before).any(dim=0).numpy()
        assert not (changed & ~scan.truth).any()
        assert scan.truth.any() == (scan.kind != HEALTHY)
        if scan.kind == HEALTHY:
            assert torch.equal(scan.image, before)


def test_copies_do_not_depend_on_the_other_scans():
    test = dataset(4)
    alone = scans(CONFIG, test.subset(test.ids[:1]))
    for first, second in zip(alone, scans(CONFIG, test), strict=False):
        assert first.name == second.name
        assert torch.equal(first.image, second.image)
    other = scans(CONFIG, seed=1)
    assert not torch.equal(alone[1].image, other[1].image)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kinds": ["lesion"]}, "no lesion masks"),
        ({"radius_mm": [5, 1e9]}, "up to 200"),
        ({"kinds": ["blur"], "masks": "lesions"}, "no kind takes its form"),
        ({"kinds": []}, "found none"),
        ({"radius_mm": [5, 2]}, "smallest, largest"),
        ({"contrasts": [0.0]}, "contrasts above 0"),
    ],
)
def test_unusable_settings_are_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(EvaluationConfig, data, source="test")


def masks(folder, *names):
    """Lesion masks: a thick rod along one axis; and a template, which is none."""
    grid = Grid((12, 12, 12), np.eye(4))
    rod = np.zeros((1, 12, 12, 12), dtype=np.uint8)
    rod[0, 1:11, 5:8, 5:8] = 1
    for name in names:
        io.write(Volume(rod if name != "ch2" else np.ones_like(rod), grid), folder / f"{name}.nii.gz")
    return folder


def test_lesions_take_the_form_of_masks_and_templates_among_them_are_passed_over(tmp_path):
    folder = masks(tmp_path, "ch2", "rod")
    config = EvaluationConfig(kinds=("lesion",), per_scan=3, radius_mm=(4.0, 4.0), masks=folder)
    config.check_masks()
    found = [scan for scan in scans(config) if scan.kind == "lesion"]
    assert len(found) == 12
    for scan in found:
        size = np.ptp(np.argwhere(scan.truth), axis=0) + 1
        # Three times as long as wide along the first axis; a blob of the same volume is about as wide as long.
        assert size[0] >= 1.7 * size[1:].max() or size[0] == SHAPE[0]


def test_the_other_kinds_do_not_change_when_lesions_are_added(tmp_path):
    config = EvaluationConfig(
        kinds=("hyperintense", "lesion", "shift"), per_scan=3, radius_mm=(3.0, 5.0), masks=masks(tmp_path, "rod")
    )
    plain = EvaluationConfig(kinds=("hyperintense", "foreign", "shift"), per_scan=3, radius_mm=(3.0, 5.0))
    for first, second in zip(scans(config), scans(plain), strict=True):
        assert (first.kind == "lesion") == (second.kind == "foreign")
        assert torch.equal(first.image, second.image) or first.kind == "lesion"


def test_a_folder_without_masks_is_refused_before_anything_is_trained(tmp_path):
    config = EvaluationConfig(kinds=("lesion",), masks=masks(tmp_path, "ch2"))
    with pytest.raises(DataError, match="none of 1 images is a lesion mask"):
        config.check_masks()
    with pytest.raises(DataError, match="no such folder"):
        EvaluationConfig(kinds=("lesion",), masks=tmp_path / "nowhere").check_masks()


def measurements(strength, n=8, seed=0):
    """Scans whose "good" score raises the truth by ``strength``, and whose "noise" score does not."""
    rng = np.random.default_rng(seed)
    region = np.ones((10, 10, 10), dtype=bool)
    result = []
    for number in range(n):
        for kind in (HEALTHY, "blob", "shift"):
            truth = np.zeros(1000, dtype=bool)
            if kind != HEALTHY:
                truth[rng.integers(900) :][:40] = True
            good = rng.normal(size=1000) + strength * truth
            rows = {"fused": good, "zscore (raw)": rng.normal(size=1000), "zscore (z)": rng.normal(size=1000)}
            top = float(np.sort(good)[-5:].mean())
            result.append(
                Measurement(
                    case=f"case-{number}",
                    subject=f"subject-{number // 2}",
                    kind=kind,
                    radius_mm=1.0,
                    contrast=1.0,
                    region=region,
                    truth=truth,
                    rows={name: values.astype(np.float16) for name, values in rows.items()},
                    scores={"top": top},
                    p_values={"top": 0.01 if top > 3.5 else 0.5},
                    hottest_in_truth=float(good[truth].max(initial=-np.inf)),
                    own_grid=(int((good > 4).sum()), int(truth.sum()), int((truth & (good > 4)).sum())),
                    expected_false=np.array([0.1]),
                    hits=np.array([kind == "blob"]),
                )
            )
    return result


def test_a_good_score_wins_and_a_useless_one_is_at_chance():
    summary = summarise(measurements(4.0), 0.05, 0.5, bootstrap=200, seed=0)
    assert summary.subjects == 4
    assert (summary.healthy, summary.implanted) == (8, 16)
    assert summary.prevalence == pytest.approx(0.04)
    assert summary.fused.ap.estimate > 0.5
    assert summary.best_raw == "zscore (raw)"
    assert summary.row("zscore (raw)").ap.estimate == pytest.approx(0.04, abs=0.03)
    assert summary.gain_raw.low > 0
    assert set(summary.fused.by_kind) == {"blob", "shift"}
    assert summary.scan[0].auroc.estimate > 0.9
    lift = summary.fused.ap.estimate / summary.prevalence
    assert lift > 10
    # Masks of a few neighbouring voxels overlap by chance, so chance is only roughly 1 here.
    assert summary.controls["zero amplitude"].estimate < 3
    assert summary.controls["permuted masks"].estimate < 3
    assert (summary.findings.operating.found, summary.implanted) == (8, 16)
    told = plain(summary)
    assert told["gain_raw"]["low"] == summary.gain_raw.low
    assert told["voxel"][0]["name"] == "fused"


def test_no_difference_is_reported_as_none():
    summary = summarise(measurements(0.0), 0.05, 0.5, bootstrap=200, seed=0)
    assert summary.gain_raw.low < 0.02
    assert summary.fused.auroc.estimate == pytest.approx(0.5, abs=0.05)
