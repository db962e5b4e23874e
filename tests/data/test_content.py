import numpy as np
import pytest

from medgen import io
from medgen.data.content import is_stripped_copy, looks_like_labels, traits
from medgen.volume import Volume
from tests.builders.cohort_folders import GRID, SHAPE, brain, labels, scan


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def volume(data):
    return Volume(np.asarray(data)[None], GRID)


def test_label_maps(tmp_path, rng):
    labels(tmp_path / "m.nii.gz")
    mask = io.read(tmp_path / "m.nii.gz")
    assert looks_like_labels(mask)
    assert looks_like_labels(mask.with_data(mask.data.astype(np.float32)))
    assert looks_like_labels(mask.with_data(mask.data.astype(np.int32) * 2035))
    assert looks_like_labels(mask.with_data(np.zeros_like(mask.data)))


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32])
def test_label_maps_with_negative_numbers(tmp_path, kind):
    labels(tmp_path / "m.nii.gz")
    mask = io.read(tmp_path / "m.nii.gz")
    data = mask.data.astype(kind)
    assert looks_like_labels(mask.with_data(data - kind(1)))
    assert looks_like_labels(mask.with_data(np.where(data == 2, kind(-1), data)))
    assert looks_like_labels(mask.with_data(np.where(data == 0, kind(-1000), data)))


def test_scans_are_no_label_maps(rng):
    noise = rng.normal(100, 20, SHAPE)
    assert not looks_like_labels(volume(noise.astype(np.float32)))
    assert not looks_like_labels(volume(noise.astype(np.uint8)))
    assert not looks_like_labels(volume((noise / 20).astype(np.uint8)))
    assert not looks_like_labels(volume(noise.astype(np.int16) - 1000))
    assert not looks_like_labels(volume(np.full(SHAPE, 7, np.uint8)))
    assert not looks_like_labels(Volume(np.zeros((2, *SHAPE), np.uint8), GRID))


def test_copies_without_skull(tmp_path, rng):
    whole = scan(tmp_path / "a.nii.gz")
    brain(tmp_path / "b.nii.gz", whole)
    one, other = (traits(io.read(tmp_path / name)) for name in ("a.nii.gz", "b.nii.gz"))
    assert is_stripped_copy(other, one)
    assert not is_stripped_copy(one, other)
    assert not is_stripped_copy(one, one)
    assert not is_stripped_copy(other, traits(volume(rng.normal(100, 20, SHAPE).astype(np.float32))))
