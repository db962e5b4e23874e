import sys

import pytest

from medgen.errors import ConfigError
from medgen.models import families
from medgen.models.catalogue import available, build, family_class, parse_sampling, parse_settings


def test_families_are_found_by_file_name():
    assert {"vae", "vaegan", "joint", "cevae", "dae"} <= set(available())
    assert all(family_class(name).family == name for name in available())


@pytest.mark.parametrize("family", ["blocks", "latent", "nothing", "os", "../vae", None])
def test_what_is_no_family_is_refused_with_the_known_ones(family):
    with pytest.raises(ConfigError, match=r"joint, .*vae, vaegan.*found"):
        parse_settings({"family": family, "shape": (16, 16, 16)})


def test_a_file_without_a_model_of_its_name_says_so(tmp_path, monkeypatch):
    (tmp_path / "hollow.py").write_text("from medgen.models.families.vae import Vae\n")
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    with pytest.raises(ConfigError, match=r"families\.hollow: holds no model of the family 'hollow'"):
        family_class("hollow")
    del sys.modules["medgen.models.families.hollow"], families.hollow


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latnt": 3}, "did you mean 'latent'"),
        ({"widths": [20]}, "multiple of 16"),
        ({"shape": (4, 16, 16)}, "at least 8 voxels"),
        ({"shape": None}, "shape"),
    ],
)
def test_wrong_settings_are_one_line(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_settings({"family": "vae", "shape": (16, 16, 16), **change})
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=rf"^generators\.joint\.model: .*{message}"):
        parse_settings({"family": "vae", "shape": (16, 16, 16), **change}, "generators.joint.model")


def test_a_seed_decides_the_weights():
    first, again, other = (build({"family": "vae", "shape": (8, 8, 8)}, seed=seed) for seed in (1, 1, 2))
    assert first.encoder.stem.weight.equal(again.encoder.stem.weight)
    assert not first.encoder.stem.weight.equal(other.encoder.stem.weight)


def test_an_option_of_sampling_is_no_setting_of_the_model():
    given = {"family": "flow", "shape": (16, 16, 16), "n_labels": 1, "sampling_steps": 4}
    with pytest.raises(ConfigError, match=r"flow: sampling_steps is .* option of sampling.*sampling\.solver_steps"):
        parse_settings(given)
    assert parse_sampling("flow", {"solver_steps": 4}).solver_steps == 4
    with pytest.raises(ConfigError, match=r"sampling of flow: unknown key 'solver_step'.*solver_steps"):
        parse_sampling("flow", {"solver_step": 4})
