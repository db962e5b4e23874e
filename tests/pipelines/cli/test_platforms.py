"""Machines that medgen does not run on are told so in a sentence."""

from __future__ import annotations

import sys

import pytest

from medgen.errors import ConfigError
from medgen.pipelines.cli.app import main
from medgen.runs.device_names import check_device_name
from medgen.training.trainer import device_of


def test_windows_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "argv", ["medgen", "doctor"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert "Windows is not supported" in str(ended.value.code)
    assert "WSL2" in str(ended.value.code)


@pytest.mark.parametrize("check", [check_device_name, device_of])
@pytest.mark.parametrize("name", ["mps", "mps:0"])
def test_the_gpu_of_a_mac_is_refused_in_a_sentence(check, name):
    with pytest.raises(ConfigError, match=r"GPU of a Mac.*use cpu"):
        check(name)


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:3"])
def test_names_of_devices_are_known(name):
    assert check_device_name(name) == name


@pytest.mark.parametrize(("name", "meant"), [("cdua", "did you mean 'cuda'?"), ("gpu", "expected auto, cpu or cuda")])
def test_a_misspelt_device_is_told_with_what_was_meant(name, meant):
    with pytest.raises(ConfigError) as error:
        check_device_name(name)
    assert meant in str(error.value)


def test_a_mac_computes_on_its_processors(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_of("auto").type == "cpu"
