"""Every registered score keeps the same promises; a new score is picked up by itself."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from medgen.anomaly.channel_choice import default_channels
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.ensemble import check_scores
from medgen.anomaly.scores import catalogue
from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import registered
from medgen.errors import ConfigError
from medgen.models.base import HasVoxelMaps, Reconstructs, VoxelMap
from medgen.models.catalogue import available, build, family_class
from medgen.preprocessing.dataset import Dataset
from medgen.system.precision import bf16_works
from medgen.training.trainer import TrainingConfig, fit

SHAPE = (16, 20, 16)
# On one side only: a symmetric blob has no left-right difference.
BLOB = (slice(9, 13), slice(8, 12), slice(5, 9))


def healthy(n=8, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij"))
    mask = (grid**2).sum(0) < 0.9
    pattern = 0.5 + 0.15 * np.cos(3 * grid[0] ** 2) + 0.1 * grid[1]
    images = pattern + 0.03 * rng.normal(size=(n, *SHAPE)) + 0.03 * rng.normal(size=(n, 1, 1, 1))
    foregrounds = torch.from_numpy(np.broadcast_to(mask, (n, *SHAPE)).copy())[:, None]
    ids = tuple(f"case-{number}" for number in range(n))
    labels = foregrounds.to(torch.uint8) * torch.from_numpy(1 + (grid[1] > 0)).to(torch.uint8)
    return Dataset(ids, ids, torch.from_numpy(images).float()[:, None] * foregrounds, foregrounds, labels)


@functools.cache
def trained(family):
    """A tiny model trained for a moment: one that starts at random would find a blob by luck alone."""
    model = build({"family": family, "shape": SHAPE, "in_channels": 1, **family_class(family).tiny}, seed=0)
    config = TrainingConfig(steps=60, batch_size=4, lr=3e-3, precision="32", ema=0.9)
    return fit(model, healthy(), config, seed=0, device="cpu").model.eval()


def families_for(name):
    """The families that offer what a score needs; no family for scores that need none."""
    entry = registered()[name]
    if entry.needs is None:
        return [None]
    found = [family for family in available() if entry.served_by([family_class(family)])]
    assert found, f"no model family offers what the score {name!r} needs"
    return found


def models_for(name, family=None):
    """A model of a family, or of the first that serves; nothing for scores that need none."""
    family = family or families_for(name)[0]
    return () if family is None else (trained(family),)


# As configured, but for what takes long.
SETTINGS = {**AnomalyConfig().of_scores(), "likelihood_samples": 2, "network_steps": 20, "restoration_steps": 3}


def fitted(name, family=None):
    return _fitted(name, family or families_for(name)[0])


@functools.cache
def _fitted(name, family):
    entry = registered()[name]
    training = Inputs.of(healthy(), *models_for(name, family), **SETTINGS)
    names = [name] if entry.shares is None else [entry.shares, name]
    return entry, entry.state({each: registered()[each].fit(training) for each in names})


def inputs(dataset, name, rows=None, family=None):
    rows = list(range(len(dataset))) if rows is None else rows
    return Inputs(dataset.images[rows], dataset.foregrounds[rows], models_for(name, family), SETTINGS)


NAMES = sorted(registered())


@pytest.mark.parametrize("name", NAMES)
class TestEveryScore:
    def test_shape_type_and_finite_in_the_foreground(self, name):
        entry, state = fitted(name)
        scans = healthy(3, seed=1)
        values = entry(inputs(scans, name), state)
        assert values.shape == ((3, *SHAPE) if entry.level == "voxel" else (3,))
        assert values.dtype == np.float32
        inside = values if entry.level == "scan" else values[scans.foregrounds[:, 0].numpy()]
        assert np.isfinite(inside).all()

    def test_a_scan_scores_the_same_alone_and_in_any_batch(self, name):
        entry, state = fitted(name)
        scans = healthy(4, seed=3)
        together = entry(inputs(scans, name), state)
        turned = entry(inputs(scans, name, [3, 1, 0, 2]), state)
        for row, place in ((0, 2), (1, 1), (2, 3), (3, 0)):
            alone = entry(inputs(scans, name, [row]), state)[0]
            scale = np.abs(alone).max() + 1e-6
            np.testing.assert_allclose(together[row], alone, atol=1e-4 * scale)
            np.testing.assert_allclose(turned[place], alone, atol=1e-4 * scale)

    def test_it_repeats_and_changes_no_input(self, name):
        entry, state = fitted(name)
        scans = healthy(2, seed=4)
        image = scans.images.clone()
        first = entry(inputs(scans, name), state)
        torch.manual_seed(99)
        np.testing.assert_array_equal(first, entry(inputs(scans, name), state))
        assert torch.equal(scans.images, image)

    def test_what_it_learns_is_named_arrays(self, name):
        _, state = fitted(name)
        for key, value in state.items():
            assert re.fullmatch(r"[a-z_][a-z0-9_]*", key)
            assert isinstance(value, np.ndarray)
            # Bytes are how the artifact keeps masks.
            assert value.dtype != np.uint8

    def test_it_lies_in_a_file_of_its_name(self, name):
        entry = registered()[name]
        # Models' own maps come from the models.
        assert entry.function.__module__ == f"medgen.anomaly.scores.{'own_maps' if entry.own else name}"

    def test_the_docstring_names_the_source(self, name):
        assert re.search(r"Source: .*\d{4}", " ".join(registered()[name].source.split()))


@pytest.mark.parametrize(("name", "family"), [(name, family) for name in NAMES for family in families_for(name)])
def test_a_planted_blob_scores_higher(name, family):
    """With every family that serves a score: what is strange to one must not look healthy to another."""
    entry, state = fitted(name, family)
    scan = healthy(1, seed=2)
    before = entry(inputs(scan, name, family=family), state)[0]
    scan.images[0, 0][BLOB] += 1.0
    after = entry(inputs(scan, name, family=family), state)[0]
    if entry.local:
        assert after[BLOB].mean() > before[BLOB].mean()
        assert after[BLOB].mean() > after[scan.foregrounds[0, 0].numpy()].mean()
    elif entry.level == "scan":
        assert after > before


SERVED = [(name, family) for name in NAMES if registered()[name].needs for family in families_for(name)]


@pytest.mark.skipif(not bf16_works("cpu"), reason="bfloat16 is wrong here")
@pytest.mark.parametrize(("name", "family"), SERVED)
def test_in_bfloat16_it_says_the_same(name, family):
    """Maps correlate to 0.999, scan scores differ by less than healthy scans do; where that fails: ``float32=True``."""
    # Fitted once: which mixture is chosen may hang on the last digit of a code.
    (entry, state), scans = fitted(name, family), healthy(6, seed=5)
    scans.images[3:, 0][(slice(None), *BLOB)] += 1.0
    given = inputs(scans, name, family=family)
    exact, rounded = (entry(replace(given, bf16=bf16), state) for bf16 in (False, True))
    if entry.float32:
        np.testing.assert_array_equal(rounded, exact)
    elif entry.level == "scan":
        assert np.abs(rounded - exact).max() < 0.2 * exact.std()
    else:
        assert not np.array_equal(rounded, exact)
        for one, other, mask in zip(exact, rounded, scans.foregrounds[:, 0].numpy(), strict=True):
            assert np.corrcoef(one[mask], other[mask])[0, 1] > 0.999


@pytest.mark.parametrize("family", available())
def test_a_family_gives_the_maps_that_its_class_names(family):
    kind = family_class(family)
    assert bool(kind.maps) == issubclass(kind, HasVoxelMaps)
    if not kind.maps:
        return
    scans = healthy(3, seed=6)
    with torch.no_grad():
        found, alone = (trained(family).voxel_maps(images) for images in (scans.images, scans.images[1:2]))
    assert found.keys() == kind.maps.keys()
    for name, values in found.items():
        assert values.shape == (3, 1, *SHAPE)
        torch.testing.assert_close(values[1:2], alone[name], atol=1e-4, rtol=1e-4)
        assert registered()[name].own


FITTING = {
    **dict.fromkeys(["vae", "cevae", "vaegan", "joint", "context"], ("nll",)),
    "vqvae": ("nll", "code_surprise"),
    "dae": ("dae",),
    "fanogan": ("fanogan",),
    **dict.fromkeys(["wgan_gp", "flow", "spade", "maskvae", "inpaint"], None),
}


@pytest.mark.parametrize("family", sorted(FITTING))
def test_a_configuration_that_names_no_channels_gets_those_that_fit_the_family(family):
    kind = family_class(family)
    if FITTING[family] is None:
        with pytest.raises(ConfigError, match=f"the family '{family}' says nothing of single voxels; use one that"):
            check_scores([kind], AnomalyConfig())
        # Named channels that need no model are always right.
        assert check_scores([kind], AnomalyConfig(fusion={"channels": ["selfsup"]})) == ["selfsup"]
        return
    fitting = ["selfsup", "descriptors", *FITTING[family]]
    assert check_scores([kind], AnomalyConfig()) == fitting
    # A model that says something goes before one that does not, and a second one changes nothing.
    assert check_scores([family_class("flow"), kind, family_class("dae")], AnomalyConfig()) == fitting
    named = AnomalyConfig(fusion={"channels": ["residual"]})
    if registered()["residual"].served_by([kind]):
        assert check_scores([kind], named) == ["residual"]


@pytest.mark.parametrize("family", available())
def test_what_is_fused_by_default_is_offered(family):
    kind = family_class(family)
    try:
        names = default_channels([kind])
    except ConfigError:
        assert not kind.maps
        assert not issubclass(kind, Reconstructs)
    else:
        assert all(registered("voxel")[name].served_by([kind]) for name in names)


def test_a_map_under_the_name_of_another_score_is_refused(monkeypatch):
    monkeypatch.setattr(family_class("vqvae"), "maps", {"residual": VoxelMap("Source: 2020.")})
    with pytest.raises(ValueError, match="a score named 'residual' is registered already"):
        catalogue._all.__wrapped__(())


def test_models_see_as_many_scans_at_a_time_as_fit_into_four_million_voxels():
    def sizes(*shape):
        image = torch.zeros(1).expand(shape)
        return [len(part) for part in Inputs(image, image > 0).chunks]

    assert sizes(5, 1, 128, 128, 128) == [2, 2, 1]
    assert sizes(2, 1, 256, 256, 256) == [1, 1]
    assert sizes(9, 2, 80, 104, 80) == [6, 3]


def test_the_order_of_scores_that_tables_have():
    baselines = ["zscore", "mahalanobis_voxel", "robust_z", "pca", "knn", "knn_pca", "histogram", "blur", "intensity"]
    controls = ["flip", "distance", "random"]
    latent = ["iwae", "regret", "mahalanobis", "latent_knn", "latent_gmm"]
    local = ["descriptors", "texture", "selfsup", "selfsup_network"]
    reconstruction = ["ssim", "aeu", "dae", "kl_gradient", "restoration", "multireconstruction", "fanogan"]
    known = [*baselines, *controls, *latent, *local, *reconstruction, "residual", "squared", "nll"]
    # Further ones may have been added.
    assert [name for name in registered() if name in known] == known


def test_a_score_that_needs_a_model_refuses_to_work_without():
    entry = registered()["residual"]
    scans = healthy(1)
    assert not entry.supports([])
    with pytest.raises(ConfigError, match="needs a trained model"):
        entry(Inputs(scans.images, scans.foregrounds), {})
