import numpy as np
import pytest

from medgen import io
from medgen.data.content import is_copy, looks_like_labels, perhaps_copies, stripped_to, traits
from medgen.volume import Grid, Volume
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
    assert stripped_to(other, one) == 0
    assert stripped_to(one, other) is None
    assert stripped_to(one, one) is None
    assert stripped_to(other, traits(volume(rng.normal(100, 20, SHAPE).astype(np.float32)))) is None


FLIPPED = Grid(SHAPE, GRID.affine @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
TURNED = Grid((SHAPE[2], SHAPE[0], SHAPE[1]), GRID.affine[:, [2, 0, 1, 3]])
STORED = {
    "as it is": volume,
    "from another corner": lambda data: Volume(data[None, ::-1], FLIPPED),
    "along other axes": lambda data: Volume(data.transpose(2, 0, 1)[None], TURNED),
}


@pytest.mark.parametrize("way", STORED)
@pytest.mark.parametrize("change", [lambda d: d, lambda d: d.round().astype(np.int16), lambda d: 3 * d + 1])
@pytest.mark.parametrize("around", [-1, 0, -1024])
def test_copies_in_every_way_to_store_them(rng, way, change, around):
    data = rng.normal(100, 20, SHAPE).astype(np.float32)
    brain = np.full_like(data, around)
    brain[3:-3, 3:-3, 2:-2] = data[3:-3, 3:-3, 2:-2]
    one, copy, other = traits(volume(data)), traits(STORED[way](change(data))), rng.normal(100, 20, SHAPE)
    assert is_copy(copy, one)
    assert is_copy(one, copy)
    stripped = traits(STORED[way](change(brain)))
    assert stripped_to(stripped, one) == change(np.array([around], np.float32))[0]
    assert not is_copy(stripped, one)
    assert stripped_to(copy, one) is None
    assert stripped_to(one, copy) is None
    assert set(perhaps_copies([one, copy, traits(volume(other)), stripped])) >= {(1, 0), (0, 1), (3, 0), (3, 1)}


@pytest.mark.parametrize("kept", [0.9, 0.04])
def test_every_copy_in_a_cohort_is_looked_at(rng, kept):
    """Against a comparison of all pairs; of 0.04 of a volume too little lies at the places that are common to all."""
    shape, seen = (24, 24, 24), []
    inside = np.linalg.norm(np.indices(shape).reshape(3, -1).T - 11.5, axis=1)
    inside = (inside <= np.quantile(inside, kept)).reshape(shape)
    for number in range(12):
        data = rng.normal(100, 20, shape) * rng.uniform(0.1, 10) + rng.choice([0, 1e4])
        seen.append(data)
        if number % 3 == 0:
            seen += [-2 * data + 7, 0.5 * data + 3, np.where(inside, data, 0), np.where(inside, data.round(), -1024)]
    scans = [traits(Volume(data[None].astype(np.float32), Grid(shape, np.eye(4)))) for data in seen]

    def copied(copy, whole):
        return is_copy(scans[copy], scans[whole]) or stripped_to(scans[copy], scans[whole]) is not None

    everyone = range(len(scans))
    expected = {(copy, whole) for copy in everyone for whole in everyone if copy != whole and copied(copy, whole)}
    pairs = perhaps_copies(scans)
    assert pairs == sorted(set(pairs))
    assert {pair for pair in pairs if copied(*pair)} == expected
    # Four originals and their copies: the same again, emptied twice.
    assert len(expected) >= 4 * 2
    assert len(pairs) < len(scans) * 6


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_scans_of_one_person_are_no_copies(rng, noise):
    """A rescan that lies on the same grid, voxel for voxel, with 1 or 3 percent of noise."""
    tissue = np.repeat(rng.normal(100, 20, (SHAPE[0] // 2, SHAPE[1], SHAPE[2])), 2, axis=0)
    first, second = (traits(volume(tissue + rng.normal(0, noise, SHAPE))) for _ in range(2))
    assert not is_copy(first, second)
    rounded = [traits(volume((tissue + rng.normal(0, noise, SHAPE)).round().astype(np.int16))) for _ in range(2)]
    assert not is_copy(*rounded)
    assert not is_copy(first, rounded[0])


def test_real_rescans_are_no_copies(shared_data):
    """OASIS holds rescans; on one grid they lie as scanners put them."""
    first, second = (io.read(shared_data / "oasis" / f"{name}_T1w.nii.gz") for name in ("1018", "1038"))
    one, other = traits(first), traits(second.resample(first.grid))
    assert not is_copy(one, other)
    assert stripped_to(one, other) is None
    assert stripped_to(other, one) is None
    assert is_copy(one, traits(first.with_data((first.data / 7).astype(np.float32))))
