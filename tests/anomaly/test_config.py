"""The settings of anomaly scoring: what single scores read is declared in files of its own, and known without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medgen.anomaly.config import AnomalyConfig
from medgen.config import parse_config, plain_yaml
from medgen.errors import ConfigError

SETTING = """
from pydantic import Field

from medgen.config import Config


class SmudgeWidth(Config):
    smudge_width: float = Field(default=2.0, gt=0)
"""

SCORE = """
from medgen.anomaly.scores.base import score


@score("smudge", baseline=True)
def smudge(inputs, state):
    return inputs.mask * inputs.settings["smudge_width"]
"""

USE = """
import sys
import yaml
from medgen.anomaly import scores
from medgen.anomaly.scores import settings
own = sys.argv[1]
scores.__path__.append(own)
settings.__path__.append(own + "/settings")

from medgen.anomaly.config import AnomalyConfig
from medgen.config import parse_config, plain_yaml
from medgen.errors import ConfigError
config = parse_config(AnomalyConfig, {"smudge_width": 3, "fusion": {"channels": ["smudge"]}}, "test")
assert parse_config(AnomalyConfig, plain_yaml(yaml.safe_dump(config.model_dump(mode="json")), "test"), "test") == config
for wrong, said in (({"smudge_widht": 3}, "did you mean 'smudge_width'"), ({"smudge_width": 0}, "greater than 0")):
    try:
        parse_config(AnomalyConfig, wrong, "test")
    except ConfigError as error:
        assert said in str(error), error
    else:
        raise AssertionError(wrong)
assert "torch" not in sys.modules

import torch
from medgen.anomaly.scores.base import Inputs
from medgen.anomaly.scores.catalogue import get
config.check_names()
ones = torch.ones(1, 1, 2, 3, 4)
assert (get("smudge")(Inputs(ones, ones.bool(), settings=config.of_scores()), {}) == 3).all()
"""


def test_a_score_of_ones_own_brings_its_setting(tmp_path: Path) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "smudge.py").write_text(SETTING)
    (tmp_path / "smudge.py").write_text(SCORE)
    subprocess.run([sys.executable, "-c", USE, str(tmp_path)], check=True)


def test_scores_are_handed_their_settings_and_no_others() -> None:
    given = {"likelihood_samples": 3, "network_steps": 5, "restoration_steps": 4, "corruptions": ["noise"], "folds": 2}
    config = parse_config(AnomalyConfig, given, "test")
    expected = {"likelihood_samples": 3, "network_steps": 5, "restoration_steps": 4, "corruptions": ("noise",)}
    assert config.of_scores() == expected
    assert (
        parse_config(AnomalyConfig, plain_yaml(yaml.safe_dump(config.model_dump(mode="json")), "test"), "test")
        == config
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"likelihod_samples": 3}, "unknown key 'likelihod_samples'; did you mean 'likelihood_samples'"),
        ({"network_steps": 0}, "network_steps: Input should be greater than or equal to 1"),
        ({"restoration_steps": 0}, "restoration_steps: Input should be greater than or equal to 1"),
        ({"corruptions": ["noise", "nose"]}, "corruptions: expected some of offset, noise, .*, found nose"),
        ({"corruptions": []}, "corruptions: expected some of offset, noise, .*, found none"),
    ],
)
def test_wrong_settings_of_scores_are_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(AnomalyConfig, given, "test")
