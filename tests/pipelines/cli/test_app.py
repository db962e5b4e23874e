"""The console script: help answers at once, every command shows an example, user errors are one line and exit 2."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from medgen.errors import MedgenError
from medgen.pipelines.cli.app import main
from tests.builders.commands import commands

MEDGEN = Path(sys.executable).parent / "medgen"


def medgen(*arguments, cwd=None):
    return subprocess.run(
        [MEDGEN, *map(str, arguments)], capture_output=True, text=True, timeout=200, check=False, cwd=cwd
    )


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_an_example(path):
    command = COMMANDS[path]
    assert command.help
    assert re.match(rf"Example: medgen {' '.join(path)}\b", command.epilog)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv=['medgen','--help']\n"
        "from medgen.pipelines.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch','monai','mlflow','SimpleITK','nibabel','scipy','numpy','pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "Usage: medgen" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["nonsense", "--help"]),
        (["data", "check"], ["--help"]),
        (["data", "check", "absent-folder"], ["absent-folder"]),
        (["anomaly", "run", "absent.yaml"], ["absent.yaml"]),
        (["anomaly", "run", "absent"], ["absent", "simulated"]),
        (["anomaly", "run", "simulated", "trainning.steps=3"], ["trainning"]),
        (["anomaly", "run", "simulated", "data=absent-folder"], ["absent-folder"]),
        (["augment", "run", "simulated", "joint.steps"], ["joint.steps", "key=value"]),
        (["augment", "value", "default", "data=absent-folder"], ["absent-folder"]),
        (["train", "vae", "data=absent", "model.family=diffusion"], ["diffusion", "vae"]),
        (["anomaly", "score", "absent.nii.gz", "--model", "absent", "--out", "x"], ["absent"]),
        (["anomaly", "evaluate", "absent", "masks"], ["absent", "no such folder"]),
        (["explore", "absent", "--data", "cohort", "--out", "x"], ["absent", "no such folder"]),
        (["audit", "verify", "absent-run"], ["absent-run"]),
        (["card", "lint", "absent.md"], ["absent.md"]),
    ],
    ids=" ".join,
)
def test_user_errors_are_one_clear_line(arguments, words, tmp_path):
    result = medgen(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]
    assert not list(tmp_path.iterdir())


def test_tilted_ct_is_refused(shared_data):
    result = medgen("data", "check", shared_data / "dicom" / "ct_head_tilted")
    assert result.returncode == 2
    assert "gantry tilt" in result.stderr
    assert "irregular" in result.stderr


def test_a_folder_of_that_name_does_not_hide_a_shipped_configuration(tmp_path):
    (tmp_path / "simulated").mkdir()
    result = medgen("anomaly", "run", "simulated", "data=absent-folder", cwd=tmp_path)
    assert "absent-folder" in result.stderr


@pytest.mark.parametrize(("value", "raises"), [("", False), ("0", False), ("False", False), ("1", True), ("yes", True)])
def test_debugging_can_be_switched_off_in_the_environment(value, raises, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MEDGEN_DEBUG", value)
    monkeypatch.setattr(sys, "argv", ["medgen", "data", "check", str(tmp_path / "nowhere")])
    with pytest.raises(MedgenError if raises else SystemExit):
        main()
    assert ("medgen: " in capsys.readouterr().err) is not raises
