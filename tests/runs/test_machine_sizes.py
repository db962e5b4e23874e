"""Configurations scaled to a machine: fields of view stay, sizes of batches are bounded, nothing is scaled twice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medgen.config import apply_overrides, parse_config, read_yaml
from medgen.errors import ConfigError
from medgen.pipelines.anomaly.config import AnomalyRunConfig
from medgen.pipelines.augment.config import AugmentRunConfig
from medgen.pipelines.train_settings import TrainRunConfig
from medgen.runs.machine_sizes import SIZES, said, scaled

CONFIGS = Path(__file__).parents[2] / "configs"
KINDS = {"train": TrainRunConfig, "anomaly": AnomalyRunConfig, "augment": AugmentRunConfig}
SHIPPED = sorted(path for kind in KINDS for path in (CONFIGS / kind).glob("*.yaml"))


def vae(size: str, *overrides: str) -> dict:
    return scaled(apply_overrides(read_yaml(CONFIGS / "train" / "vae.yaml"), [f"size={size}", *overrides]), "vae.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.parametrize("size", SIZES)
def test_every_shipped_configuration_can_be_scaled(path: Path, size: str) -> None:
    given = read_yaml(path)
    values = scaled({**given, "size": size}, str(path))
    config = parse_config(KINDS[path.parent.name], values, "test")
    assert config.scaled_to == size
    # What a run writes down gives the same run again.
    plain = config.model_dump(mode="json")
    again = {key: value for key, value in plain.items() if key != "generators"} | (
        {"generators": values["generators"]} if "generators" in values else {}
    )
    assert scaled(again, "config.yaml") == again
    before, after = given.get("preprocess", {}), values.get("preprocess", {})
    if {"shape", "spacing"} <= set(before):
        for n, step, other, new in zip(
            before["shape"], before["spacing"], after["shape"], after["spacing"], strict=True
        ):
            assert n * step * 0.99 <= other * new <= n * step + 17 * new
        most = SIZES[size].voxels
        assert most is None or math.prod(after["shape"]) <= most
    if size == "workstation":
        assert parse_config(KINDS[path.parent.name], {**given, "scaled_to": size}, "test") == config


def test_a_gpu_gets_finer_grids_wider_networks_longer_trainings_and_bfloat16() -> None:
    values = vae("gpu")
    assert values["preprocess"]["shape"] == [120, 144, 120]
    assert values["preprocess"]["spacing"] == pytest.approx([1.682] * 3)
    assert values["model"]["widths"] == [64, 128]
    own = values["training"]
    assert (own["steps"], own["precision"]) == (4000, "bf16")
    # As many scans a step as before, in batches of at most two volumes of 128³.
    assert own["batch_size"] * math.prod(values["preprocess"]["shape"]) <= 2 * 128**3
    assert own["batch_size"] * own["accumulate"] == 4
    large = vae("gpu-large")["training"]
    assert (large["batch_size"] * large["accumulate"], large["steps"]) == (4, 8000)


def test_no_grid_becomes_finer_than_a_millimetre_and_fine_ones_stay() -> None:
    fine = vae("gpu-large", "preprocess.spacing=[1.0, 1.0, 1.0]")
    assert (fine["preprocess"]["shape"], fine["preprocess"]["spacing"]) == ([48, 60, 48], [1.0, 1.0, 1.0])
    assert min(vae("gpu-large")["preprocess"]["spacing"]) >= 0.99


def test_a_laptop_gets_less_of_everything() -> None:
    values = vae("laptop")
    assert math.prod(values["preprocess"]["shape"]) <= 48**3
    assert values["model"]["widths"] == [16, 32]
    assert values["training"]["steps"] == 500
    assert "precision" not in values["training"]


def test_grids_that_are_chosen_later_further_models_and_generators_are_scaled_too() -> None:
    given = {
        "size": "gpu",
        "max_side": 64,
        "model": {"family": "vae"},
        "further": {"second": {"model": {"family": "dae", "widths": [32, 48]}, "training": {"steps": 10}}},
        "generators": {
            "spade": {"training": {"steps": 20}},
            "shape+flow": {"mask": {"widths": [32]}, "mask_training": {}},
        },
    }
    values = scaled(given, "test")
    assert values["max_side"] == 128
    assert values["further"]["second"]["model"]["widths"] == [64, 96]
    assert values["further"]["second"]["training"]["steps"] == 40
    assert values["generators"]["spade"]["training"]["steps"] == 80
    assert values["generators"]["shape+flow"]["mask"]["widths"] == [64]
    assert "steps" not in values["generators"]["shape+flow"]["mask_training"]
    # A training that says nothing does the 1000 steps of the default.
    assert values["training"]["steps"] == 4000
    assert TrainRunConfig.model_fields["training"].default.steps * 4 == 4000


def test_unknown_sizes_and_numbers_that_are_scaled_already_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^vae.yaml: size: expected laptop, .* or gpu-large, found 'big'"):
        vae("big")
    with pytest.raises(ConfigError, match=r"scaled to 'gpu' already; leave size out"):
        scaled({**vae("gpu"), "size": "laptop"}, "config.yaml")


def test_the_plan_says_what_a_size_did() -> None:
    assert said("workstation").endswith("the configuration as it is written")
    for name, size in SIZES.items():
        line = said(name)
        assert line.startswith(f"size: {name}, for {size.machine}: ")
        assert ("bf16" in line) == (size.precision == "bf16")
        assert (f"steps x {size.steps:g}" in line) == (size.steps != 1)
