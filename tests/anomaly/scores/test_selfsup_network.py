from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from medgen.anomaly.artifact import from_artifact, to_artifact
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.crossfit import crossfit
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.scores import corrupted_copies as corrupted
from medgen.anomaly.scores import selfsup_network as module
from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import get
from medgen.anomaly.scores.corrupted_copies import SIDE, corrupted_copies, forget_copies
from medgen.anomaly.scores.descriptors import LIMIT
from medgen.config import parse_config
from medgen.errors import ConfigError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build
from medgen.preprocessing.dataset import Dataset
from medgen.preprocessing.recipe import Preprocess

SHAPE = (14, 16, 12)
STEPS = 2


@pytest.fixture(scope="module", autouse=True)
def _few_copies():
    """Two corrupted copies of a scan are enough to see what is done with them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corrupted, "_COPIES", 2)
        yield


def scans(n=8, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in SHAPE], indexing="ij"))
    pattern = 0.5 + 0.2 * np.cos(6 * grid[0]) * np.sin(5 * grid[1])
    images = pattern + 0.08 * rng.normal(size=(n, 1, *SHAPE))
    mask = np.broadcast_to((grid**2).sum(0) < 1.1, (n, 1, *SHAPE)).copy()
    return torch.from_numpy((images * mask).astype(np.float32)), torch.from_numpy(mask)


def inputs(n=5, seed=0, **settings):
    return Inputs(*scans(n, seed), (), {"network_steps": STEPS, **settings})


def fitted(training):
    return get("selfsup_network").state({name: get(name).fit(training) for name in ("descriptors", "selfsup_network")})


@pytest.fixture(scope="module")
def state():
    return fitted(inputs())


def test_without_a_step_it_ranks_voxels_as_selfsup_does(state):
    """The last layer starts at zero: what is left is the additive model and a bias, under a monotone function."""
    training, scan = inputs(), inputs(1, seed=5)
    linear = {**get("descriptors").fit(training), **get("selfsup").fit(training)}
    start = module.Network(state["first_weight"].shape[1] // 2)
    start.start(linear["weight"], 0.7)
    untrained = {name.replace(".", "_"): value.numpy() for name, value in start.state_dict().items()}
    expected = get("selfsup")(scan, linear)
    known = expected > -LIMIT
    got = get("selfsup_network")(scan, {**linear, **untrained})
    odds = expected[known] - linear["bias"][0] + 0.7
    np.testing.assert_allclose(got[known], np.log1p(np.exp(odds.astype(np.float64))), rtol=1e-4, atol=1e-5)
    assert (got[~known] == 0).all()


def test_training_repeats_and_lowers_the_loss_it_is_for(state):
    again = fitted(inputs())
    for key, value in state.items():
        np.testing.assert_array_equal(value, again[key])
    shifted = fitted(inputs(network_steps=1))
    assert not np.array_equal(state["context_0_weight"], shifted["context_0_weight"])

    def loss(own):
        training = inputs()
        copies = corrupted_copies(training, patches=True)
        examples = module._Examples(training, own)
        network = module._loaded(own, torch.device("cpu"))
        z, target, weight = (
            torch.from_numpy(np.stack(part))
            for part in zip(
                *[examples.of(row, patch) for row in (0, 3) for copy in copies[row] for patch in copy.patches],
                strict=True,
            )
        )
        with torch.inference_mode():
            return float(nn.functional.binary_cross_entropy_with_logits(network(z), target, weight))

    assert loss(fitted(inputs(network_steps=40))) < 0.97 * loss(shifted)


def test_global_generators_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    fitted(inputs(network_steps=1))
    assert torch.equal(torch.rand(4), expected)


def test_slabs_say_what_the_whole_says(state):
    network = module._loaded(state, torch.device("cpu"))
    nn.init.normal_(network.last.weight)
    z = torch.randn(state["mean"].shape[0], 37, 6, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = network(z[None])[0]
        for chunk in (1, 5 * 30, 16 * 30, 1 << 20):
            torch.testing.assert_close(module._odds(network, z, chunk), whole, rtol=1e-4, atol=1e-4)


def test_no_voxel_beyond_the_reach_changes_a_score(state):
    network = module._loaded(state, torch.device("cpu"))
    nn.init.normal_(network.last.weight)
    z = torch.randn(1, state["mean"].shape[0], 17, 17, 17, generator=torch.Generator().manual_seed(0))
    moved = z.clone()
    moved[0, :, 8, 8, 8] += 3
    with torch.inference_mode():
        where = (network(moved) != network(z))[0].nonzero() - 8
    assert int(where.abs().max()) == module._REACH


def test_patches_are_cut_from_the_copies_that_selfsup_learns_from():
    alone, both = inputs(), inputs()
    rows, cut = corrupted_copies(alone), corrupted_copies(both, patches=True)
    assert all(not copy.patches for own in rows for copy in own)
    for own, other in zip(rows, cut, strict=True):
        for copy, same in zip(own, other, strict=True):
            np.testing.assert_array_equal(copy.values, same.values)
            np.testing.assert_array_equal(copy.changed, same.changed)
            for patch in same.patches:
                assert patch.values.shape[1:] == tuple(min(SIDE, size) for size in SHAPE)
                # Here a patch is the whole grid: the chosen voxels are in it.
                mask = both.mask[0]
                np.testing.assert_array_equal(patch.values[:, mask][:, same.voxels], same.values)
                np.testing.assert_array_equal(patch.changed[mask][same.voxels], same.changed)
    # Who comes later takes what is there, and cuts anew where patches are missing.
    assert corrupted_copies(both)[0] is cut[0]
    assert corrupted_copies(alone, patches=True)[0] is not rows[0]
    forget_copies(both.memo[0])
    assert not [key for key in both.memo[0] if key.startswith("corrupted")]


def test_corruptions_that_are_left_out_are_not_learned(state):
    assert not np.allclose(fitted(inputs(corruptions=("offset",)))["last_weight"], state["last_weight"], atol=1e-4)


def cohort():
    images, masks = scans(12)
    ids = tuple(f"case-{number:02d}" for number in range(12))
    return Dataset(ids, ids, images, masks)


RECIPE = Preprocess(shape=SHAPE, spacing=(1.0, 1.0, 1.0))
CONFIG = parse_config(
    AnomalyConfig,
    {
        "folds": 2,
        "likelihood_samples": 2,
        "network_steps": STEPS,
        "fusion": {"channels": ["selfsup", "selfsup_network"]},
        "calibration": {"target_fpr": 0.1},
        "validation": {"enabled": False},
        "gate": {"enabled": False},
    },
    source="test",
)


def models():
    settings = {"family": "vae", "shape": SHAPE, "widths": (16,), "latent": 4, "codes": ((2, 2),)}
    return [[build(settings, seed=number).eval()] for number in range(2)]


def digest(arrays):
    return {name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() for name, value in arrays.items()}


def test_a_fold_never_sees_the_scans_that_it_holds_out():
    data = cohort()
    folds = [data.ids[:6], data.ids[6:]]
    changed = Dataset(data.ids, data.ids, data.images.clone(), data.foregrounds)
    changed.images[:6] = changed.images[:6].flip(2) * 1.7
    names = ["selfsup", "selfsup_network", "descriptors"]
    before, after = (crossfit(each, folds, models(), CONFIG, names, RECIPE).members for each in (data, changed))
    # Fold 0 holds the changed scans out and is the same to the last bit; fold 1 learns from them.
    same, other = (digest(own.states["selfsup_network"]) for own in (before[0], before[1]))
    assert digest(after[0].states["selfsup_network"]) == same
    assert digest(after[1].states["selfsup_network"]) != other


def test_a_saved_detector_scores_the_same(tmp_path):
    data = cohort()
    detector = AnomalyDetector.fit(data, [data.ids[:6], data.ids[6:]], models(), CONFIG, RECIPE, voxel_scores=())
    to_artifact(detector).save(tmp_path / "model")
    again = from_artifact(TrainedModel.load(tmp_path / "model"))
    image, mask = scans(1, seed=4)
    one, other = (own.measure(image[0], mask[0]) for own in (detector, again))
    np.testing.assert_array_equal(one.heat, other.heat)
    np.testing.assert_array_equal(one.z["selfsup_network"], other.z["selfsup_network"])
    np.testing.assert_array_equal(one.heat, detector.lean.measure(image[0], mask[0]).heat)


@pytest.mark.parametrize("steps", [0, -3, "many"])
def test_steps_that_are_none_are_refused_in_one_line(steps):
    with pytest.raises(ConfigError, match=r"network_steps") as caught:
        parse_config(AnomalyConfig, {"network_steps": steps}, source="test")
    assert "\n" not in str(caught.value)


def test_the_time_of_a_training_grows_with_its_steps(monkeypatch):
    monkeypatch.setattr(module, "SIDE", 6)
    few, many = (get("selfsup_network").fit_seconds(1, torch.device("cpu"), {"network_steps": n}) for n in (1, 1000))
    assert 0 < 20 * few < many
