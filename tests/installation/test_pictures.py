"""The pictures of README.md are made by the demo that is shipped, by the script that says so."""

from __future__ import annotations

import io
import json
import os
import runpy
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medgen.pipelines import demo

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
RECORD = json.loads((IMAGES / "demo.json").read_text(encoding="utf-8"))


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("L").resize((96, 96), Image.Resampling.BOX), np.float64)


def alike(one: bytes, other: bytes) -> float:
    """The correlation of two pictures at a size at which fonts and single voxels do not matter."""
    return float(np.corrcoef(pixels(one).ravel(), pixels(other).ravel())[0, 1])


def test_the_pictures_were_made_with_the_configurations_that_are_shipped(tmp_path: Path) -> None:
    anomaly, augment = demo.settings(tmp_path, "cpu")
    words = "the demo has changed: run medgen demo, then python docs/images.py demo"
    assert RECORD["heatmap.png"]["config_sha256"] == anomaly.digest(), words
    assert RECORD["synthetic.png"]["config_sha256"] == augment.digest(), words
    assert files("medgen.configs").joinpath("anomaly", "simulated.yaml").is_file()


@pytest.mark.parametrize("name", sorted(RECORD))
def test_readme_shows_each_and_each_is_a_picture(name: str) -> None:
    assert f"docs/images/{name}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert pixels((IMAGES / name).read_bytes()).std() > 20


def test_other_pictures_are_told_apart() -> None:
    first, second = ((IMAGES / name).read_bytes() for name in ("heatmap.png", "synthetic.png"))
    assert alike(first, first) > 0.999
    assert alike(first, second) < 0.9
    small = Image.open(io.BytesIO(first)).convert("RGB")
    noisy = np.clip(np.asarray(small, np.float64) + np.random.default_rng(0).normal(0, 8, np.shape(small)), 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(noisy.astype(np.uint8)).save(buffer, "png")
    assert alike(first, buffer.getvalue()) > 0.99


@pytest.mark.skipif("MEDGEN_DEMO" not in os.environ, reason="MEDGEN_DEMO names no folder of medgen demo")
def test_a_demo_made_here_gives_the_same_pictures() -> None:
    made, record = runpy.run_path(str(ROOT / "docs" / "images.py"))["pictures"](Path(os.environ["MEDGEN_DEMO"]))
    assert set(made) == set(RECORD)
    for name, content in made.items():
        assert record[name]["config_sha256"] == RECORD[name]["config_sha256"]
        # Other processors round otherwise: networks differ a little, and another scan may be the clearest.
        if {**record[name]} == RECORD[name]:
            assert alike(content, (IMAGES / name).read_bytes()) > 0.95, name
