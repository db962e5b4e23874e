"""The load of the machine: MLflow's keys, at its pace, and nothing where it is switched off."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from medgen.runs.store import system_metrics


def seen(out: Path, seconds: float) -> list[tuple[dict[str, float], int]]:
    found: list[tuple[dict[str, float], int]] = []
    with system_metrics.watched(lambda values, step: found.append((dict(values), step)), out):
        until = time.monotonic() + seconds
        while time.monotonic() < until and len(found) < 2:
            time.sleep(0.02)
    return found


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", raising=False)


def test_looks_have_mlflows_keys_and_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "interval", lambda: 0.05)
    looks = seen(tmp_path, 20)
    assert [step for _, step in looks][:2] == [0, 1]
    values = looks[0][0]
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= values.keys()
    assert all(name.startswith("system/") for name in values)
    assert 0 < values["system/system_memory_usage_percentage"] <= 100
    assert values["system/process_memory_usage_megabytes"] > 10


def test_a_short_run_has_none_and_does_not_wait(tmp_path: Path) -> None:
    begun = time.monotonic()
    with system_metrics.watched(lambda *_: pytest.fail("too early"), tmp_path):
        pass
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("word", ["false", "False", "0"])
def test_mlflows_switch_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", word)
    monkeypatch.setattr(system_metrics, "interval", lambda: 0.01)
    assert seen(tmp_path, 0.3) == []


@pytest.mark.parametrize(("text", "pause"), [("30", 30.0), ("0.01", 1.0), ("often", 10.0)])
def test_the_interval_is_mlflows(monkeypatch: pytest.MonkeyPatch, text: str, pause: float) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", text)
    assert system_metrics.interval() == pause


def test_a_reading_that_fails_ends_the_looks_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "interval", lambda: 0.01)

    def broken(*_: object) -> dict[str, float]:
        raise OSError("no such device")

    monkeypatch.setattr(system_metrics, "_look", broken)
    assert seen(tmp_path, 0.2) == []
