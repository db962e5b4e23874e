"""Commands in processes of their own: what they cost."""

from __future__ import annotations

import pytest

from medgen.errors import MedgenError
from medgen.pipelines.bench.speed.commands import command, shipped


def test_a_command_costs_what_its_process_used(tmp_path):
    done = command("data", "simulate", str(tmp_path / "cohort"), "-n", "2", "--spacing", "10")
    assert (tmp_path / "cohort" / "manifest.csv").is_file()
    assert 0.1 < done.seconds < 60
    assert 30 < done.peak_mb < 4000


def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(MedgenError, match="no such file or folder"):
        command("data", "check", str(tmp_path / "absent"))
    assert command("data", "check", str(tmp_path / "absent"), may_fail=True).seconds > 0.1


def test_configurations_are_found():
    assert shipped("tiny/anomaly.yaml").is_file()
