"""Training from disk: the same batches and losses as from memory, whole files or none, bounded memory."""

import dataclasses
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch

from medgen.data.simulation import simulate
from medgen.errors import DataError
from medgen.models.catalogue import build
from medgen.preprocessing.cache import cached_dataset as module
from medgen.preprocessing.cache.cached_dataset import cached_dataset
from medgen.preprocessing.cache.folder import CacheFolder, recipe_key, scan_key
from medgen.preprocessing.cache.scan_file import SUFFIX, open_scan
from medgen.preprocessing.dataset import prepare_dataset
from medgen.preprocessing.recipe import Preprocess
from medgen.training.trainer import TrainingConfig, fit
from medgen.transforms.augmentation_config import AugmentConfig

RECIPE = Preprocess(shape=(16, 24, 16), spacing=(12.0, 9.0, 12.0))
MODEL = {"family": "vae", "shape": RECIPE.shape, "widths": [16], "latent": 4, "codes": [[2, 4]]}
TRAINING = TrainingConfig(steps=4, batch_size=2, precision="32", log_every=1, augment=AugmentConfig())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("cohort") / "sim", 5, seed=0, spacing=8.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return CacheFolder(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def cached(manifest, folder):
    return cached_dataset(manifest, RECIPE, folder)[0]


@pytest.fixture(scope="module")
def rounded(manifest):
    """The same cohort in memory, its images rounded in the same way."""
    data = prepare_dataset(manifest, RECIPE)[0]
    return dataclasses.replace(data, images=data.images.half().float(), prepared=())


def losses(data, **options):
    fitted = fit(build(MODEL, seed=0), data, TRAINING, seed=1, device="cpu", **options)
    return [record["loss"] for record in fitted.history], fitted.model.state_dict()


def same_batch(one, other):
    for name in ("image", "foreground", "labels"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_batches_are_those_of_memory(cached, rounded):
    assert (cached.ids, cached.subjects, cached.shape) == (rounded.ids, rounded.subjects, rounded.shape)
    assert (cached.channels, cached.highest_label) == (rounded.channels, rounded.highest_label) == (1, 3)
    for rows in ([0], [3, 1], [4, 4, 0]):
        same_batch(cached.batch(rows, 0.5), rounded.batch(rows, 0.5))
    names = [cached.ids[2], cached.ids[0]]
    same_batch(cached.subset(names).batch([0, 1]), rounded.subset(names).batch([0, 1]))


def test_expected_batches_are_the_same_whatever_is_drawn(cached, rounded):
    cached.expect([[0, 1], [2]])
    same_batch(cached.batch([0, 1]), rounded.batch([0, 1]))
    same_batch(cached.batch([3]), rounded.batch([3]))
    cached.expect([[4]])
    same_batch(cached.batch([2]), rounded.batch([2]))
    same_batch(cached.batch([4]), rounded.batch([4]))


def test_losses_and_weights_are_bit_equal_to_those_from_memory(cached, rounded):
    one, other = losses(cached), losses(rounded)
    assert one[0] == other[0]
    assert all(torch.equal(one[1][name], other[1][name]) for name in other[1])


def test_losses_differ_by_rounding_of_images_only(cached, manifest):
    exact = prepare_dataset(manifest, RECIPE)[0]
    np.testing.assert_allclose(losses(cached)[0], losses(exact)[0], rtol=2e-2)


def test_a_model_is_fitted_to_as_many_scans_as_memory_is_kept_for(cached, rounded, monkeypatch):
    whole = cached.sample()
    assert whole.ids == rounded.ids
    assert torch.equal(whole.images, rounded.images)
    assert whole.prepared[1].grid.same_as(prepare_record(cached, 1).grid)
    monkeypatch.setattr(module, "FEWEST", 2)
    few = cached.sample(limit=1)
    assert len(few) == 2
    assert {*few.ids} < {*cached.ids}
    assert few.ids == cached.sample(limit=1).ids


def prepare_record(cached, row):
    return cached.load([row]).prepared[0]


def test_records_lead_back_to_the_scan(cached, manifest):
    exact = prepare_dataset(manifest, RECIPE)[0]
    one, other = cached.load([2]).prepared[0], exact.prepared[2]
    assert one.grid.same_as(other.grid, 1e-9)
    assert one.native.same_as(other.native, 1e-9)
    assert (one.scale, one.quality, one.steps) == (other.scale, other.quality, other.steps)
    assert one.attributes == other.attributes


def test_nothing_is_prepared_twice(manifest, folder, cached, monkeypatch):
    monkeypatch.setattr(module, "prepared_case", lambda *_: pytest.fail("prepared again"))
    again, failures = cached_dataset(manifest, RECIPE, folder)
    assert not failures
    assert again.digest() == cached.digest()


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[:-5]
    elif how == "empty":
        content = bytearray()
    elif how == "other":
        content = bytearray(b"no arrays at all" * 20)
    elif how == "voxel":
        content[-200] ^= 1
    else:
        place = content.index(b'\\"scale\\"')
        content[place + 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "empty", "other", "voxel", "words"])
def test_damaged_files_are_made_anew(manifest, tmp_path, how):
    folder = CacheFolder(tmp_path)
    first = cached_dataset(manifest, RECIPE, folder)[0]
    damage(first.files[1].path, how)
    assert open_scan(first.files[1].path, scan_key(manifest.cases[1], recipe_key(RECIPE, None))) is None
    again = cached_dataset(manifest, RECIPE, folder)[0]
    assert again.digest() == first.digest()
    same_batch(again.batch([1]), first.batch([1]))


def test_other_bytes_or_another_recipe_are_another_scan(manifest):
    key = recipe_key(RECIPE, None)
    case = manifest.cases[0]
    known = scan_key(case, key)
    assert known == scan_key(dataclasses.replace(case, id="x", subject="y"), key)
    assert known != scan_key(dataclasses.replace(case, images=manifest.cases[1].images), key)
    assert known != scan_key(dataclasses.replace(case, mask=None), key)
    assert known != scan_key(dataclasses.replace(case, relabel={1: 2}), key)
    assert key != recipe_key(RECIPE.model_copy(update={"percentiles": (2.0, 98.0)}), None)


def test_a_scan_that_cannot_be_read_is_left_out(manifest, folder, tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    broken = dataclasses.replace(manifest.cases[0], id="broken", images=(bad,), mask=None)
    several = dataclasses.replace(manifest, cases=(broken, *manifest.cases))
    data, failures = cached_dataset(several, RECIPE, folder)
    assert [failure.case for failure in failures] == ["broken"]
    assert len(data) == len(manifest.cases)
    with pytest.raises(DataError, match="none of 1 cases"):
        cached_dataset(dataclasses.replace(manifest, cases=(broken,)), RECIPE, folder)


def test_the_limit_spares_what_was_used_today(manifest, tmp_path):
    folder = CacheFolder(tmp_path, limit=60_000)
    with pytest.raises(DataError, match=r"raise cache\.gib"):
        cached_dataset(manifest, RECIPE, folder)
    old = sorted(tmp_path.glob(f"*/*{SUFFIX}"))
    assert old
    for path in old:
        os.utime(path, (1, 1))
    folder.make_room(50_000)
    assert len(list(tmp_path.glob(f"*/*{SUFFIX}"))) < len(old)


def test_clearing_leaves_nothing(manifest, tmp_path):
    folder = CacheFolder(tmp_path)
    data = cached_dataset(manifest, RECIPE, folder)[0]
    left = data.files[0].path.with_name(f".tmp-x{SUFFIX}")
    left.write_bytes(b"")
    os.utime(left, (1, 1))
    assert folder.clear() == len(data)
    assert not list(tmp_path.glob(f"*/*{SUFFIX}"))
    with pytest.raises(DataError, match="run again"):
        data.batch([0])


def test_two_that_prepare_at_once_agree(manifest, tmp_path):
    found = []

    def prepare():
        found.append(cached_dataset(manifest, RECIPE, CacheFolder(tmp_path))[0].digest())

    threads = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len({*found}) == 1
    assert len(list(tmp_path.glob(f"*/*{SUFFIX}"))) == len(manifest.cases)


def test_memory_does_not_grow_with_the_cohort(tmp_path):
    # In a process of its own: 24 scans of 96³ are 85 MB as float32, of which no more than a few batches may be held.
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import numpy as np, torch
        from medgen.preprocessing.cache.cached_dataset import CachedDataset
        from medgen.preprocessing.cache.scan_file import SUFFIX, open_scan, write_scan
        from medgen.preprocessing.prepared import PreparedScan
        from medgen.volume import Grid
        torch.set_num_threads(1)
        def anonymous():
            text = Path("/proc/self/status").read_text()
            return int(text.split("RssAnon:")[1].split()[0]) / 1024
        grid, files = Grid((96, 96, 96), np.eye(4)), []
        for n in range(24):
            image = np.full((1, 96, 96, 96), n / 24, np.float32)
            made = PreparedScan(image, image[0] >= 0, grid, grid, ((0.0, 1.0),))
            path = Path(sys.argv[1]) / f"{n}{SUFFIX}"
            write_scan(path, made, None, str(n))
            files.append(open_scan(path, str(n)))
        names = tuple(map(str, range(24)))
        data = CachedDataset(names, names, tuple(files))
        # The reading thread gets its own piece of memory from the C library with what it reads first.
        for step in range(6):
            data.batch([step])
            data.expect([[step + 1]])
        before, most = anonymous(), 0.0
        for step in range(48):
            batch = data.batch([step % 24])
            assert float(batch.image.mean()) == torch.tensor(step % 24 / 24).half().float().item()
            data.expect([[(step + 1) % 24]])
            most = max(most, anonymous() - before)
        print(most)
    """)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, env=environment
    )
    assert float(done.stdout) < 30
