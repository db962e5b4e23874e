from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from medgen.anomaly.findings.appearance import HealthyAppearance, lean, most_unusual, unusual_words
from medgen.preprocessing.dataset import Dataset

SHAPE = (18, 18, 18)
SUPPORT = np.ones(SHAPE, dtype=bool)
SPOT = (slice(6, 12),) * 3


def healthy(n=12, channels=1):
    """A ramp of intensities with fine texture."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, SHAPE[0])[:, None, None]
    images = ramp + 0.1 * rng.normal(size=(n, channels, *SHAPE))
    ids = tuple(map(str, range(n)))
    return Dataset(ids, ids, torch.from_numpy(images.astype(np.float32)), torch.ones(n, 1, *SHAPE) > 0)


def seen(change, channels=1):
    data = healthy(channels=channels)
    image = data.images[0].numpy().copy()
    image[0][SPOT] = change(image[0][SPOT])
    maps = HealthyAppearance.fit(data.subset(data.ids[1:]), SUPPORT).maps(image, SUPPORT)
    return {aspect: tuple(float(channel[SPOT].mean()) for channel in values) for aspect, values in maps.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda part: part, "usual in brightness and detail"),
        (lambda part: part + 0.3, "brighter (+"),
        (lambda part: part - 0.3, "darker (-"),
        (lambda part: ndimage.gaussian_filter(part, 2), "smoother (-"),
        (lambda part: part + 0.3 * np.random.default_rng(1).normal(size=part.shape), "rougher (+"),
    ],
)
def test_what_was_changed_is_what_is_named(change, words):
    assert unusual_words(**seen(change)).startswith(words)


def test_a_difference_is_in_standard_deviations_of_the_healthy_scans_at_that_place():
    assert seen(lambda part: part + 0.2)["brightness"][0] == pytest.approx(2, abs=0.3)


def test_the_contrasts_that_differ_are_named_where_there_are_several():
    found = seen(lambda part: part - 0.3, channels=2)
    assert len(found["brightness"]) == 2
    assert unusual_words(**found, contrasts=("T1", "FLAIR")).startswith("darker in T1 (-")
    assert "FLAIR" not in unusual_words(**found, contrasts=("T1", "FLAIR"))
    assert most_unusual(**found) == 0
    assert most_unusual(**{aspect: values[::-1] for aspect, values in found.items()}) == 1
    assert most_unusual(**seen(lambda part: part, channels=2)) is None


def test_rough_edges_are_told_only_of_contrasts_of_usual_brightness():
    """A bright lesion of FLAIR has rough edges there; that T1 is rough is news."""
    words = unusual_words((0.2, 4.0), (2.0, 3.0), ("T1", "FLAIR"))
    assert words == "brighter in FLAIR (+4.0 sd), rougher in T1 (+2.0 sd)"


def test_it_is_kept_as_plain_arrays_inside_the_support():
    support = SUPPORT.copy()
    support[:4] = False
    fitted = HealthyAppearance.fit(healthy(channels=2), support)
    arrays = fitted.to_arrays(support)
    assert {array.shape for array in arrays.values()} == {(2, support.sum())}
    again = HealthyAppearance.from_arrays(arrays, support)
    image = healthy(channels=2).images[3].numpy()
    for aspect, values in fitted.maps(image, support).items():
        np.testing.assert_array_equal(again.maps(image, support)[aspect], values)
        assert not values[:, :4].any()


def test_a_lesion_in_a_third_of_what_is_outlined_gives_the_word() -> None:
    around = np.random.default_rng(0).normal(0, 1, 200)
    for shift, word in ((-5.0, "darker"), (5.0, "brighter")):
        value = lean(np.concatenate([around, np.random.default_rng(1).normal(shift, 1, 100)]))
        assert unusual_words((value,), (3.0,)).startswith(word)
    assert unusual_words((lean(around),), (0.0,)) == "usual in brightness and detail"
